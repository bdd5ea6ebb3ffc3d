"""Vectors, document numbers and settings that a program hands over wrongly: refused in words, not taken for others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from splade.errors import DataError
from splade.inverted_index import IndexBuilder, InvertedIndex, add_documents, delete_documents
from splade.vectors import SparseVectors

VOCAB = 10
LARGEST = float(np.finfo(np.float32).max)


def i32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> InvertedIndex:
    folder = tmp_path_factory.mktemp("index")
    builder = IndexBuilder(folder, VOCAB)
    rows = [([0, 1], [1, 2]), ([1, 2], [1, 3]), ([3, 9], [4, 1])]
    builder.add(["a", "b", "c"], SparseVectors.from_rows(rows, VOCAB))
    builder.finish()
    return InvertedIndex.open(folder)


TWO, TERMS, WEIGHTS = np.array([0, 2]), i32(1, 2), f32(1, 1)
WRONG: dict[str, tuple[object, object, object]] = {
    **{f"weight {w}": (TWO, TERMS, f32(1, w)) for w in (-1, 0, -0.0, np.nan, -np.nan, np.inf, -np.inf)},
    "scores beyond float32": (TWO, TERMS, f32(1, 3e38)),
    "weights beyond float32": (TWO, TERMS, np.array([1, 1e300])),
    "weights that vanish in float32": (TWO, TERMS, np.array([1, 1e-300])),
    "a term twice": (TWO, i32(1, 1), WEIGHTS),
    "terms that descend": (TWO, i32(2, 1), WEIGHTS),
    "a term below 0": (TWO, i32(-1, 2), WEIGHTS),
    "a term that the vocabulary lacks": (TWO, i32(1, VOCAB), WEIGHTS),
    "a term of 40 bits": (TWO, np.array([1, 1 << 40]), WEIGHTS),
    "a term that is one of 32 bits when cut": (TWO, np.array([1, (1 << 32) + 2]), WEIGHTS),
    "a term of 64 bits": (TWO, np.array([1, (1 << 64) - 1], np.uint64), WEIGHTS),
    "terms with fractions": (TWO, f32(1.5, 2), WEIGHTS),
    "terms as text": (TWO, np.array(["1", "2"]), WEIGHTS),
    "weights as integers": (TWO, TERMS, i32(1, 1)),
    "weights as text": (TWO, TERMS, np.array(["1", "2"])),
    "weights as objects": (TWO, TERMS, np.array([1.0, 2.0], object)),
    "complex weights": (TWO, TERMS, np.array([1j, 2])),
    "truth values": (TWO, TERMS, np.array([True, True])),
    "matrices": (TWO, TERMS[None], WEIGHTS[None]),
    "a number for indptr": (np.array(2), TERMS, WEIGHTS),
    "no indptr": (i32(), i32(), f32()),
    "indptr with fractions": (f32(0, 2), TERMS, WEIGHTS),
    "indptr that descends": (np.array([0, 2, 1, 2]), TERMS, WEIGHTS),
    "indptr that ends early": (np.array([0, 1]), TERMS, WEIGHTS),
    "indptr that ends late": (np.array([0, 3]), TERMS, WEIGHTS),
    "indptr from below 0": (np.array([-1, 2]), TERMS, WEIGHTS),
    "indptr from 1": (np.array([1, 2]), TERMS, WEIGHTS),
    "fewer weights": (TWO, TERMS, f32(1)),
    "fewer terms": (TWO, i32(1), WEIGHTS),
    "lists": ([0, 2], [1, 2], [1.0, 1.0]),
    "nothing": (None, None, None),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_vectors_are_neither_searched_nor_added(index: InvertedIndex, wrong: str) -> None:
    vectors = SparseVectors(*WRONG[wrong], VOCAB)  # type: ignore[arg-type]
    with pytest.raises(DataError):
        index.search(vectors, 3)
    if wrong == "scores beyond float32":
        return  # a weight that the vector of a document may have
    with pytest.raises(DataError):
        add_documents(index.path.parent, [(["new"] * max(1, np.size(vectors.indptr) - 1), vectors)])
    assert InvertedIndex.open(index.path).n_docs == 3


@pytest.mark.parametrize(
    "vectors",
    [
        SparseVectors(TWO, TERMS, WEIGHTS.astype(np.float64), VOCAB),
        SparseVectors(TWO, TERMS, WEIGHTS.astype(np.float16), VOCAB),
        SparseVectors(TWO, TERMS.astype(np.int64), WEIGHTS, VOCAB),
        SparseVectors(TWO.astype(np.uint8), TERMS.astype(np.uint8), WEIGHTS, VOCAB),
        SparseVectors(TWO.astype(">i8"), TERMS.astype(">i4"), WEIGHTS.astype(">f4"), VOCAB),
        SparseVectors(TWO, i32(0, 1, 0, 2)[1::2], np.ones(4, np.float32)[::2], VOCAB),
    ],
)
def test_other_number_types_and_strides_mean_the_same(index: InvertedIndex, vectors: SparseVectors) -> None:
    results = index.search(vectors, 3)
    assert (results.doc_idx.tolist(), results.scores.tolist()) == ([1, 0], [4.0, 2.0])


QUERY = SparseVectors(TWO, TERMS, WEIGHTS, VOCAB)
SETTINGS: dict[str, tuple[object, ...]] = {
    "top_k": (0, -1, 1.5, "3", None, np.nan),
    "threshold": (np.nan, "1", None),
    "effort": (0, -1, 1.1, np.nan, "1", None),
    "n_threads": (0, -1, 1.5, "2", None),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in SETTINGS.items() for value in values])
def test_wrong_settings(index: InvertedIndex, name: str, value: object) -> None:
    with pytest.raises(DataError, match=f"{name}={value!r}"):
        index.search(QUERY, **{"top_k": 3, name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"top_k": 10**12}, [1, 0]),
        ({"top_k": 2**70}, [1, 0]),
        ({"top_k": np.int8(1)}, [1]),
        ({"threshold": -5}, [1, 0]),
        ({"threshold": -np.inf}, [1, 0]),
        ({"threshold": np.inf}, []),
        ({"threshold": 1e300}, []),
        ({"threshold": np.float32(2)}, [1]),
        ({"effort": 1e-300}, [1, 0]),
        ({"n_threads": 500}, [1, 0]),
    ],
)
def test_extreme_settings(index: InvertedIndex, settings: dict[str, object], expected: list[int]) -> None:
    assert index.search(QUERY, **{"top_k": 3, **settings}).doc_idx.tolist() == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [[3], [-1], [0.5], ["a"], [None], [2**70], np.array([0, -1])])
def test_document_numbers_that_are_none(index: InvertedIndex, numbers: list[int]) -> None:
    with pytest.raises(DataError, match="from 0 to 2"):
        index.doc_ids(numbers)


@pytest.mark.parametrize("queries", ["cat", None, np.ones((1, VOCAB), np.float32), [([1], [1.0])]])
def test_queries_that_are_no_vectors(index: InvertedIndex, queries: object) -> None:
    with pytest.raises(DataError, match="SparseVectors"):
        index.search(queries, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", ["x", [], ["x", "y"], [1], [None], [b"x"]])
def test_ids_that_do_not_name_the_vectors(index: InvertedIndex, ids: list[str]) -> None:
    one = SparseVectors.from_rows([([1], [1])], VOCAB)
    with pytest.raises(DataError, match="given"):
        add_documents(index.path.parent, [(ids, one)])
    assert InvertedIndex.open(index.path).n_docs == 3


@pytest.mark.parametrize("ids", [["a", "zz"], [1], [None], ["a", "b", "c"], [" a"], ["A"], [""]])
def test_ids_that_cannot_be_deleted(index: InvertedIndex, ids: list[str]) -> None:
    with pytest.raises(DataError):
        delete_documents(index.path.parent, ids)
    assert InvertedIndex.open(index.path).n_docs == 3


ROWS: tuple[object, ...] = (
    ([1, 1], [1, 2]),
    ([1.7], [1]),
    ([1 << 40], [1]),
    (np.array([(1 << 32) + 1]), [1]),
    ([2**70], [1]),
    ([-1], [1]),
    ([1], [np.nan]),
    ([1], [-1]),
    ([1], [np.inf]),
    ([1], [1e39]),
    (["a"], [1]),
    ([1], ["x"]),
    ([True], [1]),
    None,
    ([1], [1], [1]),
    {1: 2.0},
    ([1, [2]], [1, 2]),
    (1, 2),
    ([1, 2], [1]),
)


@pytest.mark.parametrize("row", ROWS)
def test_rows_that_are_no_vectors(row: object) -> None:
    with pytest.raises(DataError, match="number 1"):
        SparseVectors.from_rows([([1], [1]), row], VOCAB)  # type: ignore[list-item]


@pytest.mark.parametrize("matrix", [np.array([[np.nan, 1]]), np.ones(2), [[1.0, 2.0]], np.array([["a"]]), None])
def test_matrices_that_are_no_vectors(matrix: np.ndarray) -> None:
    with pytest.raises(DataError):
        SparseVectors.from_dense(matrix)


@pytest.mark.parametrize("options", [{"vocab_size": 0}, {"vocab_size": 1.5}, {"rank": 2}, {"segment_postings": 0}])
def test_builders_that_cannot_be(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(DataError, match="vocab_size and segment_postings are integers"):
        IndexBuilder(tmp_path / "index", **{"vocab_size": VOCAB, **options})
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("weight", [1e-45, 1e-38, 1.0, 1e30, LARGEST / 4])
def test_scores_up_to_the_largest_number_are_exact(tmp_path: Path, weight: float) -> None:
    builder = IndexBuilder(tmp_path, 2)
    builder.add(["a", "b"], SparseVectors.from_rows([([0], [weight]), ([0, 1], [weight, weight])], 2))
    builder.finish()
    search: Callable = InvertedIndex.open(tmp_path).search
    results = search(SparseVectors.from_rows([([0, 1], [1, 1])], 2), 2)
    assert results.doc_idx.tolist() == [1, 0]
    assert results.scores.tolist() == [float(np.float32(weight) * 2), float(np.float32(weight))]
