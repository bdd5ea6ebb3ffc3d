"""Comparing runs of known outcome."""

import json
import re

import pytest

from splade.errors import ConfigError, DataError
from splade.evaluation.comparison import compare_runs, trec_ranking
from splade.reports.comparison_report import differences_table, means_table, render_comparison, write_comparison

QRELS = {f"q{i}": {"good": 1, "bad": 0} for i in range(8)}
BEST = {query_id: {"good": 2.0, "bad": 1.0} for query_id in QRELS}
WORST = {query_id: {"good": 1.0, "bad": 2.0} for query_id in QRELS}
MIXED = {query_id: (BEST if query_id in ("q0", "q1") else WORST)[query_id] for query_id in QRELS}
METRICS = ["RR@10", "P@1"]


def test_wins_ties_losses_and_direction() -> None:
    found = compare_runs({"mixed": MIXED, "best": BEST}, QRELS, METRICS)
    first = found.pairs[0]
    assert (first.metric, first.first, first.second) == ("RR@10", "mixed", "best")
    assert (first.wins, first.ties, first.losses) == (6, 2, 0)
    assert first.difference == pytest.approx(6 / 8 * 0.5)
    assert found.means["mixed"]["P@1"] == 0.25
    assert first.p_corrected == first.p_value < 0.05


def test_all_pairs_or_against_a_baseline() -> None:
    runs = {"worst": WORST, "mixed": MIXED, "best": BEST}
    pairs = [(pair.first, pair.second) for pair in compare_runs(runs, QRELS, ["P@1"]).pairs]
    assert pairs == [("worst", "mixed"), ("worst", "best"), ("mixed", "best")]
    against = compare_runs(runs, QRELS, ["P@1"], baseline="mixed").pairs
    assert [(pair.first, pair.second) for pair in against] == [("mixed", "worst"), ("mixed", "best")]
    for pair in against:
        assert pair.p_value <= pair.p_corrected <= 2 * pair.p_value


def test_widest_queries_carry_the_evidence() -> None:
    found = compare_runs(
        {"mixed": MIXED, "best": BEST},
        QRELS,
        METRICS,
        texts={"good": "Green tea helps.", "bad": ""},
        query_texts={"q2": "Does TEA help?"},
        n_queries_shown=3,
        n_documents_shown=1,
    )
    assert [query.query_id for query in found.widest] == ["q2", "q3", "q4"]
    query = found.widest[0]
    assert (query.values, query.relevant) == ({"mixed": 0.5, "best": 1.0}, 1)
    (document,) = query.retrieved["best"]
    assert (document.doc_id, document.rank, document.relevance, document.matched) == ("good", 1, 1, ("tea",))
    assert query.retrieved["mixed"][0].matched == ()


def test_queries_missing_from_a_run_are_reported() -> None:
    part = {"q0": BEST["q0"]}
    found = compare_runs({"part": part, "best": BEST}, QRELS, ["P@1"])
    assert found.missing == {"part": 7, "best": 0}
    assert found.widest[0].retrieved["part"] == ()
    assert "part retrieves nothing for 7 of them" in means_table(found).to_text()
    assert "part: nothing retrieved" in render_comparison(found)


@pytest.mark.parametrize("test", ["t", "randomisation"])
def test_equal_runs(test) -> None:
    found = compare_runs({"a": BEST, "b": BEST}, QRELS, METRICS, test=test)
    assert not found.widest and {pair.p_corrected for pair in found.pairs} == {1.0}
    assert "Queries that differ" not in render_comparison(found)


def test_report_forms(tmp_path) -> None:
    found = compare_runs({"mixed": MIXED, "best": BEST}, QRELS, METRICS, texts={"good": "tea", "bad": "x"})
    text = render_comparison(found)
    assert max(map(len, text.splitlines())) <= 110
    assert "paired t-test, Holm correction over 1 comparison per metric" in text
    assert "```text" in render_comparison(found, markdown=True)
    written, paths = write_comparison(found, tmp_path / "compare")
    assert written == text and all(path.is_file() for path in paths)
    assert "\\toprule" in (tmp_path / "compare.tex").read_text()
    value = json.loads((tmp_path / "compare.json").read_text())
    assert value["means"]["best"]["P@1"] == 1.0 and value["widest"][0]["retrieved"]["best"][0]["doc_id"] == "good"
    assert differences_table(found).marks[0, 8] == "*" and re.search(r"0\.\d{4}\*|<0.0001\*", text)


def test_ranking_is_that_of_trec_eval() -> None:
    assert trec_ranking({"a": 1.0, "c": 1.0 + 1e-9, "d": 1.0, "b": 2.0}, 3) == ["b", "d", "c"]


def test_wrong_input() -> None:
    runs = {"mixed": MIXED, "best": BEST}
    with pytest.raises(ConfigError, match="two runs or more"):
        compare_runs({"best": BEST}, QRELS, METRICS)
    with pytest.raises(ConfigError, match="did you mean 'best'"):
        compare_runs(runs, QRELS, METRICS, baseline="bset")
    with pytest.raises(ConfigError, match="alpha"):
        compare_runs(runs, QRELS, METRICS, alpha=5)
    with pytest.raises(ConfigError, match="correction"):
        compare_runs(runs, QRELS, METRICS, correction="fdr")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="^foreign: the run and the qrels share no query"):
        compare_runs({**runs, "foreign": {"x": {"y": 1.0}}}, QRELS, METRICS)


def test_five_queries_are_shown_unless_another_number_is_asked_for():
    qrels = {f"q{i}": {"d": 1} for i in range(8)}
    runs = {"a": {query_id: {"d": 1.0} for query_id in qrels}, "b": {query_id: {"x": 1.0} for query_id in qrels}}
    assert len(compare_runs(runs, qrels, ["nDCG@10"]).widest) == 5
    assert len(compare_runs(runs, qrels, ["nDCG@10"], n_queries_shown=2).widest) == 2
