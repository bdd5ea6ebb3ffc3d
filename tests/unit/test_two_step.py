"""Two-step search: candidates from the largest terms, scores from whole vectors; the files beside an index."""

import os
from pathlib import Path

import numpy as np
import pytest

import splade
from splade.config.schema import RunConfig, TwoStepConfig
from splade.errors import DataError, IndexFileError, WriteError
from splade.inverted_index import IndexBuilder, InvertedIndex, delete_documents
from splade.inverted_index.document_vectors import DocumentVectors
from splade.inverted_index.layout import WINDOW_BITS
from splade.inverted_index.two_step import FOLDER, VECTORS_FILE, TwoStepIndex, largest_terms
from splade.reports.summaries import cost_line
from splade.retrieval.sparse import SparseRetriever
from splade.vectors import SparseVectors

VOCAB = 60
PAIRS = [(f"d{i}", f"word{i % 7} and thing{i % 5} of {i}") for i in range(40)]
QUERIES = {f"q{i}": f"word{i} thing{i} of" for i in range(6)}


def random_vectors(n: int, seed: int, density: float = 0.3) -> SparseVectors:
    rng = np.random.default_rng(seed)
    dense = rng.exponential(1, (n, VOCAB)) * (rng.random((n, VOCAB)) < density)
    return SparseVectors.from_dense(dense.astype(np.float32))


def build(folder: Path, vectors: SparseVectors) -> InvertedIndex:
    builder = IndexBuilder(folder, vectors.vocab_size)
    builder.add([f"d{i}" for i in range(len(vectors))], vectors)
    builder.finish()
    return InvertedIndex.open(folder)


def pruned(dense: np.ndarray, n: int) -> np.ndarray:
    """Keep the n largest of each row; of equal ones, the first."""
    kept = np.zeros_like(dense)
    rows = np.arange(len(dense))[:, None]
    order = np.argsort(-dense, axis=1, kind="stable")[:, :n]
    kept[rows, order] = dense[rows, order]
    return kept


def ranking(scores: np.ndarray, n: int, threshold: float = 0.0) -> list[int]:
    """Documents above the threshold, best first, of equal ones the first."""
    return [int(doc) for doc in np.argsort(-scores, kind="stable")[:n] if scores[doc] > threshold]


@pytest.fixture(scope="module")
def vectors() -> SparseVectors:
    return random_vectors(300, seed=1)


@pytest.fixture
def index(tmp_path, vectors) -> InvertedIndex:
    return build(tmp_path / "index", vectors)


class TestSearch:
    @pytest.mark.parametrize(("document_terms", "query_terms", "candidates"), [(5, 4, 30), (8, 60, 10), (60, 3, 25)])
    def test_two_steps_by_hand(self, index, vectors, document_terms, query_terms, candidates):
        queries = random_vectors(20, seed=2)
        found = TwoStepIndex.beside(index, document_terms, query_terms, candidates).search(queries, 10)
        docs, asked = vectors.to_dense(), queries.to_dense()
        first, exact = pruned(asked, query_terms) @ pruned(docs, document_terms).T, asked @ docs.T
        for i in range(len(queries)):
            kept = ranking(first[i], candidates)
            scores = np.where(np.isin(np.arange(len(docs)), kept), exact[i], 0)
            assert found.row(i)[0].tolist() == ranking(scores, 10)
            np.testing.assert_allclose(found.row(i)[1], exact[i][found.row(i)[0]], rtol=1e-5)

    def test_all_terms_and_documents_are_exact_search(self, index):
        queries = random_vectors(30, seed=3)
        for top_k, threshold, n_threads in ((10, 0.0, 1), (300, 4.0, 2), (1000, 0.0, 1)):
            exact = index.search(queries, top_k, threshold)
            found = TwoStepIndex.beside(index, VOCAB, VOCAB, 300).search(queries, top_k, threshold, n_threads=n_threads)
            assert found.indptr.tolist() == exact.indptr.tolist()
            assert found.doc_idx.tolist() == exact.doc_idx.tolist()
            np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-5)

    def test_as_many_candidates_as_are_asked_for(self, index):
        found = TwoStepIndex.beside(index, VOCAB, VOCAB, candidates=1).search(random_vectors(3, seed=4), top_k=20)
        assert np.diff(found.indptr).tolist() == [20, 20, 20]

    def test_ties_go_to_the_document_indexed_first(self, tmp_path):
        index = build(tmp_path, SparseVectors.from_dense(np.array([[1, 2], [2, 1], [2, 1], [1, 2]], np.float32)))
        query = SparseVectors.from_dense(np.array([[1, 1]], np.float32))
        assert TwoStepIndex.beside(index, 2, 2, 4).search(query, 3).doc_idx.tolist() == [0, 1, 2]

    def test_queries_without_terms(self, index):
        nothing = SparseVectors.from_rows([([], []), ([3], [1.0])], VOCAB)
        found = TwoStepIndex.beside(index, 5, 5, 5).search(nothing, 2)
        assert np.diff(found.indptr).tolist() == [0, 2]
        assert len(TwoStepIndex.beside(index, 5, 5, 5).search(SparseVectors.empty(VOCAB), 2)) == 0

    def test_what_search_refuses(self, index):
        search = TwoStepIndex.beside(index, 5, 5, 5).search
        with pytest.raises(DataError, match="top_k"):
            search(random_vectors(1, seed=5), 0)
        with pytest.raises(DataError, match="too large"):
            search(SparseVectors.from_rows([([1, 2], [1.0, 3e38])], VOCAB), 1)
        with pytest.raises(DataError, match="another model"):
            search(SparseVectors.empty(VOCAB + 1), 1)


def test_largest_terms():
    vectors = random_vectors(50, seed=6)
    for n in (1, 3, 100):
        assert (largest_terms(vectors, n).to_dense() == pruned(vectors.to_dense(), n)).all()


class TestFiles:
    def test_vectors_of_several_windows(self, tmp_path):
        rng, n = np.random.default_rng(0), (2 << WINDOW_BITS) + 100
        terms = np.sort(rng.permuted(np.tile(np.arange(9), (n, 1)), axis=1)[:, :3], axis=1)
        indptr = np.arange(0, 3 * n + 1, 3, dtype=np.int64)
        weights = rng.exponential(1, 3 * n).astype(np.float32)
        vectors = SparseVectors(indptr, terms.astype(np.int32).ravel(), weights, 9)
        stored = DocumentVectors.write(build(tmp_path / "index", vectors), tmp_path / VECTORS_FILE).rows(0, n)
        for name in ("indptr", "term_ids", "weights"):
            assert (getattr(stored, name) == getattr(vectors, name)).all()

    def test_made_once(self, index, monkeypatch):
        TwoStepIndex.beside(index, 5, 5, 5)
        monkeypatch.setattr(DocumentVectors, "write", None)  # those that are there serve other numbers of terms
        TwoStepIndex.beside(index, 7, 5, 5)
        monkeypatch.setattr("splade.inverted_index.two_step.IndexBuilder", None)
        for n in (5, 7):
            assert TwoStepIndex.beside(index, n, 5, 5).first.mean_terms <= n

    def test_made_anew_for_another_index(self, index, vectors, tmp_path):
        TwoStepIndex.beside(index, 5, 5, 5)
        delete_documents(index.path.parent, ["d0"])
        changed = InvertedIndex.open(index.path.parent)
        queries = random_vectors(5, seed=7)
        found = TwoStepIndex.beside(changed, 5, VOCAB, 299).search(queries, 299)
        assert found.doc_idx.max() == 298
        exact = queries.to_dense() @ vectors.to_dense()[1:].T
        np.testing.assert_allclose(found.row(0)[1], exact[0][found.row(0)[0]], rtol=1e-5)

    def test_a_damaged_file_is_made_anew(self, index):
        TwoStepIndex.beside(index, 5, 5, 5)
        path = index.path.parent / FOLDER / VECTORS_FILE
        whole = path.read_bytes()
        path.write_bytes(whole[:-10])
        TwoStepIndex.beside(index, 5, 5, 5)
        assert path.read_bytes() == whole

    def test_impossible_content(self, index, tmp_path, monkeypatch):
        def wrong(*arguments):
            term_ids, impacts = gather(*arguments)
            return term_ids + VOCAB, impacts

        from splade.inverted_index import indexed_vectors

        gather = indexed_vectors._gather
        monkeypatch.setattr(indexed_vectors, "_gather", wrong)
        with pytest.raises(IndexFileError, match="outside the vocabulary"):
            DocumentVectors.write(index, tmp_path / VECTORS_FILE)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_cannot_be_written_to(self, index):
        index.path.parent.chmod(0o500)
        with pytest.raises(WriteError):
            TwoStepIndex.beside(index, 5, 5, 5)
        index.path.parent.chmod(0o700)

    def test_finished_files_need_no_writing(self, index, monkeypatch):
        TwoStepIndex.beside(index, 5, 5, 5)
        monkeypatch.setattr("splade.inverted_index.two_step.FolderLock", None)
        TwoStepIndex.beside(index, 5, 9, 9)


class TestRetriever:
    @pytest.fixture(scope="class")
    def model(self, tiny_model):
        return splade.load(tiny_model())

    @pytest.fixture(scope="class")
    def built(self, model, tmp_path_factory):
        return splade.Index.build(tmp_path_factory.mktemp("index"), model, PAIRS)

    def retrieved(self, model, built, **settings):
        retriever = SparseRetriever.configured(model, built, RunConfig(**settings))
        return dict(retriever.retrieve(QUERIES, top_k=8)), retriever.costs()

    def test_labelled_and_compared_with_exact_search(self, model, built):
        exact, costs = self.retrieved(model, built)
        assert costs.search is None and costs.overlap_at_10 is None
        few = TwoStepConfig(candidates=8, query_terms=2, document_terms=3)
        found, costs = self.retrieved(model, built, two_step=few)
        overlap = np.mean([len(found[name].keys() & ranked.keys()) / len(ranked) for name, ranked in exact.items()])
        assert overlap < 1 and costs.overlap_at_10 == pytest.approx(overlap)
        assert costs.search == "two-step" and "two-step search: overlap@10" in cost_line(costs)
        for name, ranked in found.items():
            shared = ranked.keys() & exact[name].keys()
            assert [ranked[doc] for doc in shared] == pytest.approx([exact[name][doc] for doc in shared], rel=1e-5)
        _, costs = self.retrieved(model, built, search_effort=0.01)
        assert costs.search == "approximate" and costs.overlap_at_10 is not None

    def test_one_query(self, model, built):
        run = RunConfig(two_step=TwoStepConfig(candidates=1, query_terms=400, document_terms=400))
        retriever, text = SparseRetriever.configured(model, built, run), QUERIES["q1"]
        exact = SparseRetriever(model, built).search(text, top_k=1)
        (hit,) = retriever.search(text, top_k=1)
        assert hit.doc_id == exact[0].doc_id and hit.score == pytest.approx(exact[0].score, rel=1e-5)
        assert hit.explain().score == pytest.approx(hit.score, rel=1e-5)
