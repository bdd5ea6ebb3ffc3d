"""Sparse vectors: made from rows, seen as SciPy's, checked."""

import numpy as np
import pytest

from splade.errors import DataError
from splade.vectors import SparseVectors

ROWS = [([7, 2], [0.5, 1.5]), ([], []), (np.array([3]), np.array([0.0])), ([0, 9, 4], [1, 2, 3])]


def test_from_rows_sorts_and_leaves_out_zeros():
    vectors = SparseVectors.from_rows(iter(ROWS), vocab_size=10)
    assert vectors.indptr.tolist() == [0, 2, 2, 2, 5] and vectors.indptr.dtype == np.int64
    assert vectors.term_ids.tolist() == [2, 7, 0, 4, 9] and vectors.term_ids.dtype == np.int32
    assert vectors.weights.tolist() == [1.5, 0.5, 1.0, 3.0, 2.0] and vectors.weights.dtype == np.float32
    assert repr(vectors) == "SparseVectors(4 vectors, 5 entries, 10 terms)"
    assert len(SparseVectors.from_rows([], vocab_size=10)) == 0


def test_scipy_sees_the_same_matrix():
    vectors = SparseVectors.from_rows(ROWS, vocab_size=10)
    matrix = vectors.to_scipy()
    assert matrix.shape == (4, 10) and matrix.has_canonical_format
    assert matrix.toarray().tolist() == vectors.to_dense().tolist()
    assert np.shares_memory(matrix.data, vectors.weights)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (([1, 1], [1, 2]), "number 1 has term ids that are not ascending and unique"),
        (([1, 10], [1, 2]), "number 1 has a term id outside the vocabulary"),
        (([-1], [1]), "number 1 has a term id outside the vocabulary"),
        (([1], [-0.5]), "number 1 has a weight that is not finite and positive"),
        (([1], [float("nan")]), "number 1 has a weight that is not finite and positive"),
        (([1, 2], [1]), "number 1 has 2 term ids and 1 weights"),
    ],
)
def test_rows_that_are_wrong(row, message):
    with pytest.raises(DataError, match=message):
        SparseVectors.from_rows([([1], [1.0]), row], vocab_size=10)


def test_only_entries_of_one_vector_are_compared():
    """Terms may descend from one vector to the next, whatever empty ones lie between, first or last."""
    descending = SparseVectors.from_rows([([], []), ([5, 9], [1, 1]), ([], []), ([5], [1]), ([1], [1]), ([], [])], 10)
    assert descending.lengths.tolist() == [0, 2, 0, 1, 1, 0]
    wrong = SparseVectors(np.array([0, 0, 2, 4]), np.array([1, 5, 5, 5], np.int32), np.ones(4, np.float32), 10)
    with pytest.raises(DataError, match="the vector of 'c' has term ids that are not ascending"):
        wrong.check(10, ["a", "b", "c"])
    with pytest.raises(DataError, match="over 10 terms, the index over 11"):
        wrong.check(11)
    with pytest.raises(DataError, match="do not fit together"):
        SparseVectors(np.array([0, 3]), np.array([1], np.int32), np.ones(1, np.float32), 10).check(10)
