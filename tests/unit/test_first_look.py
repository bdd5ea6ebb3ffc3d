"""Mistakes that show before PyTorch is loaded: wrong columns, unknown metrics, keys without a value."""

import json
import subprocess
import sys

import pytest

from splade.config import command
from splade.config.command import run_task

TOY = "pkg://splade/data/toy"


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run a command that must end before its task is imported; return the error."""
    monkeypatch.setattr(command, "run_shared", lambda *args: pytest.fail("the task was begun"))
    for name in ("SPLADE_CONFIG_NAME", "SPLADE_CONFIG_FULLPATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["splade"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def run(task, *arguments):
        with pytest.raises(SystemExit) as end:
            run_task(f"splade.tasks.{task}", "", arguments)
        assert end.value.code == 1
        return capsys.readouterr().err

    return run


@pytest.fixture
def files(tmp_path):
    """Good files, and bad ones."""
    content = {
        "documents.tsv": "d1\tone\n",
        "queries.tsv": "q1\twhich\n",
        "qrels.json": json.dumps({"q1": {"d1": 1}}),
        "triplets.tsv": "which\tone\ttwo\n",
        "pairs.tsv": "which\tone\n",
        "scores.json": json.dumps({"q1": {"d1": "high"}}),
        "run.trec": "q1 Q0 d1 1 2.5 tag\n",
    }
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("train", ["data.TRAIN.DATASET_PATH=F/pairs.tsv"], "data.TRAIN.DATASET_PATH: F/pairs.tsv: line 1: 2 columns"),
        (
            "train",
            ["data.TRAIN.DATASET_PATH=F/triplets.tsv", "data.type=triplets_with_distil"],
            "3 columns; expected five",
        ),
        (
            "train",
            ["data.TRAIN.DATASET_PATH=F/triplets.tsv", "config.monitoring_ckpt=los"],
            "config.monitoring_ckpt=los is not measured here; did you mean 'loss'?",
        ),
        (
            "train",
            ["data.TRAIN.DATASET_PATH=F/triplets.tsv", "config.validation_metrics=[nDGC@10]"],
            "unknown metric 'nDGC@10'; did you mean 'nDCG@10'?",
        ),
        (
            "train_reranker",
            ["data.TRAIN.DATASET_PATH=F/triplets.tsv", "config.early_stopping=AP"],
            "=AP is not measured",
        ),
        (
            "train",
            [
                "train/data=toy_hard_negatives",
                "data.TRAIN.DATASET_PATH=F/scores.json",
                f"data.TRAIN.D_COLLECTION_PATH={TOY}/collection",
            ],
            "data.TRAIN.DATASET_PATH: F/scores.json: ",
        ),
        (
            "index",
            ["data.COLLECTION_PATH=F/run.trec", "config.index_dir=F/index"],
            "data.COLLECTION_PATH: F/run.trec: line 1: no tab",
        ),
        ("encode", ["data.COLLECTION_PATH=F/qrels.json", "config.out_dir=F/"], "no '_id' or 'id'"),
        ("index", ["data.COLLECTION_PATH=F/documents.tsv", "config.index_dir=null"], "no value for config.index_dir"),
        (
            "run_all",
            ["config.eval_metric=nDGC@10", "config.checkpoint_dir=F/checkpoint"],
            "unknown metric 'nDGC@10'; did you mean 'nDCG@10'?",
        ),
        (
            "evaluate",
            ["config.out_dir=F/", "config.retrieval_name=A", "data.EVAL_QREL_PATH=F/queries.tsv"],
            "data.EVAL_QREL_PATH: F/queries.tsv: ",
        ),
        (
            "evaluate",
            ["config.out_dir=F/", "data.EVAL_QREL_PATH=F/qrels.json", "config.retrieval_name=[A,B]"],
            "one entry per data set is needed",
        ),
        ("compare", ["runs=[F/run.trec,F/qrels.json]", "config.out_dir=F/", "metrics=[nope]"], "unknown metric 'nope'"),
        (
            "fuse",
            ["runs=[F/run.trec,F/qrels.json]", "config.out_dir=F/", "qrels=F/run.trec"],
            "(six columns are a run,",
        ),
        ("adapt", ["F/", "F/adapted"], "expected raw.tsv[.gz], corpus.jsonl[.gz]"),
        (
            "bm25",
            ["+beir.dataset=scifat", "+beir.dataset_path=F/", "config.out_dir=F/"],
            "beir.dataset=scifat: no such folder, and no public data set of BEIR; did you mean 'scifact'?",
        ),
    ],
)
def test_refused_before_the_task_is_imported(refused, files, task, arguments, message):
    where = ["config.checkpoint_dir=F/checkpoint"] if task.startswith("train") else []
    error = refused(
        task,
        *(argument.replace("F/", f"{files}/") if "F/" in argument else argument for argument in [*where, *arguments]),
    )
    assert message.replace("F/", f"{files}/") in error


def test_looking_loads_no_model_library():
    code = "import sys, splade.tasks.first_look; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
