"""The scores of one training batch, from which every ranking loss is computed."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchScores:
    """Scores of B queries with their own documents, and with those of the other queries of the batch.

    Attributes:
        own: (B, 1 + n) float32; column 0 is the query's positive, the others its n negatives.
        every: (B, B * (1 + n)) float32 or None; scores with all documents of the batch, positives first: columns
            `0 .. B-1` are the positives of queries `0 .. B-1`, then come the negatives, query by query.
        teacher: (B, 1 + n) float32 or None; a teacher's scores in the order of `own`.
    """

    own: Tensor
    every: Tensor | None = None
    teacher: Tensor | None = None

    @property
    def positive(self) -> Tensor:
        """(B,) scores of the positives."""
        return self.own[:, 0]

    @property
    def negatives(self) -> Tensor:
        """(B, n) scores of the queries' own negatives."""
        return self.own[:, 1:]

    @property
    def n_negatives(self) -> int:
        """Negatives per query."""
        return self.own.shape[1] - 1


def score_batch(queries: Tensor, documents: Tensor, with_batch: bool, teacher: Tensor | None = None) -> BatchScores:
    """Take the dot products that a loss needs.

    Args:
        queries: (B, V) vectors.
        documents: (B * (1 + n), V) vectors: all positives, then all negatives, query by query.
        with_batch: whether the loss compares a query with other queries' documents.
        teacher: (B, 1 + n) teacher scores, if any.
    """
    n_queries = len(queries)
    if with_batch:
        every = queries @ documents.T
        rows = torch.arange(n_queries, device=every.device)
        negatives = every[:, n_queries:].view(n_queries, n_queries, -1)[rows, rows]
        own = torch.cat([every.diagonal()[:, None], negatives], dim=1)
        return BatchScores(own, every, teacher)
    positives, negatives = documents[:n_queries], documents[n_queries:].view(n_queries, -1, documents.shape[1])
    own = torch.cat([(queries * positives).sum(1, keepdim=True), torch.einsum("bv,bnv->bn", queries, negatives)], dim=1)
    return BatchScores(own, None, teacher)
