"""The training objective: ranking loss plus regularisers, over the batch of all processes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from splade.distributed import n_processes, process_rank
from splade.errors import CollapseError
from splade.losses import Regularizer, WeightedLoss, flops_loss, mean_terms, regularization, score_batch, sparsity
from splade.training.collator import Batch
from splade.training.gradient_cache import encode_cached

BatchType = TypeVar("BatchType")
RECOUNT_STEPS, RECOUNTED = 10, 32
"""Every so many steps so many texts of the batch are counted again without dropout, for a controller of terms."""
MONITORED = {"L0": mean_terms, "sparsity": sparsity, "flops": flops_loss}


class RegularizedObjective(ABC, Generic[BatchType]):
    """What is minimised in training: the loss of a batch plus regularisers, whose state is kept from step to step."""

    def __init__(self, regularizers: list[Regularizer]):
        self.regularizers = regularizers

    @abstractmethod
    def __call__(
        self, model: nn.Module, batch: BatchType, step: float, gather: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to minimise, and named detached terms."""

    def regularize(
        self, step: float, queries: Tensor, documents: Tensor, loss: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the regularisers, and each with the lambda of those that adjust it, detached.

        They learn from the batch before, unless it is one of validation, whose `step` is infinite.

        Args:
            step: optimiser steps done.
            queries: (B, V) vectors.
            documents: (B * (1 + n), V) vectors.
            loss: scalar, what they are added to.
        """
        if math.isfinite(step):
            for regularizer in self.regularizers:
                regularizer.observe(queries.detach(), documents.detach(), loss.detach())
        penalty, penalties = regularization(self.regularizers, step, queries, documents)
        terms = {name: value.detach() for name, value in penalties.items()}
        for regularizer in self.regularizers:
            if regularizer.controller is not None:
                factor = regularizer.controller.factor(documents)
                terms[f"lambda_{regularizer.name}"] = factor * regularizer.first_lambda
        return penalty, terms

    def recount(
        self, model: nn.Module, step: float, vectors: tuple[Tensor, Tensor], encode: Callable[[], tuple[Tensor, Tensor]]
    ) -> None:
        """Let controllers know every ten steps how many terms texts have without dropout, as in use.

        Args:
            model: in training.
            step: optimiser steps done; nothing happens in validation.
            vectors: of queries and of documents of this process, with dropout.
            encode: encodes the first 32 of both again.
        """
        controlled = [regularizer for regularizer in self.regularizers if regularizer.controller is not None]
        if not controlled or not math.isfinite(step) or step % RECOUNT_STEPS:
            return
        queries, documents = (side.detach()[:RECOUNTED] for side in vectors)
        model.eval()
        with torch.no_grad():
            again = encode()
        model.train()
        if n_processes() > 1:
            queries, documents = gather_rows(queries), gather_rows(documents)
            again = gather_rows(again[0]), gather_rows(again[1])
        for regularizer in controlled:
            regularizer.recount((queries, documents), again)

    def check(self) -> None:
        """Raise a CollapseError where a controller has pressed all terms out of the vectors."""
        for regularizer in self.regularizers:
            if regularizer.controller is not None and regularizer.controller.has_pressed_out_all:
                raise CollapseError(
                    f"config.regularizer.{regularizer.name}.target_terms={regularizer.controller.target_terms:g}: "
                    "hardly any vector has a term left, and what is pressed out does not return. Lower config.lr, "
                    "lengthen config.warmup_steps, or ask for more terms"
                )

    def state(self) -> dict[str, Tensor]:
        """Return what the regularisers have learned, which a resumed run needs."""
        return {f"{part.name}/{name}": value for part in self.regularizers for name, value in part.state().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        for part in self.regularizers:
            prefix = f"{part.name}/"
            part.load({name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)})


class Objective(RegularizedObjective[Batch]):
    """Computes the loss of a batch and everything worth logging about it.

    With several processes every one computes the loss of the global batch: the vectors are gathered with their
    gradients, so that in-batch negatives are shared and FLOPS, which is not additive, is that of all vectors.

    Args:
        loss: of the scores.
        regularizers: of the vectors.
        encode_at_a_time: queries, with their documents, whose activations are kept at a time; None: all of the batch.
    """

    def __init__(self, loss: WeightedLoss, regularizers: list[Regularizer], encode_at_a_time: int | None = None):
        super().__init__(regularizers)
        self.loss = loss
        self.encode_at_a_time = encode_at_a_time

    def __call__(
        self, model: nn.Module, batch: Batch, step: float, gather: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to minimise, and named detached terms.

        Args:
            model: a `Splade`, possibly wrapped for several processes.
            batch: what the collator made.
            step: optimiser steps done; infinity in validation: the regularisers have their final weight, and learn
                nothing.
            gather: share the batch among processes.
        """
        if self.encode_at_a_time is not None and torch.is_grad_enabled():
            queries, documents = encode_cached(model, batch, self.encode_at_a_time)
        else:
            queries, documents = model(batch["queries"], batch["documents"])

        def again() -> tuple[Tensor, Tensor]:
            first = (
                {name: rows[:RECOUNTED] for name, rows in batch[side].items()} for side in ("queries", "documents")
            )
            found: tuple[Tensor, Tensor] = model(*first)
            return found

        self.recount(model, step, (queries, documents), again)
        teacher = batch.get("teacher")
        n_local = len(queries)
        if gather and n_processes() > 1:
            positives, negatives = gather_rows(documents[:n_local]), documents[n_local:]
            negatives = gather_rows(negatives) if len(negatives) else negatives
            queries, documents = gather_rows(queries), torch.cat([positives, negatives])
            teacher = gather_rows(teacher) if teacher is not None else None
        scores = score_batch(queries, documents, self.loss.needs_batch, teacher)
        ranking, terms = self.loss(scores)
        penalty, penalties = self.regularize(step, queries, documents, ranking)
        terms = {name: value.detach() for name, value in terms.items()} | penalties
        for side, vectors in (("q", queries.detach()), ("d", documents.detach())):
            for name, monitor in MONITORED.items():
                terms[f"{name}_{side}"] = monitor(vectors)
        return ranking + penalty, terms


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(n_processes())]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        # All processes compute the same loss of the same vectors, so this gradient is the same in all of them. The
        # gradients of the parameters will be averaged, but what is needed is the sum over everybody's own rows.
        own = grad.chunk(n_processes())[process_rank()]
        return own * n_processes()


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate a (rows, ...) tensor, of the same shape everywhere, over all processes; gradients flow back."""
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered
