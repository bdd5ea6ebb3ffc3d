"""A command that starts several processes itself: one result, one error, and nothing left behind."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import forked
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

from splade.retrieval.score_journal import SCORES_FILE

TOY = Path(__file__).resolve().parents[2] / "data" / "toy"

RANKING = "{D_COLLECTION_PATH: T/collection, Q_COLLECTION_PATH: T/queries/heldout, QREL_PATH: T/qrels/heldout.json}"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder for all runs of this module."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def arguments(tiny_model):
    """Six steps, with everything that validation can measure."""
    settings = {
        "init_dict.model_type_or_dir": tiny_model(),
        "config.nb_iterations": 6,
        "config.warmup_steps": 2,
        "config.lr": 1e-3,
        "config.train_batch_size": 8,
        "config.max_length": 16,
        "config.record_frequency": 3,
        "config.train_monitoring_freq": 1,
        "data.VALIDATION_SIZE_FOR_LOSS": 50,
        "data.VALIDATION_FULL_RANKING": RANKING.replace("T/", "pkg://splade/data/toy/"),
    }
    return [f"{name}={value}" for name, value in settings.items()]


def places(folder):
    return [f"config.{name}_dir={folder}/{name}" for name in ("checkpoint", "index", "out")]


def run(task, arguments, folder, **options):
    process = forked.start_training(arguments, folder, task=task, **options)
    process.join(timeout=300)
    return process.exitcode


def rows(path):
    names, *lines = (line.split(",") for line in path.read_text().splitlines())
    return [dict(zip(names, map(float, line), strict=True)) for line in lines]


def numbers(path):
    """The numbers of a log, without times."""
    return [[value for name, value in row.items() if name != "steps_per_second"] for row in rows(path)]


def weights(folder):
    return load_file(folder / "checkpoint" / "model" / "model.safetensors")


def digests(*files):
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def children(pid):
    """Processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_processes_do_what_one_does(work, arguments):
    """Two such runs at once do not meet each other's processes."""
    started = [
        forked.start_training([*arguments, *places(name), f"config.n_processes={n}"], work, task="all")
        for name, n in (("one", 1), ("two", 2), ("other", 2))
    ]
    for process in started:
        process.join(timeout=300)
    assert [process.exitcode for process in started] == [0, 0, 0]
    one, two, other = work / "one", work / "two", work / "other"
    for file, n_rows in (("training_perf.txt", 6), ("validation_perf.txt", 3)):
        expected, found, again = (numbers(folder / "checkpoint" / file) for folder in (one, two, other))
        assert len(expected) == n_rows
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=2e-5)
        assert found == again
    # Before training, all is equal to the last bit: losses, metrics, index, runs.
    assert numbers(one / "checkpoint" / "validation_perf.txt")[0] == numbers(two / "checkpoint/validation_perf.txt")[0]
    for file in ("index/before/index.h5", "out/before/TOY/run.json", "out/before/TOY/run.trec"):
        assert len(set(digests(one / file, two / file))) == 1
    assert sorted(path.name for path in (one / "index").iterdir()) == sorted(
        path.name for path in (two / "index").iterdir()
    )
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(two)[name], value, rtol=1e-4, atol=2e-5)
    assert all(torch.equal(weights(other)[name], value) for name, value in weights(two).items())


def test_two_processes_train_a_reranker_as_one(tmp_path, arguments):
    """Each takes the loss of its own queries; what is logged is the mean."""
    changes = ["train/data=toy_hard_negatives", "config.loss=KlDiv", "config.augment_pairs=null", "config.lr=1e-2"]
    changes += [
        "config.regularizer=null",
        "data.VALIDATION_FULL_RANKING=null",
        "data.VALIDATION_SIZE_FOR_LOSS=8",
        "config.max_length=64",
    ]
    for n in (1, 2):
        command = [*arguments, *changes, f"config.checkpoint_dir={n}/checkpoint", f"config.n_processes={n}"]
        assert run("train_reranker", command, tmp_path) == 0
    for file in ("training_perf.txt", "validation_perf.txt"):
        one, two = (torch.tensor(numbers(tmp_path / str(n) / "checkpoint" / file)) for n in (1, 2))
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def test_a_reranking_shared_and_killed_ends_with_the_same_run(tmp_path, tiny_tokenizer):
    """60 queries with 40 documents each are three windows: one is kept, two processes score the others."""
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForSequenceClassification(BertConfig(vocab_size=len(tiny_tokenizer), num_labels=1, **small))
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    ids = {
        part: [line.split("\t")[0] for line in (TOY / part / "raw.tsv").read_text("utf-8").splitlines()]
        for part in ("collection", "queries/train")
    }
    first = {q: {d: -float(i) for i, d in enumerate(ids["collection"][:40])} for q in ids["queries/train"]}
    (tmp_path / "first.json").write_text(json.dumps(first))
    toy = "pkg://splade/data/toy/"
    command = [f"init_dict.model_type_or_dir={tmp_path}/model", "config.pretrained_no_yamlconfig=true"]
    command += [f"data.path_run={tmp_path}/first.json", f"data.document_dir={toy}collection", "config.max_length=64"]
    command += [f"data.query_dir={toy}queries/train", "config.top_k=40", "data.EVAL_QREL_PATH=[]"]
    found = []
    for n_processes in (1, 2):
        here = [*command, f"config.out_dir={tmp_path}/{n_processes}", f"config.n_processes={n_processes}"]
        if n_processes == 2:
            killed = {"kill_at": ("splade.retrieval.score_journal.ScoreJournal.write", 2)}
            assert run("rerank", here, tmp_path, errors=tmp_path / "errors.txt", **killed) == 1
            [kept] = (tmp_path / "2").rglob(SCORES_FILE)
            assert len(kept.read_bytes().splitlines()) == 1
        assert run("rerank", here, tmp_path) == 0
        [result] = (tmp_path / str(n_processes)).rglob("run.json")
        found.append(result.read_bytes())
        assert not list(result.parent.glob(SCORES_FILE))
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """1100 documents, three windows of the encoder."""
    texts = [line.split("\t")[1] for line in (TOY / "collection" / "raw.tsv").read_text("utf-8").splitlines()]
    path = tmp_path_factory.mktemp("collection") / "raw.tsv"
    path.write_text("".join(f"d{i}\t{texts[i % len(texts)]} {i}\n" for i in range(1100)))
    return path


def encoding(model, collection):
    return [
        f"init_dict.model_type_or_dir={model}",
        "config.pretrained_no_yamlconfig=true",
        "config.max_length=16",
        f"data.COLLECTION_PATH={collection}",
        "data.Q_COLLECTION_PATH=[pkg://splade/data/toy/queries/heldout]",
        "+quantization_factor_document=100",
        "+quantization_factor_query=100",
    ]


def test_what_several_processes_encode_is_equal_byte_for_byte(tmp_path, tiny_model, collection):
    model = tiny_model()
    network = load_file(model / "model.safetensors")
    network["cls.predictions.bias"][::2] = -10  # half of the terms, as a trained model
    save_file(network, model / "model.safetensors", {"format": "pt"})
    files = ("index/index.h5", "out/docs_anserini.jsonl", "out/queries_anserini.tsv")
    files += ("out/MANY/run.json", "out/MANY/run.trec", "out/flops.json")
    searching = [f"data.Q_COLLECTION_PATH=[{collection}]", f"data.flops_queries={collection}", "config.top_k=20"]
    searching += ["config.retrieval_name=[MANY]", "data.EVAL_QREL_PATH=[]", "config.eval_metric=[]"]
    found = []
    for n in (1, 2):
        for task, more in (("index", []), ("create_anserini", []), ("retrieve", searching), ("flops", searching)):
            command = [*encoding(model, collection), *more, *places(n), f"config.n_processes={n}"]
            assert run(task, command, tmp_path) == 0
        found.append(digests(*(tmp_path / str(n) / file for file in files)))
    assert found[0] == found[1]


def test_a_collapse_that_one_process_sees_is_an_error_of_all(tmp_path, tiny_model, collection):
    command = [
        *encoding(tiny_model(), collection),
        *places("all_terms"),
        "config.n_processes=2",
        "config.max_length=64",
    ]
    assert run("index", command, tmp_path, errors=tmp_path / "errors.txt") == 1
    text = (tmp_path / "errors.txt").read_text()
    assert text.count("error: ") == 1 and "(nearly) all of its 400 terms" in text


def test_each_process_draws_dropout_of_its_own(tmp_path, arguments, tiny_model):
    changes = [f"init_dict.model_type_or_dir={tiny_model(dropout=0.3)}", "data.VALIDATION_FULL_RANKING=null"]
    assert run("train", [*arguments, *changes, *places("d"), "config.n_processes=2"], tmp_path) == 0
    states = [
        torch.load(tmp_path / f"d/checkpoint/model_ckpt/checkpoint-6/rng_state_{rank}.pth", weights_only=False)
        for rank in (0, 1)
    ]
    assert not torch.equal(states[0]["cpu"], states[1]["cpu"])


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_training_goes_on_with_another_number_of_processes(work, arguments, tmp_path, before, after):
    command = [*arguments, *places("here")]
    killed = {"kill_at": ("splade.training.trainer.mark_complete", 2), "errors": tmp_path / "errors.txt"}
    code = run("train", [*command, f"config.n_processes={before}"], tmp_path, **killed)
    assert code == (-signal.SIGKILL if before == 1 else 1)
    if before == 2:
        assert "process 0 of 2" in (tmp_path / "errors.txt").read_text()
    assert run("train", [*command, f"config.n_processes={after}"], tmp_path) == 0
    expected = weights(work / "one")
    for name, value in weights(tmp_path / "here").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.TRAIN.DATASET_PATH=/no/such/file", "/no/such/file"),
        ("config.lr=1e30", "the loss is"),
    ],
)
def test_an_error_is_said_once(tmp_path, arguments, change, message):
    extra = ["config.max_grad_norm=0", "config.warmup_steps=0", "config.n_processes=2", change]
    assert run("train", [*arguments, *places("wrong"), *extra], tmp_path, errors=tmp_path / "errors.txt") == 1
    errors = [line for line in (tmp_path / "errors.txt").read_text().splitlines() if "error" in line.lower()]
    assert len(errors) == 1 and errors[0].startswith("error: ") and message in errors[0], errors


def test_a_worker_that_is_killed_ends_all(tmp_path, arguments):
    command = [*arguments, *places("killed"), "config.n_processes=2"]
    options = {"kill_at": ("splade.training.objective.gather_rows", 5), "killed_rank": 1}
    assert run("train", command, tmp_path, errors=tmp_path / "errors.txt", **options) == 1
    text = (tmp_path / "errors.txt").read_text()
    assert text.count("error: ") == 1 and "error: process 1 of 2" in text and "killed by SIGKILL" in text, text


def test_a_defect_is_told_by_the_process_that_has_it(tmp_path, arguments):
    """Not by the other one, from whose exchange it has disappeared."""
    command = [*arguments, *places("broken"), "config.n_processes=2"]
    options = {"kill_at": ("splade.training.objective.gather_rows", 5), "killed_rank": 1, "defect": True}
    assert run("train", command, tmp_path, errors=tmp_path / "errors.txt", **options) == 1
    text = (tmp_path / "errors.txt").read_text()
    assert "in process 1 of 2" in text and "AssertionError: broken" in text and "gloo" not in text, text


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_the_command_is_ended(tmp_path, arguments, sent):
    command = [*arguments, *places("ended"), "config.n_processes=2", "config.nb_iterations=100000"]
    process = forked.start_training(command, tmp_path, errors=tmp_path / "errors.txt")
    log = tmp_path / "ended/checkpoint/training_perf.txt"
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) > 3)
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(process.pid, sent)
    process.join(timeout=60)
    assert process.exitcode == (130 if sent == signal.SIGINT else -sent)
    wait_until(lambda: not any(map(runs, workers)))
    text = (tmp_path / "errors.txt").read_text()
    assert "Traceback" not in text and text.count("interrupted") == (sent == signal.SIGINT)
