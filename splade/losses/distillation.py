"""Losses that learn from a teacher's scores."""

from torch import Tensor
from torch.nn import functional

from splade.losses.batch_scores import BatchScores


def margin_mse(scores: BatchScores) -> Tensor:
    """MarginMSE (arXiv 2010.02666): squared error of the margin `s+ - s-` against the teacher's, mean over pairs."""
    teacher = _teacher(scores, "DistilMarginMSE")
    student_margin = scores.positive[:, None] - scores.negatives
    teacher_margin = teacher[:, :1] - teacher[:, 1:]
    return functional.mse_loss(student_margin, teacher_margin)


def all_pairs_margin_mse(scores: BatchScores) -> Tensor:
    """MarginMSE over all N x N pairs of a query's N documents, each with itself included, as SPLADE-v3 is trained.

    `1/N^2 sum_ab ((s_a - s_b) - (t_a - t_b))^2` over all ordered pairs (a, b), of which the N of a document with itself
    are zero.
    """
    teacher = _teacher(scores, "AllPairsMarginMSE")
    student_margin = scores.own[:, :, None] - scores.own[:, None, :]
    teacher_margin = teacher[:, :, None] - teacher[:, None, :]
    return functional.mse_loss(student_margin, teacher_margin)


def kl_divergence(scores: BatchScores) -> Tensor:
    """Distillation of the ranking (arXiv 2010.11386): `KL(softmax(teacher) || softmax(student))`, mean over queries."""
    teacher = functional.log_softmax(_teacher(scores, "KlDiv"), dim=1)
    return functional.kl_div(functional.log_softmax(scores.own, dim=1), teacher, reduction="batchmean", log_target=True)


def _teacher(scores: BatchScores, name: str) -> Tensor:
    if scores.teacher is None:
        raise ValueError(f"{name} needs teacher scores")
    return scores.teacher
