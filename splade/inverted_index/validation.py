"""Vectors are checked once, where they enter: the kernels behind rely on it."""

from collections.abc import Sequence

import numba
import numpy as np

from splade.errors import DataError
from splade.vectors import SparseVectors


def check_vectors(vectors: SparseVectors, vocab_size: int, names: Sequence[str] | None = None) -> None:
    """Refuse vectors that no index can hold or search.

    Args:
        vectors: documents or queries.
        vocab_size: of the index.
        names: what to call each vector in the error; its number when None.

    Raises:
        DataError: another vocabulary, a wrong term id or weight, arrays that do not fit together.
    """
    if vectors.vocab_size != vocab_size:
        raise DataError(
            f"the vectors are over {vectors.vocab_size} terms, the index over {vocab_size}: another model made them"
        )
    indptr, nnz = vectors.indptr, len(vectors.term_ids)
    if len(vectors.weights) != nnz or indptr[0] != 0 or indptr[-1] != nnz or (np.diff(indptr) < 0).any():
        raise DataError("the arrays of the vectors do not fit together: indptr must ascend from 0 to their length")
    terms, weights = vectors.term_ids, vectors.weights
    if nnz and (terms.min() < 0 or terms.max() >= vocab_size):
        row, fault = _row_of(indptr, (terms < 0) | (terms >= vocab_size)), "a term id outside the vocabulary"
    elif nnz and not (weights.min() > 0 and weights.max() < np.inf):  # written so that NaN is refused too
        row, fault = _row_of(indptr, ~((weights > 0) & (weights < np.inf))), "a weight that is not finite and positive"
    else:
        row, fault = _first_unordered(indptr, terms), "term ids that are not ascending and unique"
        if row < 0:
            return
    name = f"number {row}" if names is None else f"'{names[row]}'"
    terms, weights = vectors.row(row)
    raise DataError(
        f"the vector of {name} has {fault} (vocabulary of {vocab_size} terms;"
        f" its {len(terms)} entries begin with the term ids {terms[:5].tolist()} and weights {weights[:5].tolist()})"
    )


def _row_of(indptr: np.ndarray, wrong: np.ndarray) -> int:
    """Return the row of the first entry that is wrong."""
    return int(np.searchsorted(indptr, np.argmax(wrong), "right")) - 1


@numba.njit(nogil=True, cache=True)
def _first_unordered(indptr: np.ndarray, term_ids: np.ndarray) -> int:
    """Return the first row whose term ids do not ascend, or -1."""
    for row in range(len(indptr) - 1):
        unordered = False
        previous = term_ids[indptr[row]] if indptr[row] < indptr[row + 1] else 0
        for entry in range(indptr[row] + 1, indptr[row + 1]):
            unordered |= term_ids[entry] <= previous
            previous = term_ids[entry]
        if unordered:
            return row
    return -1
