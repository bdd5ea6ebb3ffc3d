"""What must hold for every run."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from splade.evaluation.metrics import evaluate_run
from splade.evaluation.significance import correct, randomisation_test

METRICS = ["nDCG@10", "RR@10", "RR", "R@20", "AP", "P@5", "R_cap@20"]
DOCS = st.sampled_from([f"d{i}" for i in range(12)])
RUNS = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3", "q9"]), st.dictionaries(DOCS, st.integers(-3, 3).map(float)), min_size=1
).filter(lambda run: any(run.values()) and set(run) != {"q9"})
QRELS = st.fixed_dictionaries(
    {query_id: st.dictionaries(DOCS, st.integers(0, 3), min_size=1) for query_id in ("q1", "q2", "q3")}
)


@settings(deadline=None)
@given(RUNS, QRELS)
def test_values_lie_between_zero_and_one(run, qrels) -> None:
    found = evaluate_run(run, qrels, METRICS)
    for values in found.per_query.values():
        assert set(values) == {"q1", "q2", "q3"}
        assert all(0.0 <= value <= 1.0 + 1e-12 for value in values.values())


@settings(deadline=None)
@given(RUNS, QRELS, st.randoms(use_true_random=False))
def test_order_of_the_dictionaries_means_nothing(run, qrels, random) -> None:
    def shuffled(mapping):
        items = list(mapping.items())
        random.shuffle(items)
        return dict(items)

    again = shuffled({query_id: shuffled(documents) for query_id, documents in run.items()})
    assert evaluate_run(run, qrels, METRICS).per_query == evaluate_run(again, qrels, METRICS).per_query


@settings(deadline=None)
@given(RUNS, QRELS)
def test_rank_keeping_rescaling_changes_nothing(run, qrels) -> None:
    scaled = {query_id: {doc: 2 * score + 5 for doc, score in documents.items()} for query_id, documents in run.items()}
    assert evaluate_run(run, qrels, METRICS).means == evaluate_run(scaled, qrels, METRICS).means


@settings(deadline=None)
@given(RUNS, QRELS)
def test_unjudged_queries_change_nothing(run, qrels) -> None:
    judged = {query_id: documents for query_id, documents in run.items() if query_id in qrels}
    if any(judged.values()):
        assert evaluate_run(run, qrels, METRICS).means == evaluate_run(judged, qrels, METRICS).means


@given(st.lists(st.floats(0, 1), max_size=8))
def test_corrected_p_values_are_ordered(p_values) -> None:
    holm, bonferroni = correct(p_values, "holm"), correct(p_values, "bonferroni")
    for raw, h, b in zip(p_values, holm, bonferroni, strict=True):
        assert raw <= h <= b + 1e-12 <= 1 + 1e-12


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=10))
def test_randomisation_does_not_care_which_system_comes_first(differences) -> None:
    values = np.array(differences, dtype=float)
    assert randomisation_test(values) == randomisation_test(-values)
