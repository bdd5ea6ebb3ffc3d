"""Adapting a model to a BEIR folder: the script from beginning to end, its summary, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from splade.config import compose_experiment
from splade.datasets.collections import open_collection, open_queries
from splade.datasets.qrels import read_qrels
from splade.errors import DataError
from splade.tasks.adapt import adapt

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / "data" / "toy"


def run_script(*arguments, python=sys.executable):
    """Run scripts/adapt.sh with an interpreter."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPLADE_", "HYDRA_"))}
    return subprocess.run(
        ["bash", str(ROOT / "scripts" / "adapt.sh"), *map(str, arguments)],
        env=clean | {"PYTHON": str(python), "SNIPPETS": "run", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def write_beir(folder, n_docs):
    """Write the first passages of the toy collection, and the queries that they answer, as a BEIR folder."""
    (folder / "qrels").mkdir(parents=True)
    corpus = dict(list(open_collection(TOY / "collection"))[:n_docs])
    queries = []
    for split, name in (("train", "train"), ("test", "heldout")):
        lines = ["query-id\tcorpus-id\tscore"]
        texts = dict(open_queries(TOY / "queries" / name))
        for query_id, judged in read_qrels(TOY / "qrels" / f"{name}.json").items():
            found = {doc_id: grade for doc_id, grade in judged.items() if doc_id in corpus}
            lines += [f"{query_id}\t{doc_id}\t{grade}" for doc_id, grade in found.items()]
            queries += [json.dumps({"_id": query_id, "text": texts[query_id]})] if found else []
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    documents = [json.dumps({"_id": doc_id, "title": "", "text": text}) for doc_id, text in corpus.items()]
    (folder / "corpus.jsonl").write_text("\n".join(documents) + "\n")
    (folder / "queries.jsonl").write_text("\n".join(queries) + "\n")
    return folder


def write_evaluation(folder, split="test", **values):
    """Write what splade.beir_eval leaves behind, with recognisable numbers."""
    folder.mkdir(parents=True)
    stats = {"split": split, "flops": 2.0, "L0_q": 20.0, "L0_d": 90.0, "index_bytes": 1000}
    (folder / "perf.json").write_text(json.dumps({"NDCG@10": values.get("ndcg", 0.5), "Recall@100": 0.9}))
    (folder / "stats.json").write_text(json.dumps(stats | {"flops": values.get("flops", 2.0)}))


def summarise(out_dir):
    """Run the last step alone."""
    return adapt(compose_experiment("config_domain_adaptation", [f"config.out_dir={out_dir}", "beir.dataset=mine"]))


def test_script_from_beginning_to_end(tmp_path, tiny_model, fast_python):
    data, out = write_beir(tmp_path / "mine", n_docs=60), tmp_path / "out"
    overrides = ("nb_iterations=4", "record_frequency=2", "warmup_steps=1", "train_batch_size=4", "max_length=24")
    done = run_script(
        *(data, out, f"init_dict.model_type_or_dir={tiny_model()}", "data.VALIDATION_SIZE_FOR_LOSS=4"),
        *(f"config.{override}" for override in overrides),
        python=fast_python,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    summary, models = json.loads((out / "summary.json").read_text()), set()
    for when in ("before", "after"):
        folder = out / when / "beir" / "mine"
        assert summary["ndcg@10"][when] == json.loads((folder / "perf.json").read_text())["NDCG@10"]
        stats = json.loads((folder / "stats.json").read_text())
        assert summary["flops"][when] == stats["flops"] > 0
        assert stats["split"] == "test"
        models.add(stats["settings"]["model"]["document_encoder"])
        assert f"{summary['ndcg@10'][when]:.4f}" in done.stdout
    assert len(models) == 2  # digests of the weights
    result = json.loads((out / "checkpoint" / "training_done.json").read_text())["result"]
    assert result["steps"] == 4 and result["monitored"] == "loss"

    mined = json.loads((out / "mined" / "beir" / "mine" / "run.json").read_text())
    assert set(mined) == set(read_qrels(data / "qrels" / "train.tsv"))
    assert not set(mined) & set(read_qrels(data / "qrels" / "test.tsv"))


def test_summary_has_the_figures_of_both_evaluations(tmp_path):
    write_evaluation(tmp_path / "before" / "beir" / "mine", ndcg=0.5, flops=10.0)
    write_evaluation(tmp_path / "after" / "beir" / "mine", ndcg=0.75, flops=2.5)
    result = summarise(tmp_path)
    figures = json.loads((tmp_path / "summary.json").read_text())
    assert figures["ndcg@10"] == {"before": 0.5, "after": 0.75}
    assert figures["flops"] == {"before": 10.0, "after": 2.5}
    assert set(figures) == {"ndcg@10", "recall@100", "flops", "L0_q", "L0_d", "index_bytes"}
    lines = [line.split() for line in result.summary().splitlines()]
    assert ["NDCG@10", "0.5000", "0.7500"] in lines and ["flops", "10.000", "2.500"] in lines


def test_summary_of_one_evaluation_names_the_missing_file(tmp_path):
    write_evaluation(tmp_path / "before" / "beir" / "mine")
    with pytest.raises(DataError, match="after/beir/mine/perf.json: no such file"):
        summarise(tmp_path)
    assert not (tmp_path / "summary.json").exists()


def test_summary_of_different_splits_is_refused(tmp_path):
    write_evaluation(tmp_path / "before" / "beir" / "mine", split="test")
    write_evaluation(tmp_path / "after" / "beir" / "mine", split="dev")
    with pytest.raises(DataError, match="'test'.*'dev'"):
        summarise(tmp_path)


def test_script_says_how_it_is_called():
    done = run_script("only-one-folder")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: bash scripts/adapt.sh BEIR_FOLDER OUT_FOLDER")


def test_script_needs_a_train_split(tmp_path, tiny_model):
    data = write_beir(tmp_path / "mine", n_docs=30)
    (data / "qrels" / "train.tsv").unlink()
    done = run_script(data, tmp_path / "out")
    assert done.returncode == 1
    assert "qrels/train.tsv: no such file" in done.stderr
    assert not (tmp_path / "out").exists()
