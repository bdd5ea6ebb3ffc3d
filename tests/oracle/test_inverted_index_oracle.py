"""Search over several windows of documents, held against SciPy's sparse product."""

import numpy as np
import pytest
import scipy.sparse

from splade.inverted_index import IndexBuilder, InvertedIndex
from splade.vectors import SparseVectors

N_DOCS, VOCAB = 150_000, 400  # five windows


def zipf_vectors(n: int, mean_terms: int, seed: int) -> SparseVectors:
    """Vectors whose terms are as unevenly frequent as real ones."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, VOCAB + 1) ** 0.7
    rows = np.repeat(np.arange(n), rng.poisson(mean_terms, n))
    terms = rng.choice(VOCAB, len(rows), p=share / share.sum())
    keys = np.unique(rows * VOCAB + terms)
    weights = np.log1p(rng.gamma(1.0, 1.0, len(keys))).astype(np.float32) + np.float32(1e-3)
    indptr = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(keys // VOCAB, minlength=n), out=indptr[1:])
    return SparseVectors(indptr, (keys % VOCAB).astype(np.int32), weights, VOCAB)


def as_scipy(vectors: SparseVectors) -> scipy.sparse.csr_matrix:
    return scipy.sparse.csr_matrix(
        (vectors.weights.astype(np.float64), vectors.term_ids, vectors.indptr), (len(vectors), VOCAB)
    )


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    documents, queries = zipf_vectors(N_DOCS, 20, 0), zipf_vectors(30, 12, 1)
    folder = tmp_path_factory.mktemp("index")
    builder = IndexBuilder(folder, VOCAB, segment_postings=1_000_000)
    builder.add([str(i) for i in range(N_DOCS)], documents)
    builder.finish()
    scores = (as_scipy(queries) @ as_scipy(documents).T).toarray()
    return InvertedIndex.open(folder), queries, scores


@pytest.mark.parametrize("top_k", [1, 10, 1000, 20_000, N_DOCS])
def test_exact_search_equals_the_sparse_product(collection, top_k):
    index, queries, scores = collection
    results = index.search(queries, top_k)
    for i, expected in enumerate(scores):
        doc_idx, found = results.row(i)
        best = np.sort(expected[expected > 0])[::-1][:top_k]
        assert len(doc_idx) == len(set(doc_idx.tolist())) == len(best)
        np.testing.assert_allclose(found, best, rtol=1e-5)
        np.testing.assert_allclose(found, expected[doc_idx], rtol=1e-5)
        assert (np.diff(found) <= 0).all()


def test_threshold(collection):
    index, queries, scores = collection
    results = index.search(queries, N_DOCS, threshold=4.0)
    for i, expected in enumerate(scores):
        assert set(results.row(i)[0].tolist()) == set(np.flatnonzero(expected > 4.0).tolist())


def test_less_effort_misses_little_and_scores_stay_exact(collection):
    index, queries, scores = collection
    for effort, least in ((0.8, 0.97), (0.6, 0.8)):
        results = index.search(queries, 10, effort=effort)
        overlaps = []
        for i, expected in enumerate(scores):
            doc_idx, found = results.row(i)
            np.testing.assert_allclose(found, expected[doc_idx], rtol=1e-5)
            overlaps.append(len(set(doc_idx.tolist()) & set(np.argsort(-expected)[:10].tolist())) / 10)
        assert np.mean(overlaps) >= least


@pytest.mark.parametrize("order", ["best first", "best last", "best in the second window", "nearly all equal"])
def test_no_order_of_the_documents_misleads_the_search(order, tmp_path):
    """Scores to reach are guessed as if documents came in random order; here they do not, and ties abound."""
    n_docs = 150_000
    value = np.sort(np.random.default_rng(0).integers(1, 2000, n_docs))[::-1] / np.float32(1024)
    if order == "best last":
        value = value[::-1]
    elif order == "best in the second window":
        value = np.roll(value, 40_000)
    elif order == "nearly all equal":
        value = np.where(np.arange(n_docs) % 30_011 == 0, 2.0, 1.0)
    # Two terms of which each document has one or both, so that sums are exact.
    first, second = np.arange(n_docs) % 3 != 0, np.arange(n_docs) % 3 != 1
    matrix = np.stack([value * first, value * second / 2], axis=1).astype(np.float32)
    builder = IndexBuilder(tmp_path, vocab_size=2)
    builder.add([str(i) for i in range(n_docs)], SparseVectors.from_dense(matrix))
    builder.finish()
    index = InvertedIndex.open(tmp_path)
    for query in np.array([[1, 1], [1, 0], [0.5, 2]], np.float32):
        expected = np.argsort(-(matrix @ query), kind="stable")
        expected = expected[(matrix @ query)[expected] > 0]
        for top_k in (1, 10, 300, 20_000):
            doc_idx, _ = index.search(SparseVectors.from_dense(query[None]), top_k).row(0)
            np.testing.assert_array_equal(doc_idx, expected[:top_k])


@pytest.mark.parametrize("effort", [0.1, 0.5, 0.9, 1.0])
def test_no_effort_is_too_little_to_return_as_many_documents_as_there_are(effort, tmp_path):
    """Short queries over several windows, the best documents first or last, few or many of them."""
    n_docs = 100_000
    rng = np.random.default_rng(0)
    matrix = np.zeros((n_docs, 4), np.float32)
    for term, share in enumerate((0.0006, 0.002, 0.05, 0.5)):
        matches = rng.random(n_docs) < share
        matrix[matches, term] = np.linspace(2, 1, matches.sum()) if term % 2 == 0 else np.linspace(1, 2, matches.sum())
    builder = IndexBuilder(tmp_path, vocab_size=4)
    builder.add([str(i) for i in range(n_docs)], SparseVectors.from_dense(matrix))
    builder.finish()
    index = InvertedIndex.open(tmp_path)
    for query in np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [3, 0, 2, 1]], np.float32
    ):
        matches = int((matrix @ query > 0).sum())
        for top_k in (1, 10, 50, 1000):
            doc_idx, scores = index.search(SparseVectors.from_dense(query[None]), top_k, effort=effort).row(0)
            assert len(doc_idx) == min(top_k, matches)
            np.testing.assert_allclose(scores, (matrix @ query)[doc_idx], rtol=1e-6)
