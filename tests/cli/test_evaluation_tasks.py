"""Evaluation as commands: BEIR sweeps, BM25, comparisons."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from splade.config import compose_experiment
from splade.config.schema import Affects
from splade.config.sweep import folder_name, swept_settings
from splade.datasets.beir import CQADUPSTACK_FORUMS
from splade.errors import ConfigError, DataError
from splade.tasks.beir_eval import beir_eval
from splade.tasks.beir_table import beir_table
from splade.tasks.bm25 import bm25
from splade.tasks.compare import compare, named_runs
from splade.tasks.evaluate import evaluate
from splade.tasks.index import index
from splade.tasks.retrieve import retrieve

ROOT = Path(__file__).resolve().parents[2]
MODEL = "init_dict.model_type_or_dir"
TIMES = ("encode ms /query", "search ms /query")


def experiment(**changes):
    overrides = [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    return compose_experiment("config_default", [*overrides, "config.max_length=32", "config.n_threads=1"])


def ready(model, folder, **changes):
    """Return an experiment with a ready model that works in a folder."""
    own = {"config__pretrained_no_yamlconfig": "true", "init_dict__model_type_or_dir": model}
    own |= {"config__index_dir": folder / "index", "config__out_dir": folder / "out"}
    return experiment(**(own | changes))


def command(task, *arguments, cwd):
    """Return command and environment of a task in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPLADE_", "HYDRA_"))}
    return [sys.executable, "-m", f"splade.{task}", *map(str, arguments)], clean | {"PYTHONPATH": str(ROOT)}


def run(task, *arguments, cwd):
    line, environment = command(task, *arguments, cwd=cwd)
    done = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def killed_when(n_results, task, *arguments, cwd, out_dir):
    """Start a task and kill it as soon as `n_results` evaluations are finished."""
    line, environment = command(task, *arguments, cwd=cwd)
    process = subprocess.Popen(line, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and len(list((cwd / out_dir).rglob("stats.json"))) < n_results:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()


def table(out_dir, without=TIMES):
    rows = json.loads((out_dir / "beir_table.json").read_text())["rows"]
    return [{key: value for key, value in row.items() if key not in without} for row in rows]


@pytest.fixture(scope="module")
def work(tmp_path_factory, write_beir):
    folder = tmp_path_factory.mktemp("evaluation")
    for name, n_queries in (("one", 25), ("two", 15), ("three", 10)):
        write_beir(folder / "beir" / name, n_queries)
    return folder


def test_a_sweep_killed_twice_ends_like_an_undisturbed_one(work, small, make_model):
    other = make_model("other", seed=2)
    sweep = ["--multirun", f"{MODEL}={small},{other}", "config.pretrained_no_yamlconfig=true"]
    sweep += ["+beir.dataset=one,two,three", "+beir.dataset_path=beir", "config.max_length=32", "config.n_threads=1"]
    disturbed = [*sweep, "config.index_dir=k/index", "config.out_dir=k/out"]
    killed_when(1, "beir_eval", *disturbed, cwd=work, out_dir="k/out")
    killed_when(4, "beir_eval", *disturbed, cwd=work, out_dir="k/out")
    finished = {path: path.stat().st_mtime_ns for path in (work / "k/out").rglob("stats.json")}
    assert 4 <= len(finished) < 6
    printed = run("beir_eval", *disturbed, cwd=work)
    assert printed.count("evaluated earlier with the same settings") == len(finished)
    assert all(path.stat().st_mtime_ns == written for path, written in finished.items())
    undisturbed = run("beir_eval", *sweep, "config.index_dir=u/index", "config.out_dir=u/out", cwd=work)
    assert table(work / "k/out") == table(work / "u/out") and len(table(work / "u/out")) == 8
    assert table(work / "u/out", without=()) != [] and "average of 3" in undisturbed
    assert "R_cap@100:" not in undisturbed and "INFO R_cap" not in undisturbed
    assert {path.name for path in (work / "u/out").glob("beir_table.*")} == {
        f"beir_table.{suffix}" for suffix in ("txt", "md", "csv", "json", "tex")
    }
    assert len(list((work / "u/out").rglob("perf.json"))) == 6 and not (work / "u/out/beir").exists()


def test_a_sweep_over_knobs_shares_the_index(work, small):
    arguments = [f"{MODEL}={small}", "config.pretrained_no_yamlconfig=true", "+beir.dataset=one"]
    arguments += ["+beir.dataset_path=beir", "config.index_dir=s/index", "config.out_dir=s/out"]
    arguments += ["config.search_effort=1.0,0.3", "config.max_length=32"]
    printed = run("beir_eval", "--multirun", *arguments, cwd=work)
    assert len(list((work / "s/index").rglob("*.h5"))) == 1
    stats = [json.loads(path.read_text()) for path in sorted((work / "s/out").glob("*/beir/one/stats.json"))]
    assert [one["settings"]["config.search_effort"] for one in stats] == [0.3, 1.0]
    assert f"{small}, search_effort=0.3" in printed and (work / "s/out/search_effort-0.3").is_dir()


def test_folders_of_jobs():
    swept = {MODEL: "naver/splade-v3", "beir.dataset": "scifact", "config.search_effort": "0.5", "config.out_dir": "o"}
    assert folder_name(swept, Affects.INDEX | Affects.SEARCH) == "naver_splade-v3__search_effort-0.5"
    assert folder_name(swept, Affects.INDEX) == "naver_splade-v3"
    assert swept_settings(swept, Affects.SEARCH) == {MODEL: "naver/splade-v3", "config.search_effort": "0.5"}
    only_data = {"beir.dataset": "scifact", "bm25.k1": "1.2"}
    assert folder_name(only_data, Affects.INDEX | Affects.SEARCH) == ""
    assert folder_name(only_data, Affects.BM25) == "k1-1.2"
    long = [folder_name({MODEL: f"/{'a' * 200}/{name}/model"}, Affects.INDEX) for name in ("one", "two")]
    assert long[0] != long[1] and all(len(name) <= 110 for name in long)
    assert folder_name({"a.lambda": "1", "b.lambda": "2"}, Affects.INDEX) == "a.lambda-1__b.lambda-2"


def test_the_model_and_bm25_in_one_table_with_a_test(work, small, tmp_path):
    data = {"beir__dataset": "one", "beir__dataset_path": work / "beir", "beir__baseline": "true"}
    summary = beir_eval(ready(small, tmp_path, **data)).summary()
    rows = table(tmp_path / "out")
    assert [row["model"] for row in rows] == ["BM25", str(small)] and rows[0]["terms /doc"] > 5
    assert "paired t-test" in summary and "(measured here)" in summary
    assert all(f"{row['nDCG@10 (measured)']:.4f}" in summary for row in rows)
    compared = json.loads((tmp_path / "out/beir/one/compare_bm25.json").read_text())
    assert compared["n_queries"] == 25 and compared["widest"][0]["text"]
    found = compared["widest"][0]["retrieved"][str(small)][0]
    assert found["terms"] and sum(score for _, score in found["terms"]) <= found["score"] * 1.001
    assert "terms of the model that match: " in (tmp_path / "out/beir/one/compare_bm25.txt").read_text()
    assert "0." in (tmp_path / "out/beir/one/compare_bm25.tex").read_text()
    again = beir_eval(ready(small, tmp_path, **data))
    assert again.results[0].reused and "paired t-test" in again.summary()


def test_what_has_changed_is_done_again(work, small, tmp_path, make_model):
    shutil.copytree(work / "beir" / "three", tmp_path / "beir" / "three")
    data = {"beir__dataset": "three", "beir__dataset_path": tmp_path / "beir"}
    first = beir_eval(ready(small, tmp_path, **data))
    assert not first.results[0].reused and beir_eval(ready(small, tmp_path, **data)).results[0].reused
    deeper = beir_eval(ready(small, tmp_path, **data, config__top_k=200))
    assert not deeper.results[0].reused and deeper.results[0].costs.top_k == 200
    qrels = tmp_path / "beir/three/qrels/test.tsv"
    qrels.write_text("\n".join(qrels.read_text().splitlines()[:-1]) + "\n")
    judged = beir_eval(ready(small, tmp_path, **data, config__top_k=200))
    assert not judged.results[0].reused and judged.results[0].metrics != deeper.results[0].metrics
    query_side = make_model("query_side", seed=9)
    other = beir_eval(ready(small, tmp_path, **data, config__top_k=200, init_dict__model_type_or_dir_q=query_side))
    assert not other.results[0].reused


def test_a_killed_evaluation_leaves_no_result_that_looks_whole(work, small, tmp_path, monkeypatch):
    data = {"beir__dataset": "three", "beir__dataset_path": work / "beir"}
    beir_eval(ready(small, tmp_path, **data))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("splade.evaluation.protocols.evaluate_beir", killed)
    with pytest.raises(KeyboardInterrupt):
        beir_eval(ready(small, tmp_path, **data, config__top_k=150))
    assert sorted(path.name for path in (tmp_path / "out/beir/three").glob("*s*.json")) == [
        "q_dist.json",
        "q_stats.json",
    ]
    with pytest.raises(DataError, match="no results"):
        beir_table(experiment(config__out_dir=tmp_path / "out"))


def test_cqadupstack_is_its_sub_forums_and_their_average(small, tmp_path, write_beir):
    for i, forum in enumerate(CQADUPSTACK_FORUMS):
        write_beir(tmp_path / "beir" / "cqadupstack" / forum, 2 + i)
    data = {"beir__dataset": "cqadupstack", "beir__dataset_path": tmp_path / "beir"}
    result = beir_eval(ready(small, tmp_path, **data))
    values = [json.loads((tmp_path / f"out/beir/cqadupstack/{f}/perf.json").read_text()) for f in CQADUPSTACK_FORUMS]
    average = json.loads((tmp_path / "out/beir/cqadupstack/perf.json").read_text())
    for name in ("NDCG@10", "Recall@100", "R_cap@100"):
        assert average[name] == pytest.approx(sum(value[name] for value in values) / 12)
    assert f"average of 12: nDCG@10 {average['NDCG@10']:.4f}" in result.summary()
    last = table(tmp_path / "out")[-1]
    assert last["data set"] == "cqadupstack (12 forums)"
    assert last["nDCG@10 (measured)"] == pytest.approx(average["NDCG@10"])
    shutil.rmtree(tmp_path / "beir/cqadupstack/tex")
    with pytest.raises(DataError, match="sub-forums tex are missing"):
        beir_eval(ready(small, tmp_path, **data))


def test_another_split(work, small, tmp_path):
    shutil.copytree(work / "beir" / "three", tmp_path / "beir" / "three")
    qrels = tmp_path / "beir/three/qrels"
    lines = (qrels / "test.tsv").read_text().splitlines()
    (qrels / "dev.tsv").write_text("\n".join(lines[:4]) + "\n")
    data = {"beir__dataset": "three", "beir__dataset_path": tmp_path / "beir", "beir__split": "dev"}
    result = beir_eval(ready(small, tmp_path, **data)).results[0]
    assert result.costs.n_queries < 4 and result.dataset.split == "dev"
    with pytest.raises(DataError, match="splits: dev, test"):
        beir_eval(ready(small, tmp_path, **(data | {"beir__split": "train"})))


def test_bm25_on_beir(work, tmp_path):
    data = {"beir__dataset": "one", "beir__dataset_path": work / "beir", "config__out_dir": tmp_path}
    result = bm25(experiment(**data))
    perf = json.loads((tmp_path / "bm25/beir/one/perf.json").read_text())
    assert 0.3 < perf["NDCG@10"] < 0.8 and f"{perf['NDCG@10']:.4f}" in result.summary()
    assert (tmp_path / "bm25/beir/one/run.trec").is_file() and table(tmp_path)[0]["data set"] == "one"
    assert "evaluated earlier" in bm25(experiment(**data)).summary()
    assert "evaluated earlier" not in bm25(experiment(**data, bm25__k1=1.5)).summary()


def test_bm25_beside_the_models_run_on_own_data(small, tmp_path):
    own = ready(small, tmp_path)
    index(own)
    retrieve(own)
    summary = bm25(own).summary()
    assert "Effectiveness (measured here)" in summary and "paired t-test" in summary and "Costs" in summary
    systems = {line.split()[0] for line in summary.splitlines() if line.startswith(("BM25 ", "splade "))}
    assert systems == {"BM25", "splade"}
    perf = json.loads((tmp_path / "out/bm25/TOY/perf.json").read_text())
    assert perf["mrr_10"] > json.loads((tmp_path / "out/TOY/perf.json").read_text())["mrr_10"]


def test_bm25_without_its_library(work, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    data = {"beir__dataset": "one", "beir__dataset_path": work / "beir", "config__out_dir": tmp_path}
    with pytest.raises(ConfigError, match="pip install bm25s"):
        bm25(experiment(**data))


def test_compare_runs_of_any_system(tmp_path, work):
    bm25(experiment(config__out_dir=tmp_path))
    bm25(experiment(config__out_dir=tmp_path / "k1", bm25__k1=5.0, bm25__stemmer="null"))
    runs = f"{{ours: {tmp_path}/bm25/TOY, theirs: {tmp_path}/k1/bm25/TOY/run.trec}}"
    asked = {"runs": runs, "config__out_dir": tmp_path, "metrics": "[nDCG@10,R@5]"}
    result = compare(experiment(**asked))
    assert {path.name for path in tmp_path.glob("compare*")} == {
        *(f"compare.{suffix}" for suffix in ("txt", "md", "tex", "json", "csv")),
        "compare_differences.csv",
    }
    assert all(path.name in result.summary() for path in tmp_path.glob("compare*"))
    assert "words in common" in result.summary() and "theirs" in result.summary()
    rows = list(csv.DictReader((tmp_path / "compare_differences.csv").open()))
    assert [row["metric"] for row in rows] == ["nDCG@10", "R@5"]
    perf = json.loads((tmp_path / "bm25/TOY/perf.json").read_text())
    means = list(csv.DictReader((tmp_path / "compare.csv").open()))
    assert float(means[0]["nDCG@10"]) == pytest.approx(perf["ndcg_cut_10"])
    third = experiment(**(asked | {"runs": runs.replace("}", f", third: {tmp_path}/bm25/TOY}}")}))
    assert "3 comparisons per metric" in compare(third).text


def test_compare_shows_no_texts_of_another_collection(tmp_path):
    bm25(experiment(config__out_dir=tmp_path))
    run_file = json.loads((tmp_path / "bm25/TOY/run.json").read_text())
    renamed = {q: {f"x{d}": score for d, score in docs.items()} for q, docs in run_file.items()}
    (tmp_path / "a.json").write_text(json.dumps(renamed))
    (tmp_path / "b.json").write_text(json.dumps({q: dict(list(d.items())[:3]) for q, d in renamed.items()}))
    qrels = {q: {next(iter(docs)): 1} for q, docs in renamed.items()}
    (tmp_path / "qrels.json").write_text(json.dumps(qrels))
    asked = {"runs": f"[{tmp_path}/a.json,{tmp_path}/b.json]", "config__out_dir": tmp_path}
    result = compare(experiment(**asked, qrels=tmp_path / "qrels.json", metrics="[R@5]"))
    assert "without texts" in result.text and "words in common" not in result.text
    assert "b: the run holds at most 3 documents" in result.summary() and "WARNING" in result.summary()


def test_names_of_runs():
    assert list(named_runs(["x/a/TOY/run.json", "x/b/TOY/run.trec"])) == ["a", "b"]
    assert list(named_runs(["a.json", "b.trec"])) == ["a", "b"]
    assert named_runs({"m": "p", "n": "q"}) == {"m": "p", "n": "q"}
    for wrong in (["a.json"], ["a.json", "a.json"], "a.json", None):
        with pytest.raises(ConfigError, match="run"):
            named_runs(wrong)


def test_compare_as_a_command(tmp_path):
    bm25(experiment(config__out_dir=tmp_path))
    arguments = ["+runs=[bm25/TOY/run.json,bm25/TOY/run.trec]", "+metrics=[nDCG@10]", "config.out_dir=."]
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "bm25/TOY/run.trec", tmp_path / "copy/other.trec")
    arguments[0] = "+runs=[bm25/TOY/run.json,copy/other.trec]"
    printed = run("compare", *arguments, cwd=tmp_path)
    assert "bm25/TOY/run" in printed and "copy/other" in printed and (tmp_path / "compare.tex").is_file()


def test_shallow_runs_of_other_systems_are_warned_of(tmp_path):
    bm25(experiment(config__out_dir=tmp_path))
    run_file = json.loads((tmp_path / "bm25/TOY/run.json").read_text())
    (tmp_path / "TOY").mkdir()
    (tmp_path / "TOY/run.json").write_text(json.dumps({q: dict(list(d.items())[:5]) for q, d in run_file.items()}))
    result = evaluate(experiment(config__out_dir=tmp_path))
    assert [finding.code for finding in result.findings] == ["run-too-shallow"]
    assert result.summary().splitlines()[-3].startswith("WARNING") or "WARNING" in result.summary()
    kept = json.loads((tmp_path / "TOY/eval_stats.json").read_text())
    assert "at most 5 documents" in kept["warnings"][0]


def test_a_catalogue_in_place_of_files(small, tmp_path, monkeypatch):
    ir_datasets = pytest.importorskip("ir_datasets")
    formats = ir_datasets.formats

    class Docs(formats.BaseDocs):
        def docs_iter(self):
            yield from (formats.GenericDoc(f"d{i}", text) for i, text in enumerate(("cats purr", "dogs bark")))

    class Queries(formats.BaseQueries):
        def queries_iter(self):
            yield formats.GenericQuery("q1", "why do cats purr")

    class Qrels(formats.BaseQrels):
        def qrels_iter(self):
            yield formats.TrecQrel("q1", "d0", 1, "0")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    registry = ir_datasets.registry
    found = {"splade-cli": ir_datasets.Dataset(Docs(), Queries(), Qrels())}
    monkeypatch.setattr(registry, "_registered", registry._registered | found)
    catalogue = {"data__COLLECTION_PATH": "ir_datasets:splade-cli", "data__EVAL_QREL_PATH": "[ir_datasets:splade-cli]"}
    own = ready(small, tmp_path, **catalogue, data__Q_COLLECTION_PATH="[ir_datasets:splade-cli]")
    assert index(own).postings.n_docs == 2
    assert retrieve(own).runs[0].metrics["recall_100"] == 1.0
    assert bm25(own).summary().count("paired t-test") == 1
    runs = f"{{bm25: {tmp_path}/out/bm25/TOY, splade: {tmp_path}/out/TOY}}"
    compared = compare(ready(small, tmp_path, **catalogue, runs=runs, metrics="[RR@10]"))
    assert compared.findings == () and "RR@10" in compared.text


def test_a_hugging_face_folder(small, tmp_path):
    for name, lines in (
        ("corpus/corpus.jsonl", [{"_id": "d1", "text": "cats purr"}, {"_id": "d2", "text": "dogs bark"}]),
        ("queries/queries.jsonl", [{"_id": "q1", "text": "why do cats purr"}]),
        ("qrels/test.jsonl", [{"query-id": "q1", "corpus-id": "d1", "score": 1}]),
    ):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = tmp_path / "set"
    own = {"data__COLLECTION_PATH": folder, "data__Q_COLLECTION_PATH": f"[{folder}]"}
    own["data__EVAL_QREL_PATH"] = f"[{folder}]"
    index(ready(small, tmp_path, **own))
    assert retrieve(ready(small, tmp_path, **own)).runs[0].metrics["recall_100"] == 1.0


def test_the_table_beside_published_results(tmp_path):
    for system, ndcg in (("", 0.7), ("bm25", 0.6)):
        folder = tmp_path / system / "beir" / "scifact"
        folder.mkdir(parents=True)
        (folder / "perf.json").write_text(json.dumps({"NDCG@10": ndcg, "Recall@100": 0.9, "R_cap@100": 0.9}))
        (folder / "stats.json").write_text(json.dumps({"label": system or "mine", "model": system or "mine"}))
    rows = table_rows(beir_table(experiment(config__out_dir=tmp_path)))
    assert [row["nDCG@10 (published)"] for row in rows] == [0.6789, None]
    chosen = beir_table(experiment(config__out_dir=tmp_path, beir__reference="splade-v3"))
    assert [row["nDCG@10 (published)"] for row in table_rows(chosen)] == [0.7140, 0.7140]
    assert "reported by others" in chosen.summary() and "-0.1140" in chosen.summary()
    with pytest.raises(ConfigError, match="did you mean 'SPLADE-v3'"):
        beir_table(experiment(config__out_dir=tmp_path, beir__reference="SPLADE-v2"))


def table_rows(result):
    return result.table.to_records()
