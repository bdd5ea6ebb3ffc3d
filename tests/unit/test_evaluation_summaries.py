"""Effectiveness and costs, as every summary shows them."""

from dataclasses import replace

from splade.evaluation.costs import Costs
from splade.evaluation.measures import display_names
from splade.evaluation.metrics import mean_metrics
from splade.reports.summaries import before_after_table, cost_cells, cost_line, costs_table, metric_line

COSTS = Costs(
    model="m",
    n_docs=240,
    L0_d=126.93,
    index_bytes=2_500_000,
    n_queries=250,
    L0_q=22.04,
    flops=1.5,
    encoding_ms_per_query=2.5,
    search_ms_per_query=0.8,
    n_threads=2,
    n_empty_queries=0,
)


def test_one_line_of_costs() -> None:
    assert cost_line(COSTS) == (
        "250 queries, 240 documents, 126.9 terms per document, 22.0 per query, flops 1.500, index 2.5 MB, "
        "2.50 ms encoding per query, 0.80 ms search per query (2 threads)"
    )
    assert (
        cost_line(Costs(n_queries=3, n_empty_queries=1)) == "3 queries, queries without any term, which find nothing: 1"
    )
    assert cost_line(Costs()) == "" and metric_line({"RR": 0.5, "map": 0.25}) == "MRR 0.5000  AP 0.2500"


def test_before_and_after_stand_side_by_side() -> None:
    lines = before_after_table(
        "TOY", {"before": ({"RR": 0.5}, Costs(L0_q=1)), "after": ({"RR": 1.0}, COSTS)}
    ).splitlines()
    assert (
        lines[0] == "TOY"
        and lines[1].split() == ["before", "after"]
        and lines[2].split() == ["MRR", "0.5000", "1.0000"]
    )
    by_label = {line[:41].strip(): line[41:].split() for line in lines[2:]}
    assert by_label["terms per query"] == ["1.0", "22.0"] and by_label["index, MB"] == ["2.50"]
    assert by_label["search, ms per query (2 threads)"] == ["0.800"]
    assert len({len(line) for line in lines[1:]}) == 1
    alone = before_after_table("TOY", {"after": ({"RR": 1.0}, Costs())})
    assert alone.splitlines() == ["TOY", "  MRR    1.0000"]


def test_table_of_several_systems_leaves_out_what_nobody_knows() -> None:
    table = costs_table({"BM25": Costs(L0_q=3.0, n_threads=1), "splade": Costs(L0_q=22.0, flops=1.5)})
    assert [column.name for column in table.columns] == ["system", "terms /query", "FLOPS"]
    assert table.rows == (("BM25", 3.0, None), ("splade", 22.0, 1.5))


def test_times_of_few_queries_are_not_shown() -> None:
    few = replace(COSTS, n_queries=49)
    assert " ms " not in cost_line(few) and ", ms per query" not in before_after_table("TOY", {"after": ({}, few)})
    assert cost_cells(few)[4:7] == (None, None, None) and cost_cells(COSTS)[4:7] == (2.5, 0.8, 2)
    assert "encoding, ms per query (mean of 250)" in before_after_table("TOY", {"after": ({}, COSTS)})


def test_metrics_have_one_spelling() -> None:
    spelt = ["mrr_10", "RR(rel=2)@10", "ndcg_cut_10", "NDCG@10", "Recall@100", "recall_1000", "map", "AP@100", "P_5"]
    shown = ["MRR@10", "MRR(rel=2)@10", "ndcg_cut_10", "NDCG@10", "R@100", "R@1000", "AP", "AP@100", "P@5"]
    assert list(display_names(spelt).values()) == shown  # the same one twice stays as it is spelt
    assert list(display_names(["best loss", "recall", "R_cap@100", "Rprec"]).values()) == [
        "best loss",
        "recall",
        "R_cap@100",
        "Rprec",
    ]


def test_mean_over_data_sets() -> None:
    assert mean_metrics([{"a": 1.0, "b": 0.0}, {"a": 0.5, "b": 1.0}]) == {"a": 0.75, "b": 0.5}
