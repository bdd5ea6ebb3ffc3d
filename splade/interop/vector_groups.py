"""Ids with their vectors, some at a time: what every format of vectors is read as and written from."""

from pathlib import Path

import numpy as np

from splade.errors import DataError
from splade.vectors import SparseVectors

Group = tuple[list[str], SparseVectors]
AT_ONCE = 4096
"""Vectors of a group, when they are read."""


def as_group(
    ids: list[str], lengths: np.ndarray, terms: np.ndarray, weights: np.ndarray, vocab_size: int, file: Path
) -> Group:
    """Make a group of arrays that another system wrote: its terms may be in any order, its weights any numbers.

    Weights of zero are left out.

    Args:
        ids: one for each vector.
        lengths: (n,) entries of each vector.
        terms: (entries,) integers.
        weights: (entries,) numbers.
        vocab_size: number of terms there are.
        file: where they are from, for messages.

    Raises:
        DataError: arrays that do not fit together, a term outside the vocabulary or twice in a vector, a weight that is
            negative or not finite.
    """
    if len(lengths) != len(ids) or len(terms) != len(weights) or int(lengths.sum()) != len(terms):
        raise DataError(
            f"{file}: {len(ids)} ids, {len(terms)} terms and {len(weights)} weights do not fit together: each vector "
            "has as many weights as terms"
        )
    rows = np.repeat(np.arange(len(ids)), lengths)
    order = np.lexsort((terms, rows))
    order = order[weights[order] != 0]
    counts = np.bincount(rows[order], minlength=len(ids))
    indptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))
    outside = (terms < 0) | (terms >= vocab_size)
    if outside.any():
        entry = int(np.argmax(outside))
        raise DataError(
            f"{file}: the vector of {ids[rows[entry]]!r} has the term {terms[entry]}, outside the vocabulary of "
            f"{vocab_size} terms: another model made it"
        )
    with np.errstate(over="ignore"):  # `check` refuses infinity
        vectors = SparseVectors(indptr, terms[order].astype(np.int32), weights[order].astype(np.float32), vocab_size)
    try:
        vectors.check_named(vocab_size, ids)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    return ids, vectors
