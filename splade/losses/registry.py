"""The losses by the names that `config.loss` uses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from splade.errors import ConfigError, nearest
from splade.losses import distillation, listwise, ranking
from splade.losses.batch_scores import BatchScores


@dataclass(frozen=True)
class Loss:
    """A ranking loss under its name in `config.loss`, and what it needs.

    Attributes:
        compute: batch scores -> scalar.
        needs_teacher: it compares with teacher scores.
        needs_batch: it compares a query with other queries' documents.
        smallest_batch: queries below which it is another loss.
    """

    name: str
    compute: Callable[[BatchScores], Tensor]
    needs_teacher: bool = False
    needs_batch: bool = False
    smallest_batch: int = 1


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("PairwiseNLL", ranking.pairwise_nll),
        Loss("InBatchPairwiseNLL", ranking.in_batch_pairwise_nll, needs_batch=True, smallest_batch=2),
        Loss("Contrastive", ranking.contrastive, needs_batch=True),
        Loss("BPR", ranking.bpr),
        Loss("BCE", ranking.bce),
        Loss("DistilMarginMSE", distillation.margin_mse, needs_teacher=True),
        Loss("AllPairsMarginMSE", distillation.all_pairs_margin_mse, needs_teacher=True),
        Loss("KlDiv", distillation.kl_divergence, needs_teacher=True),
        Loss("Lambda", listwise.lambda_ndcg),
        Loss("ListNet", listwise.list_net),
        Loss("ListMLE", listwise.list_mle, needs_teacher=True),
    )
}

# Weighted sums by their published names: the first is that of SIGIR 2023, the third that of SPLADE-v3.
SUMS = {
    "kldiv_contrastive_with_weights": {"KlDiv": 0.99, "Contrastive": 0.01},
    "kldiv_contrastive_without_weights": {"KlDiv": 1.0, "Contrastive": 1.0},
    "kldiv_mse_margin_with_weights": {"KlDiv": 0.99, "AllPairsMarginMSE": 0.05},
    "kldiv_mse_margin_without_weights": {"KlDiv": 1.0, "AllPairsMarginMSE": 1.0},
}


class WeightedLoss:
    """A weighted sum of losses.

    Example:
        >>> import torch
        >>> loss = WeightedLoss.parse({"PairwiseNLL": 1.0, "BPR": 0.5})
        >>> total, terms = loss(BatchScores(torch.tensor([[1.0, 1.0]])))
        >>> round(total.item(), 4), sorted(terms)
        (1.0397, ['BPR', 'PairwiseNLL'])
    """

    def __init__(self, terms: Mapping[str, float]):
        self.terms = {name: (LOSSES[name], float(weight)) for name, weight in terms.items()}

    @classmethod
    def parse(cls, value: object, in_batch_negatives: bool = False) -> "WeightedLoss":
        """Read `config.loss`: a name, or {name: weight}; names are those of `LOSSES` and `SUMS`.

        With in-batch negatives, PairwiseNLL is InBatchPairwiseNLL.

        Raises:
            ConfigError: an unknown name, a weight that is not a number, or a loss that in-batch negatives do not fit.
        """
        terms = value if isinstance(value, Mapping) else {value: 1.0}
        allowed = [*LOSSES, *SUMS]
        if not terms:
            raise ConfigError(f"config.loss is empty; allowed are {', '.join(allowed)}, or {{NAME: weight, ...}}")
        named: dict[str, float] = {}
        for name, weight in terms.items():
            if name not in allowed:
                raise ConfigError(f"config.loss={name}{nearest(str(name), allowed)}; allowed are {', '.join(allowed)}")
            if not isinstance(weight, int | float) or not weight > 0:
                raise ConfigError(f"config.loss.{name}={weight}: the weight must be a number above 0")
            for part, share in SUMS.get(str(name), {name: 1.0}).items():
                own = "InBatchPairwiseNLL" if in_batch_negatives and part == "PairwiseNLL" else part
                named[own] = named.get(own, 0.0) + weight * share
        loss = cls(named)
        if in_batch_negatives and not loss.needs_batch:
            raise ConfigError(
                f"config.augment_pairs=in_batch_negatives has no meaning for config.loss={', '.join(named)}: "
                "use InBatchPairwiseNLL or Contrastive, or leave augment_pairs null"
            )
        return loss

    def _any(self, need: str) -> bool:
        return any(getattr(loss, need) for loss, _ in self.terms.values())

    @property
    def needs_teacher(self) -> bool:
        """Whether a term compares with teacher scores."""
        return self._any("needs_teacher")

    @property
    def needs_batch(self) -> bool:
        """Whether a term compares a query with other queries' documents."""
        return self._any("needs_batch")

    @property
    def smallest_batch(self) -> int:
        """Queries that a batch must have."""
        return max(loss.smallest_batch for loss, _ in self.terms.values())

    def __call__(self, scores: BatchScores) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum and each unweighted term."""
        values = {name: loss.compute(scores) for name, (loss, _) in self.terms.items()}
        total = sum((weight * values[name] for name, (_, weight) in self.terms.items()), scores.own.new_zeros(()))
        return total, values

    def __repr__(self) -> str:
        return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, (_, weight) in self.terms.items())
