"""Losses that look at the order of all documents of a query, as rerankers are trained with."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from splade.losses.batch_scores import BatchScores

MU = 10.0
"""Share of NDCG-Loss2 in NDCG-Loss2++, as published."""


def lambda_ndcg(scores: BatchScores) -> Tensor:
    """LambdaLoss with the weights of NDCG-Loss2++ (CIKM 2018, equation 19) for one relevant document per query.

    `-w log2 sigmoid(s+ - s-)`, mean over pairs, `w = 10 |1/D(a) - 1/D(a + 1)| + |1/D(r+) - 1/D(r-)|`, where r are the
    ranks by the scores, from 1, `a = |r+ - r-|`, and `D(r) = log2(1 + r)`.
    """
    ranks = 1 + scores.own.argsort(dim=1, descending=True).argsort(dim=1).to(scores.own.dtype)
    apart = (ranks[:, :1] - ranks[:, 1:]).abs()
    discounts = _discount(ranks)
    weights = MU * (_discount(apart) - _discount(apart + 1)) + (discounts[:, :1] - discounts[:, 1:]).abs()
    margins = scores.positive[:, None] - scores.negatives
    return -(weights * functional.logsigmoid(margins)).mean() / math.log(2)


def list_net(scores: BatchScores) -> Tensor:
    """ListNet (ICML 2007): cross-entropy of softmax(scores) to softmax(labels), mean over queries.

    The label of the positive is 1, that of a negative 0. With a teacher's scores for labels it would be KlDiv.
    """
    labels = torch.zeros_like(scores.own)
    labels[:, 0] = 1
    return functional.cross_entropy(scores.own, labels.softmax(dim=1))


def list_mle(scores: BatchScores) -> Tensor:
    """ListMLE (ICML 2008): negative log-likelihood of the teacher's order, mean over queries.

    `-sum_i log(exp s_i / sum_(j >= i) exp s_j)` over documents i, best first in the eyes of the teacher
    (Plackett-Luce).
    """
    if scores.teacher is None:
        raise ValueError("ListMLE needs teacher scores")
    ordered = scores.own.gather(1, scores.teacher.argsort(dim=1, descending=True))
    still_there = ordered.flip(1).logcumsumexp(dim=1).flip(1)
    return (still_there - ordered).sum(dim=1).mean()


def _discount(ranks: Tensor) -> Tensor:
    return 1 / torch.log2(1 + ranks)
