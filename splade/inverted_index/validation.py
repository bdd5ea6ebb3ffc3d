"""Vectors are checked once, where they enter: the kernels behind rely on it."""

from collections.abc import Sequence

import numba
import numpy as np

from splade.datasets.vectors import SparseVectors
from splade.errors import DataError

_FAULTS = {
    1: "a term id outside the vocabulary of {vocab_size} terms",
    2: "term ids that are not ascending and unique",
    3: "a weight that is not finite and positive",
}


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
            f"the vectors are over {vectors.vocab_size} terms, the index over {vocab_size}: they come from another model"
        )
    indptr, nnz = vectors.indptr, len(vectors.term_ids)
    if len(vectors.weights) != nnz or indptr[0] != 0 or indptr[-1] != nnz or (np.diff(indptr) < 0).any():
        raise DataError("the arrays of the vectors do not fit together: indptr must ascend from 0 to their length")
    row, fault = _first_fault(indptr, vectors.term_ids, vectors.weights, vocab_size)
    if fault:
        name = f"number {row}" if names is None else f"'{names[row]}'"
        terms, weights = vectors.row(row)
        raise DataError(
            f"the vector of {name} has {_FAULTS[fault].format(vocab_size=vocab_size)}"
            f" (term ids {terms[:5].tolist()}..., weights {weights[:5].tolist()}..., {len(terms)} entries)"
        )


@numba.njit(nogil=True, cache=True)
def _first_fault(indptr: np.ndarray, term_ids: np.ndarray, weights: np.ndarray, vocab_size: int) -> tuple[int, int]:
    """Return the row and the kind of the first fault; kind 0 when there is none."""
    for row in range(len(indptr) - 1):
        previous = -1
        for entry in range(indptr[row], indptr[row + 1]):
            term = np.int64(term_ids[entry])
            if term < 0 or term >= vocab_size:
                return row, 1
            if term <= previous:
                return row, 2
            if not (weights[entry] > 0 and weights[entry] < np.inf):
                return row, 3
            previous = term
    return 0, 0
