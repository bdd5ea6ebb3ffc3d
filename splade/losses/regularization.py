"""The regularisation terms of a run: what `config.regularizer` says, and how their weight grows during training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from splade.config.schema import RegularizerConfig
from splade.errors import ConfigError, nearest
from splade.losses.document_frequency import RunningFrequencies, frequency_weight
from splade.losses.lambda_control import LambdaController
from splade.losses.regularizers import (
    anti_zero_loss,
    beyond_top_k,
    flops_loss,
    joint_flops_loss,
    l0_mask,
    l1_loss,
    rarity_weight,
)

REGULARIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "FLOPS": flops_loss,
    "L1": l1_loss,
    "anti_zero": anti_zero_loss,
}
DF_FLOPS, IDF_FLOPS, JOINT_FLOPS = "DF_FLOPS", "IDF_FLOPS", "joint_FLOPS"
NAMES = (*REGULARIZERS, DF_FLOPS, IDF_FLOPS, JOINT_FLOPS)
ALPHA, BETA = 0.1, 10.0  # of DF-FLOPS

Pool = Literal["sides", "all"]
Select = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Regularizer:
    """One regularisation term: `lambda_q(t) reg(queries) + lambda_d(t) reg(documents)`.

    What the value for documents is, `pool` says, for there are two published recipes: `sides` is the mean of the
    positives' and the negatives' value, each over its own batch (triplet training, SPLADE v1 to ++); `all` is one value
    over all documents (several negatives: SIGIR 2023, SPLADE-v3). The weight grows as `lambda * min(1, t / T)^2` with
    the optimiser step t (SPLADE, SIGIR 2021, section 4.1): a function of the step alone, so a resumed run has the same
    weight.

    Attributes:
        name: of the entry in `config.regularizer`.
        compute: (n, V) vectors -> scalar; None for the joint one, which is of both sides.
        lambda_q: weight of the queries' value, or None.
        lambda_d: weight of the documents' (or the joint) value, or None.
        growth_steps: T; None or 0: constant.
        pool: how documents are pooled.
        selections: each leaves out some of the weights of (n, V) vectors; applied one after the other.
        frequencies: running document frequencies, for DF-FLOPS.
        controller: aims at a number of terms.
    """

    name: str
    compute: Callable[[Tensor], Tensor] | None
    lambda_q: float | None
    lambda_d: float | None
    growth_steps: int | None
    pool: Pool = "sides"
    selections: tuple[Select, ...] = ()
    frequencies: RunningFrequencies | None = None
    controller: LambdaController | None = None

    @property
    def first_lambda(self) -> float:
        """The lambda of a term that has one."""
        return next(weight for weight in (self.lambda_q, self.lambda_d) if weight is not None)

    def schedule(self, step: float) -> float:
        """Return the factor of lambda after `step` optimiser steps; infinity stands for the end of its growth."""
        return 1.0 if not self.growth_steps else min(1.0, step / self.growth_steps) ** 2

    def observe(self, queries: Tensor, documents: Tensor, loss: Tensor) -> None:
        """Learn from the vectors of a training batch and their loss, where the term does."""
        if self.frequencies is not None:
            self.frequencies.observe(documents)
        if self.controller is not None:
            (penalty,) = self._penalties(queries, documents).values()
            self.controller.observe(self._controlled(queries, documents), penalty, loss)

    def recount(self, vectors: tuple[Tensor, Tensor], without_dropout: tuple[Tensor, Tensor]) -> None:
        """Tell the controller, if any, the terms of a few queries and documents, encoded with dropout and without."""
        if self.controller is not None:
            self.controller.recount(self._controlled(*vectors), self._controlled(*without_dropout))

    def _controlled(self, queries: Tensor, documents: Tensor) -> Tensor:
        return documents if self.lambda_q is None else queries

    def __call__(self, step: float, queries: Tensor, documents: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms `NAME_q` and `NAME_d`, those that have a lambda.

        Args:
            step: optimiser steps done before this batch; infinity in validation, where lambda is what the configuration
                says, so that losses can be compared.
            queries: (B, V) vectors.
            documents: (B * (1 + n), V) vectors, the positives first; n may be 0.
        """
        factor: float | Tensor = self.schedule(step)
        if self.controller is not None and math.isfinite(step):
            factor = factor * self.controller.factor(documents)
        return {name: factor * penalty for name, penalty in self._penalties(queries, documents).items()}

    def _penalties(self, queries: Tensor, documents: Tensor) -> dict[str, Tensor]:
        penalties = {}
        if self.lambda_q is not None:
            penalties[f"{self.name}_q"] = self.lambda_q * self._value(queries)
        if self.lambda_d is not None:
            penalties[f"{self.name}_d"] = self.lambda_d * self._of_documents(queries, documents)
        return penalties

    def _of_documents(self, queries: Tensor, documents: Tensor) -> Tensor:
        if self.compute is None:
            return joint_flops_loss(self._selected(queries), self._selected(documents))
        positives, negatives = documents[: len(queries)], documents[len(queries) :]
        if self.pool == "sides" and len(negatives):
            return (self._value(positives) + self._value(negatives)) / 2
        return self._value(documents)

    def _value(self, vectors: Tensor) -> Tensor:
        assert self.compute is not None, "the joint one is of both sides"
        return self.compute(self._selected(vectors))

    def _selected(self, vectors: Tensor) -> Tensor:
        for select in self.selections:
            vectors = select(vectors)
        return vectors

    def state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs: what was learned from the batches so far."""
        learned = {part: holder.state() for part, holder in self._learning().items()}
        return {f"{part}.{name}": value for part, values in learned.items() for name, value in values.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        for part, holder in self._learning().items():
            prefix = f"{part}."
            holder.load({name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)})

    def _learning(self) -> dict[str, RunningFrequencies | LambdaController]:
        parts = {"frequencies": self.frequencies, "controller": self.controller}
        return {name: part for name, part in parts.items() if part is not None}


def parse_regularizers(
    value: Mapping[str, RegularizerConfig] | str | None, idf: Tensor | None = None
) -> list[Regularizer]:
    """Build the regularisers of `config.regularizer`; `eval_only` and None give none.

    Args:
        value: the entries.
        idf: (V,) inverse document frequencies; IDF_FLOPS cannot be computed without.

    Raises:
        ConfigError: an unknown regulariser, one without any lambda, or keys that do not fit it.
    """
    entries = value if isinstance(value, Mapping) else {}
    return [_parse(name, entry, idf) for name, entry in entries.items()]


def needs_idf(value: Mapping[str, RegularizerConfig] | str | None) -> bool:
    """Return whether a regulariser of `config.regularizer` weighs terms by their inverse document frequencies."""
    entries = value if isinstance(value, Mapping) else {}
    return any((entry.reg or name) == IDF_FLOPS for name, entry in entries.items())


def _parse(name: str, entry: RegularizerConfig, idf: Tensor | None) -> Regularizer:
    full, reg = f"config.regularizer.{name}", entry.reg or name
    if reg not in NAMES:
        raise ConfigError(f"{full}.reg={reg}{nearest(reg, NAMES)}; allowed are {', '.join(NAMES)}")
    sides = {"q": (entry.lambda_q, None), "d": (None, entry.lambda_d)}
    lambda_q, lambda_d = sides.get(entry.targeted_rep or "rep", (entry.lambda_q, entry.lambda_d))
    if lambda_q is None and lambda_d is None:
        raise ConfigError(f"{full} has neither lambda_q nor lambda_d: give one, or remove the entry")
    if reg in (DF_FLOPS, JOINT_FLOPS) and lambda_q is not None:
        raise ConfigError(f"{full}.lambda_q: {reg} has one weight, lambda_d; remove lambda_q")
    if reg != DF_FLOPS and (entry.alpha is not None or entry.beta is not None):
        raise ConfigError(f"{full}: alpha and beta are for reg={DF_FLOPS}, which is {reg} here; remove them")
    compute, frequencies = REGULARIZERS.get(reg), None
    if reg == DF_FLOPS:
        frequencies = RunningFrequencies()
        compute = partial(_df_flops, frequencies, entry.alpha or ALPHA, entry.beta or BETA)
    elif reg == IDF_FLOPS:
        compute = partial(_idf_flops, idf)
    return Regularizer(
        name,
        compute,
        lambda_q,
        lambda_d,
        entry.T,
        pool="all" if entry.pool == "all" or (entry.pool is None and reg == "anti_zero") else "sides",
        selections=_selections(entry),
        frequencies=frequencies,
        controller=_controller(full, entry, lambda_q, lambda_d),
    )


def _df_flops(frequencies: RunningFrequencies, alpha: float, beta: float, vectors: Tensor) -> Tensor:
    return flops_loss(vectors, frequency_weight(frequencies.shares(vectors), alpha, beta))


def _idf_flops(idf: Tensor | None, vectors: Tensor) -> Tensor:
    if idf is None:
        raise ValueError(f"{IDF_FLOPS} needs inverse document frequencies")
    return flops_loss(vectors, rarity_weight(idf.to(vectors.device)))


def _selections(entry: RegularizerConfig) -> tuple[Select, ...]:
    selections: list[Select] = []
    if entry.l0_threshold is not None:
        selections.append(partial(l0_mask, threshold=entry.l0_threshold))
    if entry.beyond_top_k is not None:
        selections.append(partial(beyond_top_k, top_k=entry.beyond_top_k))
    return tuple(selections)


def _controller(
    full: str, entry: RegularizerConfig, lambda_q: float | None, lambda_d: float | None
) -> LambdaController | None:
    if entry.target_terms is None:
        return None
    if lambda_q is not None and lambda_d is not None:
        raise ConfigError(
            f"{full}.target_terms={entry.target_terms:g} is for one side: give an entry of its own to each, such as "
            "{FLOPS_q: {reg: FLOPS, lambda_q: ..., target_terms: ...}, FLOPS_d: {reg: FLOPS, lambda_d: ...}}"
        )
    if entry.T:
        raise ConfigError(f"{full}.T={entry.T}: target_terms finds lambda from the first step on; set T to null")
    if not (lambda_q or lambda_d):
        raise ConfigError(f"{full}: target_terms multiplies lambda, which must be above 0 to begin with")
    return LambdaController(entry.target_terms)


def regularization(
    regularizers: list[Regularizer], step: float, queries: Tensor, documents: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Add up all regularisers, each once, over a batch of (B, V) queries and (B * (1 + n), V) documents."""
    terms: dict[str, Tensor] = {}
    for regularizer in regularizers:
        terms |= regularizer(step, queries, documents)
    return torch.stack(list(terms.values())).sum() if terms else queries.new_zeros(()), terms
