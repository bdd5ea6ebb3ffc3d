"""Several processes give what one process gives."""

import hashlib
import socket
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import torch
from safetensors.torch import load_file, save_file

TOY = Path(__file__).resolve().parents[2] / "data" / "toy"
HARD_NEGATIVES = "train/data=toy_hard_negatives data.VALIDATION_FULL_RANKING=null config.n_negatives=3".split()
TWO_MORE_REGULARIZERS = ["+config.regularizer.L1.lambda_q=0.01", "+config.regularizer.anti_zero.lambda_d=0.1"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder for all runs of this module."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def models(tiny_model):
    """Folders of two tiny models."""
    return tiny_model(), tiny_model(seed=1)


@pytest.fixture(scope="module")
def sparse_model(tiny_model):
    """Folder of a tiny model that uses half of its terms, as a trained one would."""
    folder = tiny_model()
    weights = load_file(folder / "model.safetensors")
    weights["cls.predictions.bias"][::2] = -10
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def arguments(models):
    """Six steps without dropout, with regularisers that are not additive over batches."""
    settings = {
        "init_dict.model_type_or_dir": models[0],
        "config.nb_iterations": 6,
        "config.warmup_steps": 2,
        "config.lr": 1e-3,
        "config.train_batch_size": 8,
        "config.max_length": 16,
        "config.record_frequency": 3,
        "config.train_monitoring_freq": 1,
        "data.VALIDATION_SIZE_FOR_LOSS": 8,
    }
    return [f"{name}={value}" for name, value in settings.items()] + TWO_MORE_REGULARIZERS


def torchrun(module, arguments, cwd):
    """Run a module with two processes as a user does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}", "-m"]
    return subprocess.run(
        [*command, module, *map(str, arguments)],
        cwd=cwd,
        env=forked.ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def assert_same_model(one, two, start):
    """Compare two trained checkpoints with each other, and with the model that both started from."""
    folders = [path.name for path in sorted(one.glob("model*")) if (path / "model.safetensors").exists()]
    assert folders and folders == [p.name for p in sorted(two.glob("model*")) if (p / "model.safetensors").exists()]
    for folder in folders:
        first, second = (load_file(run / folder / "model.safetensors") for run in (one, two))
        for name in first:
            torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=2e-5)
    before, after = load_file(start / "model.safetensors"), load_file(one / folders[-1] / "model.safetensors")
    return max((before[name] - after[name]).abs().max().item() for name in before)


CASES = {
    "in-batch": ["config.loss={InBatchPairwiseNLL: 1, Contrastive: 0.5}", "config.augment_pairs=null"],
    "accumulation": ["config.gradient_accumulation_steps=2"],
    "checkpointing": ["config.gradient_checkpointing=true"],
    "cache": ["config.encode_at_a_time=3", "config.gradient_accumulation_steps=2"],
    "teacher": [*HARD_NEGATIVES, "config.loss={KlDiv: 1, AllPairsMarginMSE: 0.05}", "config.augment_pairs=null"],
    "two encoders": [*HARD_NEGATIVES, "config.loss=DistilMarginMSE", "config.augment_pairs=null", "+query=model"],
    "frozen": ["init_dict.freeze_d_model=true", "+query=model"],
    "doc": ["config.matching_type=splade_doc"],
    "lexical": ["config.matching_type=splade_lexical", "init_dict.lexical_type=query"],
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(work, arguments, models, case):
    query_model = [f"init_dict.model_type_or_dir_q={models[1]}"]
    changes = [part for change in CASES[case] for part in (query_model if change == "+query=model" else [change])]
    names = [f"{case.replace(' ', '_')}-{n}" for n in (1, 2)]
    forked.train([*arguments, *changes, f"config.checkpoint_dir={names[0]}"], work)
    codes = forked.train_in_parallel([*arguments, *changes, f"config.checkpoint_dir={names[1]}"], work)
    assert codes == [0, 0]
    start = models[1] if query_model[0] in changes else models[0]
    assert assert_same_model(work / names[0], work / names[1], start) > 1e-3
    rows = [(work / name / "training_perf.txt").read_text().splitlines() for name in names]
    assert len(rows[0]) == len(rows[1]) == 7


def test_torchrun_trains_and_only_the_first_process_reports(work, arguments, models):
    forked.train([*arguments, "config.checkpoint_dir=one"], work)
    done = torchrun("splade.train", [*arguments, "config.checkpoint_dir=two"], work)
    assert done.returncode == 0 and "Warning" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert done.stdout.count("trained 6 steps") == 1 and done.stdout.count("480 training examples") == 2
    assert_same_model(work / "one", work / "two", models[0])
    again = forked.train_in_parallel([*arguments, "config.checkpoint_dir=two", "config.train_monitoring_freq=2"], work)
    assert again == [0, 0]  # nothing is left to do


def test_processes_that_were_killed_go_on(work, arguments):
    forked.train_in_parallel([*arguments, "config.checkpoint_dir=whole"], work)
    command = [*arguments, "config.checkpoint_dir=killed"]
    codes = forked.train_in_parallel(command, work, kill_at=("splade.training.trainer.mark_complete", 2))
    assert codes[0] == -9 and codes[1] != 0
    assert forked.train_in_parallel(command, work) == [0, 0]
    whole, killed = (load_file(work / name / "model" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_a_batch_that_cannot_be_shared_is_an_error_of_all(tmp_path, arguments):
    command = [*arguments, "config.checkpoint_dir=wrong", "config.train_batch_size=7"]
    assert forked.train_in_parallel(command, tmp_path, errors=tmp_path / "errors.txt") == [1, 1]
    # The one that is slower may find the other gone.
    assert "cannot be divided among 2 processes" in (tmp_path / "errors.txt").read_text()


def test_index_is_the_same_file(tmp_path, sparse_model):
    work, n_docs = tmp_path, 1500
    texts = [line.split("\t")[1] for line in (TOY / "collection" / "raw.tsv").read_text("utf-8").splitlines()]
    lines = [f"d{i}\t{texts[i % len(texts)]} {i}" for i in range(n_docs)]
    (work / "raw.tsv").write_text("\n".join(lines) + "\n")
    arguments = [f"init_dict.model_type_or_dir={sparse_model}", "config.pretrained_no_yamlconfig=true"]
    arguments.append(f"data.COLLECTION_PATH={work / 'raw.tsv'}")
    for n in (1, 2):
        command = [*arguments, f"config.index_dir=index-{n}"]
        assert forked.train_in_parallel(command, work, n_processes=n, task="index") == [0] * n
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(work.glob("index-*/*.h5"))]
    assert len(digests) == 2 and digests[0] == digests[1]
    assert [path.name for path in sorted((work / "index-1").iterdir())] == [
        path.name for path in sorted((work / "index-2").iterdir())
    ]
