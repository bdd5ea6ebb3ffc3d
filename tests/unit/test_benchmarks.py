"""The benchmarks run on the toy data, their results are merged into one file, and docs/speed.md is made of it."""

import json
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from splade.vectors import SparseVectors

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts" / "benchmarks"
NAMES = (
    "report",
    "results",
    "bench_common",
    "bench_encoding",
    "bench_training",
    "bench_retrieval",
    "bench_growth",
    "bench_shards",
    "bench_start",
    "bench_busy",
    "bench_server",
    "bench_rerank",
)


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    before = dict(os.environ)
    sys.path.insert(0, str(SCRIPTS))
    yield {name: import_module(name) for name in NAMES}
    sys.path.remove(str(SCRIPTS))
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def model(tiny_model):
    return str(tiny_model())


def run(scripts, name, results, *arguments):
    """Run a benchmark; return its only entry, and what the report makes of it."""
    benchmark = name.removeprefix("bench_")
    scripts[name].main([*map(str, arguments), "--results", str(results)])
    ((setting, entry),) = json.loads(results.read_text())[benchmark].items()
    return setting, entry, "\n".join(scripts["report"].entry_lines(benchmark, setting, entry))


def test_docs_speed_is_made_of_the_results(scripts):
    page = scripts["report"].page(json.loads((SCRIPTS / "results.json").read_text()))
    assert (ROOT / "docs" / "speed.md").read_text(encoding="utf-8") == page, "run scripts/benchmarks/report.py"
    assert scripts["report"].main(["--check"]) == 0
    for text in (page, (SCRIPTS / "results.json").read_text()):
        assert "/shared" not in text and "/home" not in text


def test_encoding(scripts, model, tmp_path):
    reduced = ("--docs", 8, "--queries", 4, "--rounds", 2, "--batch-size", 4, "--max-length", 24, "--threads", 1)
    setting, entry, report = run(
        scripts, "bench_encoding", tmp_path / "r.json", "--model", model, "--one-process", *reduced
    )
    assert setting.startswith("toy, 8 documents of at most 24 tokens in batches of 4, 4 single queries")
    engines = [row["engine"] for row in entry["documents"]]
    assert engines == ["splade", "sentence-transformers", "textbook", "bare matrix product", "bare product in pieces"]
    assert entry["documents"][0]["ratio"] == entry["queries"][0]["ratio"] == 1.0
    assert set(entry["largest_difference"]) == {"sentence-transformers", "textbook"}
    assert max(entry["largest_difference"].values()) < 1e-4
    assert "| textbook" in report and f"load {entry['machine']['load_before']} at the start" in report


def test_busy(scripts, model, tmp_path):
    reduced = ("--short", 8, "--docs", 2, "--queries", 4, "--rounds", 2, "--max-length", 16, "--threads", 1)
    _, entry, report = run(
        scripts, "bench_busy", tmp_path / "r.json", "--model", model, "--one-process", "--others", 0, 1, *reduced
    )
    assert [(row["others"], row["waiting"]) for row in entry["rows"]] == [
        (others, waiting) for others in (0, 1) for waiting in ("sleeping", "spinning")
    ]
    assert all(row["short_per_second"] > 0 and row["query_ms"] > 0 for row in entry["rows"])
    assert "| spinning" in report


def test_server(scripts, model, tmp_path):
    reduced = ("--seconds", 0.3, "--clients", 1, 3, "--max-length", 16, "--threads", 1)
    _, entry, report = run(scripts, "bench_server", tmp_path / "r.json", "--model", model, *reduced)
    assert [row["clients"] for row in entry["rows"]] == [1, 3]
    assert all(row["per_second"] > 0 and row["p99_ms"] >= row["p50_ms"] for row in entry["rows"])
    assert "answers/s" in report


def test_rerank(scripts, model, tmp_path):
    reduced = ("--pairs", 8, "--per-query", 4, "--rounds", 2, "--max-length", 48, "--threads", 1)
    setting, entry, report = run(
        scripts, "bench_rerank", tmp_path / "r.json", "--model", model, "--one-process", *reduced
    )
    assert setting.startswith("toy, 8 pairs of at most 48 tokens, 4 per query, batches of 32")
    assert [row["engine"] for row in entry["rows"]] == ["splade", "splade bf16", "sentence-transformers"]
    assert entry["rows"][0]["ratio"] == 1.0 and entry["largest_difference"]["sentence-transformers"] < 1e-4
    assert "| sentence-transformers" in report


def test_training(scripts, model, tmp_path):
    reduced = ("--triplets", 2, "--steps", 2, "--rounds", 2, "--max-length", 16, "--threads", 1)
    _, entry, report = run(scripts, "bench_training", tmp_path / "r.json", "--model", model, "--one-process", *reduced)
    assert [row["engine"] for row in entry["steps"]] == ["splade", "sentence-transformers", "textbook"]
    assert all(len(row["all_steps_s"]) == 4 for row in entry["steps"])
    assert max(entry["largest_difference"].values()) < 1e-3
    assert "| sentence-transformers" in report


def test_retrieval(scripts, model, tmp_path):
    reduced = ("--docs", 60, 300, 400, "--k", 3, "--repeats", 1, "--threads", 1, "--efforts", 1.0, 0.5)
    engines = ("--engines", "exhaustive", "splade", "scipy")
    _, entry, report = run(scripts, "bench_retrieval", tmp_path / "r.json", "--model", model, *engines, *reduced)
    found = {(row["docs"], row["engine"], row["setting"]): row for row in entry["rows"]}
    for docs in (60, 300, 400):
        assert found[docs, "exhaustive", ""]["ratio"] == 1.0
        assert found[docs, "splade", "effort 1"]["overlap"] == found[docs, "scipy", ""]["overlap"] == 1.0
        assert found[docs, "splade", "effort 0.5"]["overlap"] <= 1.0
        assert found[docs, "splade", "effort 1, batch"]["threads"] == 1
    assert "| 400       | splade effort 1, batch |" in report
    results = json.loads((tmp_path / "r.json").read_text())
    assert [path.name for path in scripts["report"].write(results, tmp_path)] == ["speed.md", "search_growth.png"]
    assert "](search_growth.png)" in (tmp_path / "speed.md").read_text()


def test_start(scripts, model, tmp_path, monkeypatch):
    start = scripts["bench_start"]
    monkeypatch.setattr(start, "commands", lambda *given: {"Python itself": ["-c", "pass"]})
    _, entry, report = run(scripts, "bench_start", tmp_path / "r.json", "--model", model, "--docs", 300, "--repeats", 1)
    assert [(row["what"], row["ratio"]) for row in entry["processes"]] == [("Python itself", 1.0)]
    assert entry["index"]["documents"] == 300
    assert entry["index"]["peak_mib"] > entry["index"]["arrays_mib"] > 0
    assert "open a copy ms" in report


def test_what_new_processes_do(scripts, model, tmp_path, monkeypatch):
    encoder = scripts["bench_common"].Encoder(model, 24)
    build_index = import_module("retrieval_engines").build_index
    build_index(encoder.encode(["why is the sky blue", "a cup of tea"]), tmp_path / "index")
    commands = scripts["bench_start"].commands(tmp_path / "index", model)
    assert list(commands)[0] == "Python itself"
    for option, code, *arguments in commands.values():
        if option == "-c":
            monkeypatch.setattr(sys, "argv", ["-c", *arguments])
            exec(code, {})


def test_an_entry_replaces_the_one_of_the_same_setting(scripts, tmp_path, capsys):
    results, path = scripts["results"], tmp_path / "results.json"
    steps = {"steps": [{"engine": "splade", "step_s": 1.0, "ratio": 1.0, "load": 0.5}], "largest_difference": {}}
    for setting, seconds in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        steps["steps"][0]["step_s"] = seconds
        results.save(path, "training", setting, results.begin(1) | steps)
    saved = json.loads(path.read_text())["training"]
    assert {setting: entry["steps"][0]["step_s"] for setting, entry in saved.items()} == {"a": 3.0, "b": 2.0}
    machine = saved["a"]["machine"]
    assert {"cpu", "cores", "threads", "load_before", "load_after", "versions"} <= set(machine)
    assert "training / a" in capsys.readouterr().out


def test_build_is_for_other_comparisons_too(scripts):
    build = import_module("retrieval_engines").build
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((50, 30)) < 0.2, rng.random((50, 30)), 0).astype(np.float32)
    rows, terms = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=50))])
    engine = build(indptr, terms.astype(np.int32), dense[rows, terms], 30)
    query = np.array([3, 17], np.int32), np.array([1.0, 0.5], np.float32)
    scores = dense[:, query[0]] @ query[1]
    expected = [i for i in np.argsort(-scores, kind="stable")[:5] if scores[i] > 0]
    assert engine.search(*query, k=5).tolist() == expected
    assert engine.search(*query, k=5, effort=0.9).tolist()[:1] == expected[:1]


def test_an_engine_that_is_not_installed_is_left_out(scripts, capsys):
    class Missing:
        name, needs, install = "missing", ("no_such_module",), "no-such-package"

    class There:
        name, needs, install = "there", ("json",), ""

    assert scripts["bench_common"].choose([Missing, There], ["missing", "there"]) == [There]
    assert "missing: not installed, left out; pip install no-such-package" in capsys.readouterr().err


def test_a_missing_data_set_is_named(scripts, tmp_path):
    with pytest.raises(SystemExit, match="corpus.jsonl: no such file"):
        scripts["bench_encoding"].main(["--beir", str(tmp_path / "scifact")])


def test_a_failure_in_an_engines_process_is_told(scripts):
    with pytest.raises(SystemExit, match="building: FileNotFoundError"):
        scripts["bench_common"].EngineProcess(scripts["bench_start"].Builder, (Path("nowhere"), 10, Path("nowhere")))


def test_growth(scripts, model, tmp_path):
    growth = scripts["bench_growth"]
    given = ("--model", model, "--docs", 300, 700, "--repeats", 1, "--k", 5)
    _, entry, report = run(scripts, "bench_growth", tmp_path / "r.json", *given)
    assert [row["docs"] for row in entry["rows"]] == [300, 700]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] and row["build_s"] > 0 for row in entry["rows"])
    assert "|       700 |" in report
    rows = [(np.sort(np.random.default_rng(i).choice(2000, 20, False)), np.full(20, i + 1.0)) for i in range(50)]
    vectors = SparseVectors.from_rows(rows, 2000)
    first, second = list(growth.repeated(vectors, 100))
    assert first.term_ids.tolist() == vectors.term_ids.tolist()
    second.check(2000)
    assert [weights.tolist() for _, weights in second] == [weights.tolist() for _, weights in vectors]
    shared = [len(set(a[0].tolist()) & set(b[0].tolist())) for a, b in zip(first, second, strict=True)]
    assert sum(shared) < 0.1 * vectors.nnz


def test_shards(scripts, model, tmp_path):
    given = ("--model", model, "--docs", 100, "--shards", 3, "--rounds", 2, "--trials", 3)
    _, entry, report = run(scripts, "bench_shards", tmp_path / "r.json", *given)
    by_way = {(row["shards"], row["way"]): row for row in entry["rows"]}
    measured, stragglers, hedged = scripts["bench_shards"].WAYS
    assert by_way[1, measured]["p50_ms"] <= by_way[1000, measured]["p50_ms"] < by_way[1000, stragglers]["p50_ms"]
    assert by_way[1000, hedged]["p50_ms"] <= by_way[1000, stragglers]["p50_ms"]
    assert "| 1,000  |" in report and (tmp_path / "docs" / "shard_latency.png").stat().st_size > 1000
