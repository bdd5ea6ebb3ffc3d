"""Losses that learn from which document is relevant."""

import torch
from torch import Tensor
from torch.nn import functional

from splade.losses.batch_scores import BatchScores


def pairwise_nll(scores: BatchScores) -> Tensor:
    """Negative log-likelihood of the positive against the query's own negatives.

    `-log softmax([s+, s-_1 .. s-_n])_0`, averaged over queries (PairwiseNLL; RankNet-like, arXiv 1910.14424).
    """
    return _nll_of_first(scores.own)


def in_batch_pairwise_nll(scores: BatchScores) -> Tensor:
    """Negative log-likelihood of the positive against its own negatives and every other positive of the batch.

    SPLADE (SIGIR 2021), equation 5: candidates of query i are `d+_i`, `d-_i` and `d+_j`, j != i.
    """
    every = _required(scores.every, "InBatchPairwiseNLL")
    in_batch = every[:, : len(every)]
    logits = torch.cat([in_batch, scores.negatives], dim=1)
    return functional.cross_entropy(logits, torch.arange(len(every), device=every.device))


def contrastive(scores: BatchScores) -> Tensor:
    """Cross-entropy of the positive against all negatives of the batch, those of other queries included.

    In a batch of one query these are its own negatives: the loss is then `pairwise_nll`.
    """
    every = _required(scores.every, "Contrastive")
    return _nll_of_first(torch.cat([scores.positive[:, None], every[:, len(every) :]], dim=1))


def span_contrast(first: Tensor, second: Tensor) -> Tensor:
    """Cross-entropy of the other span of a text against all other spans of the batch (coCondenser, arXiv 2108.05540).

    `-log exp(h_i1 . h_i2) / sum_kl exp(h_i1 . h_kl)` over all spans kl but i1 itself; the mean over all 2 B spans.

    Args:
        first: (B, V) vectors, one span of each text.
        second: (B, V) vectors, the other.
    """
    spans = torch.cat([first, second])
    scores = (spans @ spans.T).fill_diagonal_(-torch.inf)
    return functional.cross_entropy(scores, torch.arange(len(spans), device=spans.device).roll(len(first)))


def bpr(scores: BatchScores) -> Tensor:
    """Bayesian personalised ranking (arXiv 1205.2618): `-log sigmoid(s+ - s-)`, mean over pairs."""
    return -functional.logsigmoid(scores.positive[:, None] - scores.negatives).mean()


def bce(scores: BatchScores) -> Tensor:
    """Binary cross-entropy of each score as the log-odds of relevance, positives and negatives weighted equally."""
    positive = -functional.logsigmoid(scores.positive).mean()
    negative = -functional.logsigmoid(-scores.negatives).mean()
    return (positive + negative) / 2


def _nll_of_first(logits: Tensor) -> Tensor:
    return -functional.log_softmax(logits, dim=1)[:, 0].mean()


def _required(every: Tensor | None, name: str) -> Tensor:
    if every is None:
        raise ValueError(f"{name} needs the scores of the whole batch")
    return every
