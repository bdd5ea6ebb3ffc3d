"""Results on disk to one table."""

import json

import pytest

from splade.datasets.beir import CQADUPSTACK_FORUMS
from splade.errors import ConfigError, DataError
from splade.evaluation.costs import Costs
from splade.reports.beir_pivot import significant_systems
from splade.reports.beir_report import SweepEntry, beir_tables, collect_sweep, find_systems, sweep_table
from splade.reports.published import BEIR_13, PUBLISHED_SYSTEMS, published_system

STATS = {"L0_d": 100.0, "L0_q": 20.0, "flops": 1.5, "index_bytes": 2_500_000, "n_threads": 1}
PERF = {"NDCG@10": 0.5, "Recall@100": 0.9, "R_cap@100": 0.95}
STATS |= {"encoding_ms_per_query": 2.5, "search_ms_per_query": 0.8}


def entry(system: str, dataset: str, ndcg: float, **stats) -> SweepEntry:
    return SweepEntry(system, dataset, {"NDCG@10": ndcg, "Recall@100": 0.9, "R_cap@100": 0.95}, Costs(**stats))


def write(out_dir, dataset: str, ndcg: float, stats: dict | None = None) -> None:
    folder = out_dir / "beir" / dataset
    folder.mkdir(parents=True)
    (folder / "perf.json").write_text(json.dumps({"NDCG@10": ndcg, "Recall@100": 0.9, "R_cap@100": 0.95}))
    if stats is not None:
        (folder / "stats.json").write_text(json.dumps(stats))


def test_collected_from_disk(tmp_path) -> None:
    write(tmp_path / "a", "scifact", 0.7, {**STATS, "model": "naver/splade-v3"})
    write(tmp_path / "a", "cqadupstack/android", 0.4)
    write(tmp_path / "b", "scifact", 0.6)
    entries = collect_sweep({"mine": tmp_path / "a", "other": tmp_path / "b"})
    assert [(e.system, e.dataset) for e in entries] == [
        ("mine", "cqadupstack/android"),
        ("mine", "scifact"),
        ("other", "scifact"),
    ]
    rows = sweep_table(entries).to_records()
    assert rows[0]["model"] == "mine" and rows[0]["data set"] == "scifact"
    assert rows[0]["nDCG@10 (published)"] == 0.7140
    assert rows[0]["nDCG@10 (difference)"] == pytest.approx(-0.014)
    assert rows[0]["index MB"] == 2.5 and rows[0]["threads"] == 1
    assert rows[-1]["nDCG@10 (published)"] is None


def test_systems_of_one_folder(tmp_path) -> None:
    write(tmp_path, "scifact", 0.7, {**STATS, "model": "a/model"})
    write(tmp_path / "search_effort-0.5", "scifact", 0.6, {**STATS, "model": "a/model", "label": "a/model, effort"})
    write(tmp_path / "same", "scifact", 0.6, {"model": "a/model"})
    write(tmp_path / "bm25", "scifact", 0.5, {"label": "BM25", "model": "bm25"})
    (tmp_path / "empty").mkdir()
    systems = find_systems(tmp_path)
    assert list(systems) == ["BM25", "a/model", "a/model (same)", "a/model, effort"]
    rows = sweep_table(collect_sweep(systems)).to_records()
    assert [row["nDCG@10 (measured)"] for row in rows] == [0.5, 0.7, 0.6, 0.6]
    assert rows[0]["nDCG@10 (published)"] == 0.6789 and rows[0]["search ms /query"] is None
    assert rows[1]["search ms /query"] == 0.8 and rows[1]["encode ms /query"] == 2.5
    with pytest.raises(DataError, match="no results"):
        find_systems(tmp_path / "empty")


def test_average_of_the_forums_is_formed_once(tmp_path) -> None:
    for name in ("cqadupstack", "cqadupstack/android"):
        write(tmp_path, name, 0.5)
    assert [entry.dataset for entry in collect_sweep({"m": tmp_path})] == ["cqadupstack/android"]


def test_full_beir_13_average_against_published_values() -> None:
    published = PUBLISHED_SYSTEMS["BM25 flat"]
    entries = [entry("BM25", name, published.ndcg_10[name] + 0.01, **STATS) for name in reversed(BEIR_13)]
    rows = sweep_table(entries).to_records()
    assert [row["data set"] for row in rows] == [*BEIR_13, "BEIR-13 average"]
    assert rows[-1]["nDCG@10 (published)"] == pytest.approx(sum(published.ndcg_10.values()) / 13)
    assert rows[-1]["nDCG@10 (difference)"] == pytest.approx(0.01)
    assert rows[-1]["terms /doc"] == pytest.approx(100) and rows[-1]["index MB"] is None


def test_cqadupstack_counts_as_one_data_set() -> None:
    entries = [entry("m", f"cqadupstack/{forum}", i / 10) for i, forum in enumerate(CQADUPSTACK_FORUMS)]
    entries.append(entry("m", "scifact", 0.65))
    rows = {row["data set"]: row for row in sweep_table(entries).to_records()}
    assert rows["cqadupstack (12 forums)"]["nDCG@10 (measured)"] == pytest.approx(0.55)
    assert rows["average of 2"]["nDCG@10 (measured)"] == pytest.approx(0.6)
    rows = {row["data set"]: row for row in sweep_table(entries[1:]).to_records()}
    assert "cqadupstack (12 forums)" not in rows and "average of 2" not in rows


def test_reference_can_be_chosen() -> None:
    table = sweep_table([entry("mine", "scifact", 0.7)], reference="SPLADE++ ED")
    assert table.to_records()[0]["nDCG@10 (published)"] == 0.7036
    assert any("published: SPLADE++ ED, reported by others" in note for note in table.notes)


def test_without_published_values_there_are_no_such_columns() -> None:
    table = sweep_table([entry("mine", "scifact", 0.7), entry("mine", "my-own", 0.5)])
    assert not [column for column in table.columns if column.origin in ("published", "difference")]
    assert [row["data set"] for row in table.to_records()] == ["scifact", "my-own", "average of 2"]
    assert table.title == "BEIR: mine"


def test_text_is_readable_at_a_terminal() -> None:
    entries = [entry("BM25", name, 0.5, **STATS) for name in BEIR_13]
    entries += [entry("naver/splade-v3", name, 0.5, **STATS) for name in BEIR_13]
    assert max(map(len, sweep_table(entries).to_text().splitlines())) <= 110


def test_wrong_input(tmp_path) -> None:
    with pytest.raises(DataError, match="no <dataset>/perf.json"):
        collect_sweep({"m": tmp_path})
    write(tmp_path, "scifact", 0.5)
    (tmp_path / "beir/scifact/perf.json").write_text('{"NDCG@10": 0.5}')
    with pytest.raises(DataError, match="no value of Recall@100"):
        collect_sweep({"m": tmp_path})
    with pytest.raises(ConfigError, match="did you mean 'SPLADE-v3'"):
        sweep_table([entry("m", "scifact", 0.5)], reference="SPLADE v3")
    with pytest.raises(DataError, match="no result"):
        sweep_table([])
    with pytest.raises(DataError, match="two results"):
        sweep_table([entry("m", "scifact", 0.5), entry("m", "scifact", 0.6)])


def test_published_values_are_complete() -> None:
    for system in PUBLISHED_SYSTEMS.values():
        assert tuple(system.ndcg_10) == tuple(system.recall_100) == BEIR_13
    assert published_system("bm25") is PUBLISHED_SYSTEMS["BM25 flat"]
    assert published_system("naver/splade-v3-distilbert") is None


def test_pivot_of_systems_and_data_sets() -> None:
    by_query = {"nDCG@10": {str(i): i / 100 for i in range(30)}}
    better = {"nDCG@10": {str(i): i / 100 + 0.1 + i % 3 / 100 for i in range(30)}}
    entries = [
        *(SweepEntry("BM25", name, PERF | {"NDCG@10": 0.5}, Costs(**STATS), by_query=by_query) for name in "ab"),
        SweepEntry("splade", "a", PERF | {"NDCG@10": 0.6}, Costs(**STATS), by_query=better),
        SweepEntry("splade", "b", PERF | {"NDCG@10": 0.5}, Costs(**STATS), by_query=by_query),
    ]
    ndcg, recall, costs = beir_tables(entries)
    assert ndcg.columns[0].name == "data set" and [row[0] for row in ndcg.rows] == ["a", "b", "average of 2"]
    assert ndcg.rows[0] == ("a", 0.5, 0.6) and ndcg.marks == {(0, 2): "*"}
    assert ndcg.bold == {(0, 2), (1, 1), (1, 2), (2, 2)}  # a tie makes two best
    assert "0.6000*" in ndcg.to_text() and "**0.6000*** |" in ndcg.to_markdown() and "from BM25" in ndcg.notes[0]
    assert recall.marks == {} and recall.notes == ()
    assert [column.name for column in costs.columns][:3] == ["model", "data set", "terms /doc"] and len(costs.rows) == 6


def test_many_systems_go_down() -> None:
    entries = [entry(f"m{i}", "scifact", i / 10) for i in range(3)]
    table = beir_tables(entries, reference="SPLADE-v3")
    assert list(table[0].rows) == [("m0", 0.0), ("m1", 0.1), ("m2", 0.2)] and table[0].bold == {(2, 1)}
    assert table[-1].title.endswith("published by others") and "nDCG@10 (published)" in table[-1].to_records()[0]


def test_other_queries_are_not_compared() -> None:
    by_query = {"a": {"x": {"1": 0.0, "2": 0.0, "3": 0.1}}, "b": {"x": {"1": 1.0, "2": 1.0, "4": 1.0}}}
    assert significant_systems(["a", "b"], "x", by_query) == [] == significant_systems(["c", "b"], "x", by_query)
