"""Every spelling of a metric reaches the measure that it means."""

import pytest

from splade.errors import ConfigError
from splade.evaluation.measures import largest_cut, parse_metric, parse_metrics


@pytest.mark.parametrize(
    ("spelling", "trec_key"),
    [
        ("ndcg_cut_10", "ndcg_cut_10"),
        ("ndcg_cut.10", "ndcg_cut_10"),
        ("nDCG@10", "ndcg_cut_10"),
        ("NDCG@10", "ndcg_cut_10"),
        ("ndcg@10", "ndcg_cut_10"),
        ("NDCG_CUT_10", "ndcg_cut_10"),
        ("nDCG", "ndcg"),
        ("R@1000", "recall_1000"),
        ("recall_1000", "recall_1000"),
        ("recall@100", "recall_100"),
        ("Recall@100", "recall_100"),
        ("AP", "map"),
        ("MAP", "map"),
        ("map", "map"),
        ("AP@100", "map_cut_100"),
        ("MAP@100", "map_cut_100"),
        ("P@5", "P_5"),
        ("p_5", "P_5"),
        ("Success@5", "success_5"),
        ("R_cap@100", "relative_P_100"),
        ("Rprec", "Rprec"),
        ("Bpref", "bpref"),
        ("infAP", "infAP"),
        ("RR", "recip_rank"),
        ("MRR", "recip_rank"),
        ("mrr", "recip_rank"),
        ("set_F", "set_F"),
        ("iprec_at_recall_0.1", "iprec_at_recall_0.10"),
        ("num_ret", "num_ret"),
        (" nDCG@10 ", "ndcg_cut_10"),
    ],
)
def test_single_measure(spelling: str, trec_key: str) -> None:
    (measure,) = parse_metric(spelling)
    assert (measure.name, measure.trec_key, measure.rank_cut) == (spelling.strip(), trec_key, None)


@pytest.mark.parametrize("spelling", ["mrr_10", "MRR@10", "RR@10", "rr@10"])
def test_reciprocal_rank_with_a_cut(spelling: str) -> None:
    (measure,) = parse_metric(spelling)
    assert (measure.name, measure.trec_key, measure.rank_cut) == (spelling, "recip_rank", 10)


def test_family_gives_one_measure_per_cut() -> None:
    names = [measure.name for measure in parse_metric("recall")]
    assert names == [f"recall_{cut}" for cut in (5, 10, 15, 20, 30, 100, 200, 500, 1000)]
    assert [measure.name for measure in parse_metric("recall.7,70")] == ["recall_7", "recall_70"]


def test_group_leaves_out_what_is_not_a_number() -> None:
    names = {measure.name for measure in parse_metric("all_trec")}
    assert {"map", "recall_1000", "iprec_at_recall_0.00"} <= names
    assert not {"runid", "relstring"} & names


def test_parameters() -> None:
    (measure,) = parse_metric("RR(rel=2)@10")
    assert (measure.relevance_level, measure.rank_cut) == (2, 10)


def test_measure_reached_twice_is_kept_once() -> None:
    assert len(parse_metrics(["recall_100", "recall"])) == 9


@pytest.mark.parametrize(
    ("names", "deepest"),
    [(["mrr_10", "nDCG@20"], 20), (["recall"], 1000), (["AP", "RR", "Rprec"], 0), (["iprec_at_recall_0.10"], 0)],
)
def test_largest_cut(names: list[str], deepest: int) -> None:
    assert largest_cut(names) == deepest


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("mmr_10", "did you mean 'mrr_10'"),
        ("nDGC@10", "did you mean 'nDCG@10'"),
        ("recal", "did you mean 'recall'"),
        ("R", "unknown metric 'R'"),
        ("P_5abc", "unknown metric"),
        ("runid", "not a number"),
        ("P@0", "at least 1"),
        ("P_0", "at least 1"),
        ("recall.10,0", "at least 1"),
        ("nDCG@1.5", "at least 1"),
        ("mrr_0", "at least 1"),
        ("Rprec@10", "takes no cut"),
        ("nDCG(gains=3)@10", "unknown parameter"),
        ("AP(rel=x)", "is not a value of rel"),
        ("AP(rel=0)", "is not a value of rel"),
        ("iprec_at_recall_1.5", "between 0 and 1"),
        ("set_F.2", "unknown metric"),
        ("prefs", "does not support"),
        (10, "is a name such as"),
    ],
)
def test_wrong_names_are_errors(spelling: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_metric(spelling)


@pytest.mark.parametrize("names", [[], "mrr_10"])
def test_metrics_are_a_list(names: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse_metrics(names)
