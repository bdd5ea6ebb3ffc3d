"""Ranking losses, distillation losses and sparsity regularisers, each one pure function."""

from splade.losses.batch_scores import BatchScores, score_batch
from splade.losses.registry import LOSSES, WeightedLoss
from splade.losses.regularization import Regularizer, needs_idf, parse_regularizers, regularization
from splade.losses.regularizers import flops_loss, l1_loss, mean_terms, sparsity

__all__ = [
    "LOSSES",
    "BatchScores",
    "Regularizer",
    "WeightedLoss",
    "flops_loss",
    "l1_loss",
    "mean_terms",
    "needs_idf",
    "parse_regularizers",
    "regularization",
    "score_batch",
    "sparsity",
]
