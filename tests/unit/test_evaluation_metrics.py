"""Which queries count, and what a run must be like."""

import copy
import math

import numpy as np
import pytest

from splade.errors import DataError
from splade.evaluation.beir_protocol import drop_identical_ids, evaluate_beir
from splade.evaluation.expected_flops import flops, term_probabilities
from splade.evaluation.metrics import evaluate_run

QRELS = {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2}, "q3": {"d9": 1}}
RUN = {"q1": {"d1": 3.0, "d2": 1.0}, "q2": {"d1": 2.0, "d2": 1.0}, "q9": {"d1": 1.0}}


def test_every_judged_query_counts() -> None:
    found = evaluate_run(RUN, QRELS, ["mrr_10", "nDCG@10", "num_rel", "num_ret"])
    assert found.per_query["mrr_10"] == {"q1": 1.0, "q2": 0.5, "q3": 0.0}
    assert found.means["mrr_10"] == pytest.approx(0.5)
    assert found.means["nDCG@10"] == pytest.approx((1 + 1 / math.log2(3)) / 3)
    assert (found.means["num_rel"], found.means["num_ret"]) == (3.0, 4.0)
    assert (found.missing_queries, found.n_queries) == (("q3",), 3)
    assert "q9" not in found.per_query["mrr_10"]


def test_nothing_retrieved_is_zero_not_nan() -> None:
    found = evaluate_run(RUN, QRELS, ["all_trec"])
    assert all(math.isfinite(value) for value in found.means.values())
    assert found.per_query["11pt_avg"]["q3"] == 0.0


def test_query_with_an_empty_entry_in_the_qrels_is_not_judged() -> None:
    assert "q9" not in evaluate_run(RUN, {**QRELS, "q9": {}}, ["AP"]).per_query["AP"]


def test_query_without_a_relevant_document_counts() -> None:
    found = evaluate_run({"q1": {"d1": 1.0}, "q2": {"d2": 1.0}}, {"q1": {"d1": 1}, "q2": {"d2": 0}}, ["R@10", "RR"])
    assert found.means == {"R@10": 0.5, "RR": 0.5}


def test_ties_are_broken_as_trec_eval_breaks_them_in_every_metric() -> None:
    run, qrels = {"q": {"a": 1.0, "c": 1.0, "b": 1.0}}, {"q": {"b": 1}}
    found = evaluate_run(run, qrels, ["RR", "mrr_1", "mrr_2", "P@1", "success_2"])
    assert found.means == {"RR": 0.5, "mrr_1": 0.0, "mrr_2": 0.5, "P@1": 0.0, "success_2": 1.0}


def test_reciprocal_rank_is_cut_after_its_rank() -> None:
    run = {"q": {f"d{i:03}": 1000.0 - i for i in range(200)}}
    found = evaluate_run(run, {"q": {"d048": 1}}, ["mrr_48", "mrr_49", "mrr"])
    assert found.means == {"mrr_48": 0.0, "mrr_49": pytest.approx(1 / 49), "mrr": pytest.approx(1 / 49)}


def test_two_relevance_levels_in_one_call() -> None:
    run, qrels = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}, {"q": {"a": 1, "b": 2, "x": 1}}
    found = evaluate_run(run, qrels, ["set_F", "RR@10", "RR(rel=2)@10"])
    precision = recall = 2 / 3
    assert found.means["set_F"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert found.means["RR@10"] == 1.0 and found.means["RR(rel=2)@10"] == 0.5


def test_a_family_beside_other_cuts_of_it() -> None:
    found = evaluate_run(RUN, QRELS, ["recall", "R@7", "ndcg_cut", "nDCG@3", "all_trec"]).means
    assert found["R@7"] == found["recall_5"] == found["recall_1000"] == pytest.approx(2 / 3)
    assert found["nDCG@3"] == found["ndcg_cut_5"]


def test_numbers_of_other_types_are_accepted() -> None:
    run = {"q1": {"d1": np.float32(3), "d2": 1}}
    assert evaluate_run(run, {"q1": {"d1": 1.0, "d2": np.int64(0)}}, ["mrr_10"]).means == {"mrr_10": 1.0}


@pytest.mark.parametrize(
    ("run", "qrels", "expected"),
    [
        ({}, QRELS, "the run is empty"),
        ({"q1": {}}, QRELS, "the run is empty"),
        (RUN, {}, "the qrels are empty"),
        (RUN, {"q1": {}}, "the qrels are empty"),
        ({"q1": {"d1": float("nan")}}, QRELS, "'q1', document 'd1'.*nan"),
        ({"q1": {"d1": float("inf")}}, QRELS, "inf"),
        ({"q1": {"d1": "high"}}, QRELS, "not a number"),
        ({"q1": {"d1": None}}, QRELS, "not a number"),
        (RUN, {"q1": {"d1": 0.5}}, "whole number, got 0.5"),
        (RUN, {"q1": {"d1": "x"}}, "whole number, got 'x'"),
        ({"1": {"d": 1.0}}, {"q1": {"d": 1}}, "share no query: the run has '1', the qrels have 'q1'"),
    ],
)
def test_wrong_input_is_an_error(run: dict, qrels: dict, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        evaluate_run(run, qrels, ["mrr_10"])


def test_beir_leaves_out_the_query_itself_and_counts_all_queries() -> None:
    run = {"q1": {"q1": 9.0, "d1": 3.0}, "q2": {"d1": 2.0}, "q9": {"d1": 1.0}}
    before = copy.deepcopy((run, QRELS))
    assert evaluate_beir(run, QRELS) == {"NDCG@10": 0.33333, "Recall@100": 0.33333, "R_cap@100": 0.33333}
    assert (run, QRELS) == before
    assert drop_identical_ids(run)["q1"] == {"d1": 3.0}


def test_beir_with_a_query_that_has_no_relevant_document() -> None:
    assert evaluate_beir({"q1": {"d1": 1.0}, "q2": {"d2": 1.0}}, {"q1": {"d1": 1}, "q2": {"d2": 0}})["R_cap@100"] == 0.5


def test_flops_is_the_expected_number_of_shared_terms() -> None:
    rng = np.random.default_rng(0)
    queries, documents = rng.random((7, 20)) < 0.3, rng.random((11, 20)) < 0.4
    shared = np.mean([[np.sum(query & document) for document in documents] for query in queries])
    p_query = term_probabilities(queries.sum(0), 7)
    p_doc = term_probabilities(documents.sum(0), 11)
    assert flops(p_query, p_doc) == pytest.approx(shared)


def test_flops_of_foreign_counts_is_an_error() -> None:
    with pytest.raises(DataError, match="two different vocabularies"):
        flops(np.zeros(3), np.zeros(4))
    with pytest.raises(DataError, match="at least one vector"):
        term_probabilities(np.zeros(3), 0)
    with pytest.raises(DataError, match="7 of 5"):
        term_probabilities(np.array([7, 1]), 5)
