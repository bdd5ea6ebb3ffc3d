"""Sparsity regularisers, and how their weight grows during training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from splade.config.schema import RegularizerConfig
from splade.errors import ConfigError, nearest


def flops_loss(vectors: Tensor) -> Tensor:
    """FLOPS regulariser (arXiv 2004.05665, equation 4): `sum_j (mean_i |w_ij|)^2` of (batch, vocab) vectors."""
    return vectors.abs().mean(0).square().sum()


def l1_loss(vectors: Tensor) -> Tensor:
    """Mean over the batch of the sum of the absolute weights."""
    return vectors.abs().sum(1).mean()


def anti_zero_loss(vectors: Tensor) -> Tensor:
    """`1 / (sum of all weights)^2`: grows when the vectors of a batch collapse to zero (SIGIR 2023)."""
    return 1.0 / vectors.sum().square().clamp_min(1e-12)


def mean_terms(vectors: Tensor) -> Tensor:
    """L0: mean number of non-zero terms of a vector; monitored, it has no gradient."""
    return (vectors.detach() > 0).sum(1).float().mean()


def sparsity(vectors: Tensor) -> Tensor:
    """Share of the weights that are zero; monitored, it has no gradient."""
    return (vectors.detach() <= 0).float().mean()


REGULARIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "FLOPS": flops_loss,
    "L1": l1_loss,
    "anti_zero": anti_zero_loss,
}

Pool = Literal["sides", "all"]


@dataclass(frozen=True)
class Regularizer:
    """One regularisation term: `lambda_q(t) reg(queries) + lambda_d(t) reg(documents)`.

    What the value for documents is, `pool` says, for there are two published recipes: `sides` is the mean of the
    positives' and the negatives' value, each over its own batch (triplet training, SPLADE v1 to ++); `all` is one value
    over all documents (several negatives: SIGIR 2023, SPLADE-v3). The weight grows as `lambda * min(1, t / T)^2` with
    the optimiser step t (SPLADE, SIGIR 2021, section 4.1): a function of the step alone, so a resumed run has the same
    weight.
    """

    name: str
    compute: Callable[[Tensor], Tensor]
    lambda_q: float | None
    lambda_d: float | None
    growth_steps: int | None
    pool: Pool = "sides"

    def schedule(self, step: float) -> float:
        """Return the factor of lambda after `step` optimiser steps; infinity stands for the end of its growth."""
        return 1.0 if not self.growth_steps else min(1.0, step / self.growth_steps) ** 2

    def __call__(self, step: float, queries: Tensor, documents: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms `NAME_q` and `NAME_d`, those that have a lambda.

        Args:
            step: optimiser steps done before this batch.
            queries: (B, V) vectors.
            documents: (B * (1 + n), V) vectors, the positives first; n may be 0.
        """
        factor, terms = self.schedule(step), {}
        if self.lambda_q is not None:
            terms[f"{self.name}_q"] = factor * self.lambda_q * self.compute(queries)
        if self.lambda_d is not None:
            positives, negatives = documents[: len(queries)], documents[len(queries) :]
            if self.pool == "sides" and len(negatives):
                value = (self.compute(positives) + self.compute(negatives)) / 2
            else:
                value = self.compute(documents)
            terms[f"{self.name}_d"] = factor * self.lambda_d * value
        return terms


def parse_regularizers(value: Mapping[str, RegularizerConfig] | str | None) -> list[Regularizer]:
    """Build the regularisers of `config.regularizer`; `eval_only` and None give none.

    Raises:
        ConfigError: an unknown regulariser, or one without any lambda.
    """
    regularizers = []
    for name, entry in (value if isinstance(value, Mapping) else {}).items():
        full, reg = f"config.regularizer.{name}", entry.reg or name
        if reg not in REGULARIZERS:
            raise ConfigError(f"{full}.reg={reg}{nearest(reg, REGULARIZERS)}; allowed are {', '.join(REGULARIZERS)}")
        sides = {"q": (entry.lambda_q, None), "d": (None, entry.lambda_d)}
        lambda_q, lambda_d = sides.get(entry.targeted_rep or "rep", (entry.lambda_q, entry.lambda_d))
        if lambda_q is None and lambda_d is None:
            raise ConfigError(f"{full} has neither lambda_q nor lambda_d: give one, or remove the entry")
        pool: Pool = "all" if entry.pool == "all" or (entry.pool is None and reg == "anti_zero") else "sides"
        regularizers.append(Regularizer(name, REGULARIZERS[reg], lambda_q, lambda_d, entry.T, pool))
    return regularizers


def regularization(
    regularizers: list[Regularizer], step: float, queries: Tensor, documents: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Add up all regularisers, each once, over a batch of (B, V) queries and (B * (1 + n), V) documents."""
    terms: dict[str, Tensor] = {}
    for regularizer in regularizers:
        terms |= regularizer(step, queries, documents)
    return torch.stack(list(terms.values())).sum() if terms else queries.new_zeros(()), terms
