"""Sparse vectors over a vocabulary, many at a time: the one currency between encoder, index and search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from splade.errors import DataError

if TYPE_CHECKING:
    import scipy.sparse


@dataclass(frozen=True, repr=False)
class SparseVectors:
    """`n` sparse vectors in compressed sparse row form.

    Attributes:
        indptr: (n + 1,) int64; vector i owns the entries `indptr[i]:indptr[i + 1]`.
        term_ids: (nnz,) int32, ascending and unique within a vector, each below `vocab_size`.
        weights: (nnz,) float32, finite and positive.
        vocab_size: number of terms of the vocabulary.

    Example:
        >>> vectors = SparseVectors.from_rows([([2, 1], [0.5, 2.0]), ([], [])], vocab_size=3)
        >>> vectors, vectors.row(0)[0].tolist(), vectors.row(0)[1].tolist()
        (SparseVectors(2 vectors, 2 entries, 3 terms), [1, 2], [2.0, 0.5])
    """

    indptr: np.ndarray
    term_ids: np.ndarray
    weights: np.ndarray
    vocab_size: int

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __repr__(self) -> str:
        return f"SparseVectors({len(self)} vectors, {self.nnz} entries, {self.vocab_size} terms)"

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

    def rows(self, start: int, stop: int) -> SparseVectors:
        """Return vectors `start` to `stop` (exclusive); the entries are views, not copies."""
        indptr = self.indptr[start : stop + 1]
        span = slice(indptr[0], indptr[-1])
        return SparseVectors(indptr - indptr[0], self.term_ids[span], self.weights[span], self.vocab_size)

    def take(self, order: np.ndarray) -> SparseVectors:
        """Return the vectors in the given order, an integer array of any length."""
        order = np.asarray(order, dtype=np.int64)
        lengths = self.lengths[order]
        indptr = _indptr(lengths)
        entries = np.repeat(self.indptr[order] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return SparseVectors(indptr, self.term_ids[entries], self.weights[entries], self.vocab_size)

    def check(self, vocab_size: int, names: Sequence[str] | None = None) -> None:
        """Refuse vectors that no index can hold or search. Called once, where vectors enter: kernels rely on it.

        Args:
            vocab_size: of the index.
            names: what to call each vector in the error; its number when None.

        Raises:
            DataError: another vocabulary, a wrong term id or weight, arrays that do not fit together.
        """
        if self.vocab_size != vocab_size:
            raise DataError(
                f"the vectors are over {self.vocab_size} terms, the index over {vocab_size}: another model made them"
            )
        self._check_arrays()
        indptr, terms, weights = self.indptr, self.term_ids, self.weights
        if weights.dtype != np.float32:
            with np.errstate(over="ignore", under="ignore"):
                weights = weights.astype(np.float32)  # as which they are kept
        if not self.nnz:
            return
        if terms.min() < 0 or terms.max() >= vocab_size:
            wrong, fault = (terms < 0) | (terms >= vocab_size), "a term id outside the vocabulary"
        elif not (weights.min() > 0 and weights.max() < np.inf):  # written so that NaN is refused too
            wrong, fault = ~((weights > 0) & (weights < np.inf)), "a weight that is not finite and positive"
        else:
            wrong, fault = np.empty(self.nnz, np.bool_), "term ids that are not ascending and unique"
            np.less_equal(terms[1:], terms[:-1], out=wrong[1:])
            wrong[indptr[:-1][indptr[:-1] < self.nnz]] = False  # the first entry of a vector follows none
            if not wrong.any():
                return
        row = int(np.searchsorted(indptr, np.argmax(wrong), "right")) - 1
        terms, weights = self.row(row)
        raise DataError(
            f"the vector of {f'number {row}' if names is None else repr(names[row])} has {fault} (vocabulary of"
            f" {vocab_size} terms; its {len(terms)} entries begin with the term ids {terms[:5].tolist()} and weights"
            f" {weights[:5].tolist()})"
        )

    def check_named(self, vocab_size: int, names: Sequence[str]) -> None:
        """As `check`, for vectors of which each has a name: a document id.

        Raises:
            DataError: as `check`; more or fewer names than vectors.
        """
        self._check_arrays()
        if isinstance(names, str) or len(names) != len(self):
            given = f"the string {names!r} was" if isinstance(names, str) else f"{len(names)} document ids were"
            raise DataError(f"{given} given for {len(self)} vectors; expected an id, a string, for each")
        self.check(vocab_size, names)

    def _check_arrays(self) -> None:
        """Refuse arrays of other types or shapes, and such as do not fit together."""
        indptr, terms, weights = self.indptr, self.term_ids, self.weights
        for name, array, kinds in (("indptr", indptr, "iu"), ("term_ids", terms, "iu"), ("weights", weights, "f")):
            if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in kinds:
                wanted = "floating-point numbers" if kinds == "f" else "integers"
                raise DataError(
                    f"{name} of the vectors: expected a one-dimensional NumPy array of {wanted}, got {_what(array)}"
                )
        fits = len(indptr) and len(weights) == len(terms) == indptr[-1] and indptr[0] == 0
        if not fits or (indptr[1:] < indptr[:-1]).any():
            raise DataError("the arrays of the vectors do not fit together: indptr must ascend from 0 to their length")

    def to_dense(self) -> np.ndarray:
        """Return a (n, vocab_size) float32 matrix."""
        dense = np.zeros((len(self), self.vocab_size), dtype=np.float32)
        dense[np.repeat(np.arange(len(self)), self.lengths), self.term_ids] = self.weights
        return dense

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """Return a (n, vocab_size) SciPy matrix that shares the arrays."""
        from scipy.sparse import csr_matrix

        return csr_matrix((self.weights, self.term_ids, self.indptr), shape=(len(self), self.vocab_size))

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[ArrayLike, ArrayLike]], vocab_size: int) -> SparseVectors:
        """Make vectors from (term ids, weights) pairs, in any order of the terms; zero weights are left out.

        Raises:
            DataError: as `check`.
        """
        term_ids, weights = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
        lengths: list[int] = []
        for row in rows:
            terms, values = _row_arrays(row, f"vector number {len(lengths)}", vocab_size)
            order = np.argsort(terms, kind="stable")
            order = order[values[order] != 0]
            term_ids.append(terms[order])
            weights.append(values[order])
            lengths.append(len(order))
        vectors = cls(_indptr(lengths), np.concatenate(term_ids), np.concatenate(weights), vocab_size)
        vectors.check(vocab_size)
        return vectors

    @classmethod
    def from_dense(cls, matrix: np.ndarray) -> SparseVectors:
        """Keep the positive entries of a (n, vocab_size) matrix.

        Raises:
            DataError: it is no matrix of numbers, or holds NaN.
        """
        if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
            raise DataError(f"expected a two-dimensional NumPy array of numbers, got {_what(matrix)}")
        if np.isnan(matrix).any():
            raise DataError("the matrix holds NaN")
        rows, terms = np.nonzero(matrix > 0)
        with np.errstate(over="ignore"):  # `check` refuses infinity
            weights = np.asarray(matrix[rows, terms], dtype=np.float32)
        return cls(_indptr(np.bincount(rows, minlength=len(matrix))), terms.astype(np.int32), weights, matrix.shape[1])

    @classmethod
    def empty(cls, vocab_size: int) -> SparseVectors:
        """Return no vectors, over `vocab_size` terms."""
        return cls(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), vocab_size)

    @classmethod
    def concatenate(cls, parts: Sequence[SparseVectors], vocab_size: int) -> SparseVectors:
        """Stack several sets of vectors over the same vocabulary."""
        if not parts:
            return cls.empty(vocab_size)
        indptr = _indptr(np.concatenate([part.lengths for part in parts]))
        term_ids = np.concatenate([part.term_ids for part in parts])
        return cls(indptr, term_ids, np.concatenate([part.weights for part in parts]), vocab_size)


def _row_arrays(row: tuple[ArrayLike, ArrayLike], place: str, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return term ids (int32) and weights (float32) of a (term ids, weights) pair."""
    try:
        given, values = row
        with np.errstate(over="ignore"):  # `check` refuses infinity
            terms, weights = np.asarray(given), np.asarray(values, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{place}: expected (term ids, weights), two sequences of numbers; {error}") from error
    if terms.shape != weights.shape or terms.ndim != 1:
        raise DataError(f"{place} has {terms.size} term ids and {weights.size} weights")
    if len(terms) and terms.dtype.kind not in "iu":
        raise DataError(f"{place}: term ids are integers, got {_what(terms)}")
    if len(terms) and (terms.min() < 0 or terms.max() >= vocab_size):
        raise DataError(f"{place} has a term id outside the vocabulary of {vocab_size} terms: {_what(terms)}")
    return terms.astype(np.int32), weights


def _what(value: object) -> str:
    if not isinstance(value, np.ndarray):
        return f"a {type(value).__name__}"
    return f"{value.dtype} of shape {value.shape}: {np.array2string(value.ravel()[:5])}"[:200]


def _indptr(lengths: ArrayLike) -> np.ndarray:
    """(n + 1,) int64: where each of n vectors of the given lengths begins."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))
