"""Sparse vectors over a vocabulary, many at a time: the one currency between encoder, index and search."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SparseVectors:
    """`n` sparse vectors in compressed sparse row form.

    Attributes:
        indptr: (n + 1,) int64; vector i owns the entries `indptr[i]:indptr[i + 1]`.
        term_ids: (nnz,) int32, ascending and unique within a vector, each below `vocab_size`.
        weights: (nnz,) float32, finite and positive.
        vocab_size: number of terms of the vocabulary.

    Example:
        >>> vectors = SparseVectors.from_dense(np.array([[0.0, 2.0, 0.5], [0.0, 0.0, 0.0]]))
        >>> len(vectors), vectors.row(0)[0].tolist(), vectors.row(0)[1].tolist()
        (2, [1, 2], [2.0, 0.5])
    """

    indptr: np.ndarray
    term_ids: np.ndarray
    weights: np.ndarray
    vocab_size: int

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self.row(i) for i in range(len(self)))

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return len(self.term_ids)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64: number of terms of each vector."""
        return np.diff(self.indptr)

    def row(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the term ids (int32) and weights (float32) of vector `i`, as views."""
        span = slice(self.indptr[i], self.indptr[i + 1])
        return self.term_ids[span], self.weights[span]

    def rows(self, start: int, stop: int) -> "SparseVectors":
        """Return vectors `start` to `stop` (exclusive); the entries are views, not copies."""
        indptr = self.indptr[start : stop + 1]
        span = slice(indptr[0], indptr[-1])
        return SparseVectors(indptr - indptr[0], self.term_ids[span], self.weights[span], self.vocab_size)

    def take(self, order: np.ndarray) -> "SparseVectors":
        """Return the vectors in the given order, an integer array of any length."""
        order = np.asarray(order, dtype=np.int64)
        lengths = self.lengths[order]
        indptr = np.zeros(len(order) + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:])
        entries = np.repeat(self.indptr[order] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return SparseVectors(indptr, self.term_ids[entries], self.weights[entries], self.vocab_size)

    def to_dense(self) -> np.ndarray:
        """Return a (n, vocab_size) float32 matrix."""
        dense = np.zeros((len(self), self.vocab_size), dtype=np.float32)
        dense[np.repeat(np.arange(len(self)), self.lengths), self.term_ids] = self.weights
        return dense

    @classmethod
    def from_dense(cls, matrix: np.ndarray) -> "SparseVectors":
        """Keep the positive entries of a (n, vocab_size) matrix."""
        rows, terms = np.nonzero(matrix > 0)
        indptr = np.zeros(len(matrix) + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=len(matrix)), out=indptr[1:])
        weights = np.asarray(matrix[rows, terms], dtype=np.float32)
        return cls(indptr, terms.astype(np.int32), weights, matrix.shape[1])

    @classmethod
    def empty(cls, vocab_size: int) -> "SparseVectors":
        """Return zero vectors over `vocab_size` terms."""
        return cls(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), vocab_size)

    @classmethod
    def concatenate(cls, parts: Sequence["SparseVectors"], vocab_size: int) -> "SparseVectors":
        """Stack several sets of vectors over the same vocabulary."""
        if not parts:
            return cls.empty(vocab_size)
        lengths = np.concatenate([part.lengths for part in parts])
        indptr = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:])
        term_ids = np.concatenate([part.term_ids for part in parts])
        return cls(indptr, term_ids, np.concatenate([part.weights for part in parts]), vocab_size)
