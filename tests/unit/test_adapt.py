"""Adapting a model to a collection: from beginning to end, with few judgements, and when it does not help."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from splade.config import compose_experiment
from splade.datasets.collections import open_collection, open_queries
from splade.datasets.qrels import read_qrels
from splade.errors import ConfigError, DataError
from splade.models.load import load_checkpoint, load_for_inference
from splade.tasks import adapt as task
from splade.tasks import adaptation_stage as stage
from splade.tasks.adaptation import evaluated_set, judged_set, training_experiment

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


def adapted(*overrides):
    """Adapt as the command does."""
    return task.adapt(compose_experiment("config_domain_adaptation", list(overrides)))


JUDGED = ["adapt.queries=judged", "adapt.teacher=[sparse,bm25]"]
FAST = JUDGED + [
    f"config.{setting}"
    for setting in ("nb_iterations=4", "record_frequency=2", "warmup_steps=1", "train_batch_size=4", "max_length=24")
]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A BEIR folder of 60 passages and the queries that they answer."""
    return write_beir(tmp_path_factory.mktemp("data") / "mine", n_docs=60)


def test_script_from_beginning_to_end(mine, tmp_path, tiny_model, fast_python):
    out = tmp_path / "out"
    done = run_script(mine, out, f"init_dict.model_type_or_dir={tiny_model()}", *FAST, python=fast_python)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    summary = json.loads((out / "summary.json").read_text())
    kept = summary["kept"]
    assert kept in ("before", "after") and f"kept: the {'adapted' if kept == 'after' else 'model as it'}" in done.stdout
    stats = json.loads((out / "before/beir/mine/stats.json").read_text())
    assert stats["split"] == "test" and summary["flops"]["before"] == stats["flops"] > 0
    assert f"{summary['ndcg@10']['before']:.4f}" in done.stdout
    result = json.loads((out / "checkpoint/training_done.json").read_text())["result"]
    assert result["steps"] == 4 and result["monitored"] == "loss"

    train = read_qrels(mine / "qrels/train.tsv")
    mined = json.loads((out / "mined/beir/mine/run.json").read_text())
    assert set(mined) == set(train) and not set(mined) & set(read_qrels(mine / "qrels/test.tsv"))
    held_out = json.loads((out / "held_out/beir/mine/run.json").read_text())
    assert set(held_out) < set(train) and len(held_out) == summary["judged"]["held_out"]["n_queries"] == len(train) // 2


def verdict(before, after, p_value=0.2):
    """Return a function that judges so, whatever the models do."""
    metrics = [{"NDCG@10": value, "Recall@100": 0.9} for value in (before, after)]
    return lambda *_: (stage.Verdict(7, *metrics, p_value), None)


def weights(folder):
    """Return the weights that the other commands would load from a checkpoint folder."""
    experiment = compose_experiment("config_domain_adaptation", ["config.max_length=24"])
    return load_checkpoint(folder, experiment).document_encoder.state_dict()


@pytest.mark.parametrize(
    ("after", "p_value", "kept"),
    [(0.5, 0.2, "before"), (0.4, 0.2, "before"), (0.6, 0.5, "before"), (0.6, 0.2, "after")],
)
def test_the_old_model_stays_unless_the_new_one_is_better(
    mine, tmp_path, tiny_model, monkeypatch, after, p_value, kept
):
    monkeypatch.setattr(stage, "judge", verdict(0.5, after, p_value))
    model, out = tiny_model(), tmp_path / "out"
    given = [f"init_dict.model_type_or_dir={model}", f"data.TRAIN_DATA_DIR={mine}", f"config.out_dir={out}", *FAST]
    result = adapted(*given)
    text = result.summary()
    assert ("did not help" in text) == (kept == "before") and f"0.5000 before, {after:.4f} after" in text
    assert json.loads((out / "summary.json").read_text())["kept"] == kept
    assert ("after" in result.test) == (kept == "after")
    old, now = weights_of_folder(model), weights(out / "checkpoint")
    assert all((old[name] == value).all() for name, value in now.items() if name in old) == (kept == "before")
    assert (out / "not_kept/model/config.json").is_file() == (kept == "before")
    monkeypatch.setattr(stage, "judge", verdict(0.5, after, p_value) if kept == "after" else None)
    assert adapted(*given).summary() == text  # the same command again does nothing again


def weights_of_folder(folder):
    """Return the weights of a plain model under the names that a checkpoint's have."""
    experiment = compose_experiment(
        "config_domain_adaptation", [f"init_dict.model_type_or_dir={folder}", "config.pretrained_no_yamlconfig=true"]
    )
    return load_for_inference(experiment).document_encoder.state_dict()


def test_files_in_place_of_a_beir_folder(mine, tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr(stage, "judge", verdict(0.5, 0.6))
    collection, queries = TOY / "collection", TOY / "queries/train"
    result = adapted(
        *(f"init_dict.model_type_or_dir={tiny_model()}", f"config.out_dir={tmp_path}", "config.nb_iterations=1"),
        *("config.record_frequency=1", "config.train_batch_size=2", "config.max_length=8", "config.warmup_steps=0"),
        *(f"data.COLLECTION_PATH={collection}", f"data.TRAIN.Q_COLLECTION_PATH={queries}"),
        f"data.TRAIN.QREL_PATH={TOY / 'qrels/train.json'}",
        *JUDGED,
    )
    assert result.test == {} and "35 judged queries are trained on, 25 held out" in result.summary()
    assert set(json.loads((tmp_path / "summary.json").read_text())) == {"kept", "judged"}


def open_own(*overrides):
    """Open one's own files as the task would."""
    files = [
        f"data.TRAIN.Q_COLLECTION_PATH={TOY / 'queries/train'}",
        f"data.TRAIN.QREL_PATH={TOY / 'qrels/train.json'}",
    ]
    return both(*files, *overrides)


def both(*overrides):
    """Return the judged queries and the test queries."""
    experiment = compose_experiment("config_domain_adaptation", list(overrides))
    return judged_set(experiment), evaluated_set(experiment)


def test_test_queries_are_those_that_are_named(mine):
    corpus = f"data.COLLECTION_PATH={TOY / 'collection'}"
    assert open_own(corpus)[1] is None  # not those of the folder that the configuration names
    files = [
        f"data.Q_COLLECTION_PATH=[{TOY / 'queries/heldout'}]",
        f"data.EVAL_QREL_PATH=[{TOY / 'qrels/heldout.json'}]",
    ]
    train, test = open_own(corpus, *files)
    assert len(train.queries) > len(test.queries) == 25 and len(test.documents) == 240
    with pytest.raises(ConfigError, match="no value for data.COLLECTION_PATH"):
        open_own()
    train, test = both(f"data.TRAIN_DATA_DIR={mine}")
    assert (train.split, test.split, train.name) == ("train", "test", "mine")
    with pytest.raises(DataError, match="no judgements of the split 'dev'"):
        both(f"data.TRAIN_DATA_DIR={mine}", "beir.split=dev")


def planned(tmp_path, n_queries, *overrides):
    """Return the experiment that trains on a run of some toy queries, and the held-out ones."""
    qrels = dict(list(read_qrels(TOY / "qrels/train.json").items())[:n_queries])
    (tmp_path / "qrels.json").write_text(json.dumps(qrels))
    some = [doc_id for doc_id, _ in open_collection(TOY / "collection")][:9]
    (tmp_path / "run.json").write_text(json.dumps({query_id: dict.fromkeys(some, 1.0) for query_id in qrels}))
    files = [f"data.TRAIN.Q_COLLECTION_PATH={TOY / 'queries/train'}", f"data.TRAIN.QREL_PATH={tmp_path / 'qrels.json'}"]
    files += [f"data.COLLECTION_PATH={TOY / 'collection'}", *overrides]
    given = compose_experiment("config_domain_adaptation", files)
    return training_experiment(given, tmp_path / "run.json", tmp_path / "checkpoint")


@pytest.mark.parametrize(("n_queries", "n_held_out"), [(60, 25), (30, 15), (12, 6)])
def test_what_is_held_out_follows_from_what_there_is(tmp_path, n_queries, n_held_out):
    training, held_out = planned(tmp_path, n_queries)
    run = training.config
    assert len(held_out) == training.data.VALIDATION_SIZE_FOR_LOSS == n_held_out
    assert run.nb_iterations == -(-10 * (n_queries - n_held_out) // 16)
    assert run.record_frequency <= -(-run.nb_iterations // 4) and run.warmup_steps <= 20


def test_what_is_given_stays(tmp_path):
    given = ["adapt.held_out=3", "adapt.most_epochs=null", "config.nb_iterations=300", "config.warmup_steps=7"]
    training, held_out = planned(tmp_path, 30, *given)
    assert (len(held_out), training.config.nb_iterations, training.config.warmup_steps) == (3, 300, 7)
    assert training.config.record_frequency == 100
    with pytest.raises(ConfigError, match="more than half of the 30"):
        planned(tmp_path, 30, "adapt.held_out=16")


def test_one_judged_query_is_too_few(tmp_path):
    with pytest.raises(DataError, match="1 judged queries can be used: too few"):
        planned(tmp_path, 1)


def test_script_says_how_it_is_called():
    done = run_script("only-one-folder")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: bash scripts/adapt.sh BEIR_FOLDER OUT_FOLDER")


def test_judged_queries_that_are_asked_for_must_be_there(tmp_path):
    data = write_beir(tmp_path / "mine", n_docs=30)
    (data / "qrels" / "train.tsv").unlink()
    with pytest.raises(ConfigError, match="adapt.queries=judged: there are no judged queries"):
        adapted(f"data.TRAIN_DATA_DIR={data}", f"config.out_dir={tmp_path / 'out'}", "adapt.queries=judged")
    assert not (tmp_path / "out").exists()
