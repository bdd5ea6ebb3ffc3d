"""Each check is provoked, and silent on sound input."""

import pytest

from splade.errors import DataError
from splade.evaluation.checks import (
    Finding,
    check_collection_against_queries,
    check_depth,
    check_qrels_against_collection,
    check_qrels_against_queries,
    check_run,
    check_scores,
    check_vector_counts,
    raise_errors,
)

QRELS = {"q1": {"d1": 1, "d3": 0}, "q2": {"d2": 1}}
RUN = {"q1": {"d1": 2.0, "d2": 1.0}, "q2": {"d1": 2.0, "d2": 1.0}}


def levels(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.code) for finding in findings]


def test_sound_input_gives_no_finding() -> None:
    assert not check_run(RUN, QRELS)
    assert not check_qrels_against_collection(QRELS, {"d1", "d2"})
    assert not check_qrels_against_queries(QRELS, ["q1", "q2", "q3"])
    assert not check_collection_against_queries(["d1", "d2"], ["q1", "q2"])
    assert not check_vector_counts(200, 0, 50.0, 30522, "document")
    assert not check_scores(RUN)
    assert not check_depth({"q": {str(i): 1.0 / (i + 1) for i in range(10)}}, ["mrr_10", "AP"])


def test_run_of_other_queries() -> None:
    findings = check_run({"7": {"d1": 1.0}}, QRELS)
    assert levels(findings) == [("error", "no-query-shared")]
    assert "'q1', 'q2'" in findings[0].message and "'7'" in findings[0].message


def test_run_that_lacks_a_query() -> None:
    assert levels(check_run({"q1": {"d1": 1.0}}, QRELS)) == [("warning", "query-missing")]


def test_run_of_other_documents() -> None:
    findings = check_run({"q1": {"x1": 1.0}, "q2": {"x2": 1.0}}, QRELS)
    assert levels(findings) == [("error", "no-document-shared")]


def test_run_whose_documents_were_judged_for_other_queries() -> None:
    findings = check_run({"q1": {"d2": 1.0}, "q2": {"d1": 1.0}}, QRELS)
    assert levels(findings) == [("warning", "nothing-judged")]


@pytest.mark.parametrize(
    ("run", "code"),
    [
        ({"q1 ": {"d1": 1.0}, "q2": {"d2": 1.0}}, "query-ids-with-whitespace"),
        ({"q1": {"d1 ": 1.0}, "q2": {"d2\t": 1.0}}, "document-ids-with-whitespace"),
    ],
)
def test_ids_with_stray_whitespace(run: dict, code: str) -> None:
    findings = check_run(run, QRELS)
    assert levels(findings) == [("error", code)]
    assert "remove it" in findings[0].message


def test_whitespace_in_the_qrels() -> None:
    findings = check_qrels_against_collection({"q1": {" d1": 1}}, ["d1"])
    assert levels(findings) == [("error", "relevant-document-ids-with-whitespace")]


def test_qrels_of_another_collection() -> None:
    assert levels(check_qrels_against_collection(QRELS, ["x"])) == [("error", "no-relevant-document-shared")]
    findings = check_qrels_against_collection(QRELS, ["d1"])
    assert levels(findings) == [("warning", "relevant-document-missing")]
    assert "1 of 2" in findings[0].message and "never be found" in findings[0].message


def test_qrels_of_other_queries() -> None:
    assert levels(check_qrels_against_queries(QRELS, ["x"])) == [("error", "no-judged-query-shared")]
    assert levels(check_qrels_against_queries(QRELS, ["q1"])) == [("warning", "judged-query-missing")]


def test_queries_given_as_collection() -> None:
    assert levels(check_collection_against_queries(["q2", "q1"], ["q1", "q2"])) == [
        ("warning", "collection-is-queries")
    ]


def test_empty_vectors() -> None:
    assert levels(check_vector_counts(5, 5, 0.0, 100, "query")) == [("error", "all-query-vectors-empty")]
    assert levels(check_vector_counts(0, 0, 0.0, 100, "document")) == [("error", "all-document-vectors-empty")]
    assert levels(check_vector_counts(100, 2, 5.0, 100, "document")) == [("warning", "many-document-vectors-empty")]
    assert not check_vector_counts(100, 1, 5.0, 100, "document")


def test_vectors_that_are_not_sparse() -> None:
    found = check_vector_counts(9, 0, 4000.0, 30522, "document")
    assert levels(found) == [("warning", "document-vectors-not-sparse")]


def test_equal_scores() -> None:
    tied = {"a": 1.0, "b": 1.0}
    assert levels(check_scores({"q1": tied, "q2": tied})) == [("error", "scores-equal")]
    assert levels(check_scores({"q1": tied, "q2": tied, "q3": {"a": 1.0, "b": 2.0}})) == [("warning", "scores-equal")]
    assert not check_scores({"q1": tied, "q2": {"a": 1.0, "b": 2.0}})
    assert not check_scores({"q1": {"a": 1.0}, "q2": {}})


def test_run_shallower_than_the_metrics() -> None:
    findings = check_depth(RUN, ["recall"])
    assert levels(findings) == [("warning", "run-too-shallow")] and "top_k=1000" in findings[0].message
    assert "top_k=30" in check_depth(RUN, ["recall_30"])[0].message


def test_errors_are_raised_together_and_warnings_handed_back() -> None:
    warning, one, two = Finding("warning", "w", "odd"), Finding("error", "a", "first"), Finding("error", "b", "second")
    assert raise_errors([warning]) == [warning]
    with pytest.raises(DataError, match="first\nsecond"):
        raise_errors([one, warning, two])
