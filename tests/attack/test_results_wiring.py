"""What passes between a search, its costs, its runs and what is stored of them."""

# ruff: noqa: F401, F811 (fixtures are imported, and named where they are used)

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_search_wiring import PAIRS, QUERIES, index, model, scores_of

import splade
from splade.datasets.dataset import Dataset
from splade.evaluation.protocols import BeirProtocol
from splade.inverted_index import IndexBuilder, InvertedIndex
from splade.inverted_index.kernels.search import _estimate_threshold
from splade.inverted_index.kernels.top_k import keep_best, key_doc, key_score, ranking_key
from splade.inverted_index.layout import WINDOW_BITS
from splade.retrieval.evaluate_retriever import evaluate_retriever
from splade.retrieval.protocol import Retriever
from splade.retrieval.sparse import SparseRetriever
from splade.retrieval.stored_results import finished_result, store_result
from splade.tasks.systems import System, evaluate_system
from splade.vectors import SparseVectors


class TestCosts:
    def test_flops_and_terms_are_those_of_queries_and_documents(self, model, index, tmp_path):
        evaluate_retriever(SparseRetriever(model, index), Dataset("x", QUERIES), None, 5, tmp_path)
        stats = json.loads((tmp_path / "q_stats.json").read_text())
        queries = model.encode_queries(QUERIES.values()).to_dense() > 0
        documents = model.encode_documents([text for _, text in PAIRS]).to_dense() > 0
        shared = queries.astype(float) @ documents.T.astype(float)
        assert stats["flops"] == pytest.approx(shared.mean())
        assert stats["L0_q"] == pytest.approx(queries.sum(1).mean())
        assert stats["L0_d"] == pytest.approx(documents.sum(1).mean())
        assert (stats["n_queries"], stats["n_docs"], stats["top_k"]) == (4, 30, 5)
        assert stats["index_bytes"] == index.postings.path.stat().st_size

    def test_only_the_last_run_counts(self, model, index):
        retriever = SparseRetriever(model, index)
        list(retriever.retrieve(QUERIES, 5))
        list(retriever.retrieve({"q3": "purr"}, 7))
        alone = model.encode_queries("purr")
        assert (retriever.costs().n_queries, retriever.costs().L0_q, retriever.costs().top_k) == (1, alone.nnz, 7)

    def test_empty_results_are_counted(self, model, index):
        retriever = SparseRetriever(model, index, threshold=1e9)
        assert list(retriever.retrieve(QUERIES, 5)) == [(query_id, {}) for query_id in QUERIES]
        assert retriever.costs().n_empty_results == 4 and retriever.costs().n_empty_queries == 0


class TestRuns:
    def test_rankings_are_those_of_all_dot_products_with_ties_in_the_order_of_the_index(self, model, tmp_path):
        pairs = [*PAIRS, *((f"a{doc_id}", text) for doc_id, text in PAIRS)]  # each text twice, the later id first
        retriever = SparseRetriever(model, splade.Index.build(tmp_path / "index", model, pairs))
        evaluate_retriever(retriever, Dataset("x", QUERIES), None, 40, tmp_path)
        run = json.loads((tmp_path / "run.json").read_text())
        lines = [line.split() for line in (tmp_path / "run.trec").read_text().splitlines()]
        assert list(run) == list(QUERIES)
        for query_id, scores in zip(QUERIES, scores_of(model, pairs), strict=True):
            # Texts that occur twice may have been encoded in different batches: rounded, they tie.
            found = list(run[query_id].items())
            number = {doc_id: i for i, (doc_id, _) in enumerate(pairs)}
            assert len(found) == min(40, int((scores > 0).sum()))
            assert found == sorted(found, key=lambda hit: (-hit[1], number[hit[0]]))
            np.testing.assert_allclose([s for _, s in found], np.sort(scores)[::-1][: len(found)], rtol=1e-4)
            np.testing.assert_allclose([s for _, s in found], [scores[number[d]] for d, _ in found], rtol=1e-4)
            of_query = [line for line in lines if line[0] == query_id]
            assert [line[2] for line in of_query] == [doc_id for doc_id, _ in found]
            assert [int(line[3]) for line in of_query] == list(range(1, len(found) + 1))
            assert [float(line[4]) for line in of_query] == [score for _, score in found]
            assert {(line[1], line[5]) for line in of_query} <= {("Q0", "splade-x")}
            hits = retriever.search(QUERIES[query_id], top_k=40)
            assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    def test_ties_in_a_run_keep_the_order_of_the_retriever(self, tmp_path):
        class Tied(Retriever):
            name = "tied one"

            def retrieve(self, queries, top_k):
                for query_id in queries:
                    yield query_id, {"z": 2.0, "b": 1.0, "a": 1.0, "c": 1.0}

        evaluate_retriever(Tied(), Dataset("x/y", {"q": "text"}), None, 10, tmp_path)
        assert list(json.loads((tmp_path / "run.json").read_text())["q"]) == ["z", "b", "a", "c"]
        assert (tmp_path / "run.trec").read_text().splitlines() == [
            "q Q0 z 1 2.0 tied_one-x-y",
            "q Q0 b 2 1.0 tied_one-x-y",
            "q Q0 a 3 1.0 tied_one-x-y",
            "q Q0 c 4 1.0 tied_one-x-y",
        ]


class TestStoredResults:
    class Counted(System):
        label = "counted"

        def __init__(self, **settings: object):
            self.built, self.own = 0, settings

        def settings(self, dataset):
            return dict(self.own) if self.own else None

        def build(self, dataset, index_dir):
            self.built += 1

            class One(Retriever):
                def retrieve(self, queries, top_k):
                    yield from ((query_id, {"d1": 1.0}) for query_id in queries)

            return One(), []

    DATASET = Dataset("x", {"q": "text"}, {"q": {"d1": 1}})

    def evaluate(self, folder: Path, **settings: object) -> int:
        """Return how often the system was built for its result."""
        system = self.Counted(**settings)
        evaluate_system(system, self.DATASET, BeirProtocol(), 100, folder / "index", folder / "out")
        return system.built

    def test_only_the_same_settings_are_the_same_result(self, tmp_path):
        assert [self.evaluate(tmp_path, a=1, b=2) for _ in range(2)] == [1, 0]
        assert self.evaluate(tmp_path, a=1) == 1
        assert self.evaluate(tmp_path, a=1, b=2) == 1
        assert self.evaluate(tmp_path) == self.evaluate(tmp_path) == 1  # nobody knows what it depends on

    @pytest.mark.parametrize("missing", ["run.json", "perf.json", "stats.json"])
    def test_an_incomplete_result_is_made_again(self, tmp_path, missing):
        self.evaluate(tmp_path, a=1)
        (tmp_path / "out" / missing).unlink()
        assert self.evaluate(tmp_path, a=1) == 1

    @pytest.mark.parametrize("step", ["retrieval.evaluate_retriever.write_run_trec", "tasks.systems.store_result"])
    def test_an_interrupted_evaluation_is_no_result(self, tmp_path, monkeypatch, step):
        self.evaluate(tmp_path, a=1)
        with monkeypatch.context() as patched:
            patched.setattr(f"splade.{step}", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                self.evaluate(tmp_path, a=2)
        # The run is already that of other settings: it must not pass for what was there before.
        assert finished_result("counted", self.DATASET, tmp_path / "out", {"a": 1}) is None
        assert finished_result("counted", self.DATASET, tmp_path / "out", {"a": 2}) is None

    def test_the_label_is_the_system(self, tmp_path):
        result = evaluate_retriever(self.Counted(a=1).build(None, None)[0], self.DATASET, BeirProtocol(), 100, tmp_path)
        assert store_result("mine", replace(result, system="other"), {"a": 1}).system == "mine"
        assert json.loads((tmp_path / "stats.json").read_text())["label"] == "mine"


class TestKernels:
    """The corners of the search that a random collection rarely meets."""

    def test_a_full_list_of_keys_has_its_last_first(self):
        keys = np.array([ranking_key(np.float32(score), doc) for doc, score in enumerate([3, 1, 2])], np.uint64)
        assert keep_best(keys, 3, 3) == 3
        assert (key_doc(keys[0]), key_score(keys[0])) == (1, 1.0)

    @pytest.mark.parametrize(
        ("n_keys", "top_k", "seen", "expected"),
        [
            (10, 10, 1 / 3, 2.0),  # 3.33 expected, 3 x 1.49 more, rounded up: the ninth best of 10, 9, ... 1
            (9, 10, 1 / 3, 1.0),  # it is the last there is
            (8, 10, 1 / 3, 0.0),  # there is none
            (14, 13, 0.5, 0.0),  # the thirteenth of thirteen: known without estimating
            (14, 14, 0.5, 0.0),  # the fourteenth of fourteen, likewise
            (15, 15, 0.5, 2.0),  # the fourteenth of fifteen
        ],
    )
    def test_the_estimate_of_the_threshold(self, n_keys, top_k, seen, expected):
        keys = np.array([ranking_key(np.float32(n_keys - i), i) for i in range(n_keys)], np.uint64)
        assert _estimate_threshold(keys, top_k, seen) == expected

    def test_equal_scores_that_were_passed_over_come_in_their_order(self, tmp_path):
        """With little effort, the second window is passed over for an estimate that the end only just equals."""
        window = 1 << WINDOW_BITS
        matrix = np.zeros((3 * window, 2), np.float32)
        matrix[:7, 0] = 2  # the estimate after the first window: 2
        matrix[window, :] = 1  # score 2; at effort 0.2, the window promises 0.4
        matrix[2 * window, 0] = 12
        matrix[2 * window + 1 : 2 * window + 5, 0] = 2
        builder = IndexBuilder(tmp_path, 2)
        builder.add([str(i) for i in range(len(matrix))], SparseVectors.from_dense(matrix))
        builder.finish()
        query = SparseVectors.from_dense(np.ones((1, 2), np.float32))
        expected = [2 * window, *range(7), window, 2 * window + 1]
        for effort in (1.0, 0.2):
            assert InvertedIndex.open(tmp_path).search(query, 10, effort=effort).doc_idx.tolist() == expected

    def test_effort_has_an_effect(self, tmp_path):
        """A document whose score comes from the light terms alone is found with all effort, passed over with little."""
        window = 1 << WINDOW_BITS
        matrix = np.zeros((2 * window, 3), np.float32)
        matrix[:3, 0] = 2
        matrix[window, 1:] = 1.5  # score 3, the best
        builder = IndexBuilder(tmp_path, 3)
        builder.add([str(i) for i in range(len(matrix))], SparseVectors.from_dense(matrix))
        builder.finish()
        query = SparseVectors.from_dense(np.ones((1, 3), np.float32))
        search = partial(InvertedIndex.open(tmp_path).search, query, 2)
        assert search(effort=1.0).doc_idx.tolist() == search(effort=0.7).doc_idx.tolist() == [window, 0]
        assert search(effort=0.5).doc_idx.tolist() == [0, 1]
