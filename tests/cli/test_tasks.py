"""The commands as a user types them, each in a process of its own, on the toy data."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRETRAINED = ["init_dict.model_type_or_dir=pkg://cognition/model", "config.pretrained_no_yamlconfig=true"]
TOY = ROOT / "data" / "toy"


def run(task, *arguments, cwd, fails=False, **environment):
    """Run a task and return its completed process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPLADE_", "HYDRA_"))}
    done = subprocess.run(
        [sys.executable, "-m", f"splade.{task}", *map(str, arguments)],
        cwd=cwd,
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode != 0) == fails, f"{done.stdout}\n{done.stderr}"
    if fails:
        assert "Traceback" not in done.stderr, done.stderr
        assert done.stderr.count("error:") == 1, done.stderr
    return done


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """An empty folder in which a module's commands run one after the other."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def everything(work):
    """The whole toy pipeline, once."""
    dirs = [
        f"config.{name}_dir=experiments/debug/{folder}"
        for name, folder in (("checkpoint", "checkpoint"), ("index", "index"), ("out", "out"))
    ]
    return run("all", *dirs, cwd=work, SPLADE_CONFIG_NAME="config_default.yaml")


def test_all_ends_with_a_summary_of_effectiveness_and_cost(everything, work):
    for part in (
        "before",
        "after",
        "MRR@10",
        "nDCG@10",
        "terms per document",
        "flops",
        "index, MB",
    ):
        assert part in everything.stdout
    assert len(everything.stdout.splitlines()) < 40
    before = json.loads((work / "experiments/debug/out/before/TOY/perf.json").read_text())
    after = json.loads((work / "experiments/debug/out/TOY/perf.json").read_text())
    assert after["mrr_10"] > before["mrr_10"] and after["ndcg_cut_10"] > before["ndcg_cut_10"]


def test_all_writes_what_the_contract_names(everything, work):
    debug = work / "experiments/debug"
    expected = """checkpoint/config.yaml checkpoint/model/config.json checkpoint/training_perf.txt
        checkpoint/tensorboard
        checkpoint/validation_perf.txt checkpoint/model_ckpt index/index_dist.json index/index_stats.json
        index/index_dist.png out/TOY/run.json out/TOY/run.trec out/TOY/q_stats.json out/TOY/perf.json
        out/perf_all_datasets.json out/flops.json out/TOY/q_dist.json
        checkpoint/figures/training.svg out/figures/training.csv out/figures/posting_lengths.png
        out/figures/weights.png out/figures/TOY_terms.png out/figures/TOY_flops.png"""
    assert [name for name in expected.split() if not (debug / name).exists()] == []
    assert list((debug / "index").glob("*.h5"))
    assert json.loads((debug / "index/index_stats.json").read_text())["L0_d"] > 50
    assert json.loads((debug / "out/TOY/q_stats.json").read_text())["L0_q"] > 5
    assert sorted(path.name for path in work.iterdir()) == ["experiments"]


def test_saved_config_runs_the_other_tasks(everything, work):
    config = {"SPLADE_CONFIG_FULLPATH": str(work / "experiments/debug/checkpoint/config.yaml")}
    flops = json.loads((work / "experiments/debug/out/flops.json").read_text())
    for task in ("train", "index", "retrieve", "evaluate", "flops"):
        run(task, cwd=work, **config)
    assert json.loads((work / "experiments/debug/out/flops.json").read_text()) == flops
    printed = run("create_anserini", "+quantization_factor_document=100", cwd=work, **config).stdout
    alone = work / "experiments/debug/out/anserini_collection"
    assert [path.name for path in alone.iterdir()] == ["docs_anserini.jsonl"]
    assert f"-input {alone} -index" in printed and "-topicReader TsvString" in printed
    documents = [json.loads(line) for line in (work / "experiments/debug/out/docs_anserini.jsonl").open()]
    assert len(documents) == 240 and all(isinstance(w, int) for w in documents[0]["vector"].values())
    queries = (work / "experiments/debug/out/queries_anserini.tsv").read_text().splitlines()
    assert len(queries) == 25 and len(queries[0].split("\t")) == 2


def test_index_info_verifies(everything, work):
    done = run("index_info", "index_dir=experiments/debug/index", cwd=work)
    assert "240" in done.stdout and "the checksum is right" in done.stdout


def test_beir_eval_on_a_local_folder(work):
    beir_folder(work / "beir" / "toybeir")
    options = ["+beir.dataset=toybeir", "+beir.dataset_path=beir", "config.index_dir=b/index", "config.out_dir=b/out"]
    done = run("beir_eval", *PRETRAINED, *options, cwd=work)
    perf = json.loads((work / "b/out/beir/toybeir/perf.json").read_text())
    assert set(perf) == {"NDCG@10", "Recall@100", "R_cap@100"} and 0.5 < perf["NDCG@10"] < 0.9
    assert f"{perf['NDCG@10']:.4f}" in done.stdout
    assert (work / "b/index/beir/toybeir/index_stats.json").exists()


def test_multirun_over_data_sets(work):
    for name in ("one", "two"):
        beir_folder(work / "sweep" / name)
    options = ["+beir.dataset=one,two", "+beir.dataset_path=sweep", "config.index_dir=m/index", "config.out_dir=m/out"]
    run("beir_eval", "--multirun", *PRETRAINED, *options, cwd=work)
    assert all((work / f"m/out/beir/{name}/perf.json").exists() for name in ("one", "two"))


def beir_folder(folder):
    """Write the toy collection as a BEIR folder."""
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as corpus:
        for line in (TOY / "collection" / "raw.tsv").open(encoding="utf-8"):
            doc_id, text = line.rstrip("\n").split("\t")
            corpus.write(json.dumps({"_id": doc_id, "title": "", "text": text}) + "\n")
    with (folder / "queries.jsonl").open("w") as queries:
        for line in (TOY / "queries" / "heldout" / "raw.tsv").open(encoding="utf-8"):
            query_id, text = line.rstrip("\n").split("\t")
            queries.write(json.dumps({"_id": query_id, "text": text}) + "\n")
    qrels = json.loads((TOY / "qrels" / "heldout.json").read_text())
    lines = [f"{q}\t{d}\t{r}" for q, documents in qrels.items() for d, r in documents.items()]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")


def test_evaluation_only_command_is_quick_and_helps(work):
    done = run("evaluate", "--help", cwd=work)
    assert "config.checkpoint_dir" in done.stdout and "train/data" in done.stdout
    assert "init_dict:" in run("train", "--cfg", "job", cwd=work).stdout


@pytest.mark.parametrize(
    ("task", "arguments", "parts"),
    [
        ("train", ["config.lerning_rate=1"], ["config.lerning_rate", "config.lr"]),
        ("train", ["train/data=nonsense"], ["nonsense", "toy"]),
        ("index", ["init_dict.model_type_or_dir=/no/such/model", PRETRAINED[1]], ["/no/such/model"]),
        ("index", ["config.checkpoint_dir=/no/such/checkpoint"], ["/no/such/checkpoint"]),
        ("index", [*PRETRAINED, "data.COLLECTION_PATH=/no/such/file"], ["/no/such/file"]),
        ("retrieve", [*PRETRAINED, "config.index_dir=/no/such/index"], ["/no/such/index"]),
        ("evaluate", ["config.out_dir=/no/such/runs"], ["config.out_dir: /no/such/runs: no such file or folder"]),
        ("retrieve", [*PRETRAINED, "config.top_k=5", "config.eval_metric=R@100"], ["config.top_k=5", "R@100"]),
        ("beir_eval", PRETRAINED, ["beir.dataset"]),
        ("create_anserini", [*PRETRAINED, "quantization_factor_query=0"], ["quantization_factor_query=0"]),
    ],
)
def test_mistakes_are_one_paragraph_and_no_traceback(work, task, arguments, parts):
    error = run(task, *arguments, cwd=work, fails=True).stderr
    assert all(part in error for part in parts), error


def test_traceback_when_asked_for(work):
    clean = os.environ | {"PYTHONPATH": str(ROOT), "HYDRA_FULL_ERROR": "1"}
    command = [sys.executable, "-m", "splade.train", "config.lr=-1"]
    done = subprocess.run(command, cwd=work, env=clean, capture_output=True, text=True)
    assert done.returncode != 0 and "Traceback" in done.stderr and "config.lr=-1" in done.stderr


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["empty"]),
        ("1\tfine\nno tab here\n", ["line 2", "tab"]),
        ("1\tone\n2\ttwo\n1\tagain\n", ["'1'", "line"]),
        ("1\tone\n2 \ttwo\n", ["line 2"]),
    ],
)
def test_bad_collections_leave_no_index(tmp_path, content, parts):
    (tmp_path / "raw.tsv").write_text(content)
    arguments = [*PRETRAINED, f"data.COLLECTION_PATH={tmp_path}", "config.index_dir=index"]
    error = run("index", *arguments, cwd=tmp_path, fails=True).stderr
    assert all(part in error for part in [*parts, str(tmp_path)]), error
    assert not list(tmp_path.glob("index/*.h5"))


def test_qrels_of_another_set_and_index_of_another_model(everything, work, tmp_path):
    (tmp_path / "qrels.json").write_text(json.dumps({"x1": {"1": 1}}))
    changed = [f"data.EVAL_QREL_PATH=[{tmp_path}/qrels.json]", "config.retrieval_name=[TOY]"]
    assert "x1" in run("evaluate", *changed, "config.out_dir=experiments/debug/out", cwd=work, fails=True).stderr
    arguments = [*PRETRAINED, "config.index_dir=experiments/debug/index", "config.out_dir=wrong"]
    error = run("retrieve", *arguments, cwd=work, fails=True).stderr
    assert "was made with the model" in error and "document_encoder" in error
    assert not (work / "wrong" / "TOY").exists()


def test_killed_index_starts_again(work):
    shutil.rmtree(work / "fresh", ignore_errors=True)
    arguments = [*PRETRAINED, "config.index_dir=fresh/index", "config.out_dir=fresh/out"]
    clean = os.environ | {"PYTHONPATH": str(ROOT)}
    started = subprocess.Popen([sys.executable, "-m", "splade.index", *arguments], cwd=work, env=clean)
    try:
        started.wait(timeout=6)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()
    run("index", *arguments, cwd=work)
    run("retrieve", *arguments, cwd=work)
    assert json.loads((work / "fresh/out/TOY/perf.json").read_text())["mrr_10"] > 0.5
