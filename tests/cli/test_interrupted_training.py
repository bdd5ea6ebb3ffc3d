"""Training that is killed and started again ends as if nothing had happened, bit for bit."""

import csv
import json
import random
import shutil
import subprocess
import sys
import time

import forked
import pytest
from safetensors.torch import load_file

from splade.training.checkpoints import mark_complete

COLUMNS_OF_TIME = {"steps_per_second"}
N_RANDOM_KILLS = 10


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder for all runs of this module."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def arguments(tiny_model):
    """Twelve steps with dropout, so that the state of the random number generator matters, in six checkpoints."""
    settings = {
        "init_dict.model_type_or_dir": tiny_model(dropout=0.2),
        "config.nb_iterations": 12,
        "config.warmup_steps": 2,
        "config.lr": 5e-3,
        "config.train_batch_size": 4,
        "config.max_length": 16,
        "config.record_frequency": 2,
        "config.train_monitoring_freq": 1,
        "config.gradient_accumulation_steps": 2,
        "data.VALIDATION_SIZE_FOR_LOSS": 8,
    }
    return [f"{name}={value}" for name, value in settings.items()]


@pytest.fixture(scope="module")
def uninterrupted(work, arguments):
    """The outcome of a run that nothing disturbs, and how long it takes once everything is compiled."""
    for name in ("first", "reference"):
        start = time.monotonic()
        forked.train([*arguments, f"config.checkpoint_dir={name}"], work)
    return outcome(work / "reference"), time.monotonic() - start


def outcome(folder):
    """Return everything that a run leaves behind and that must not depend on interruptions."""
    tables = {}
    for name in ("training_perf.txt", "validation_perf.txt"):
        with (folder / name).open() as file:
            rows = list(csv.DictReader(file))
        tables[name] = [{key: row[key] for key in row.keys() - COLUMNS_OF_TIME} for row in rows]
    checkpoints = sorted(path.name for path in (folder / "model_ckpt").iterdir())
    return {
        "model": weights(folder / "model" / "model.safetensors"),
        "last weights": weights(folder / "model_ckpt" / "checkpoint-12" / "splade.safetensors"),
        "result": json.loads((folder / "training_done.json").read_text())["result"],
        "checkpoints": checkpoints,
        "no leftovers": sorted(path.name for path in folder.iterdir()),
        **tables,
    }


def weights(path):
    """Return the bytes of every tensor by name; the order of the file's metadata is not fixed."""
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}


def assert_same(folder, expected):
    found = outcome(folder)
    assert [name for name in expected if found[name] != expected[name]] == []


def test_dropout_makes_the_random_state_matter(uninterrupted, work, arguments):
    """Without the random state that a checkpoint holds, the comparisons below would fail."""
    expected, _ = uninterrupted
    folder = work / "forgetful"
    process = forked.start_training(
        [*arguments, "config.checkpoint_dir=forgetful"], work, kill_at=("splade.training.trainer.mark_complete", 4)
    )
    process.join(timeout=300)
    for file in folder.glob("model_ckpt/*/rng_state.pth"):
        file.unlink()
        mark_complete(file.parent)  # with the checksums of what is left
    forked.train([*arguments, "config.checkpoint_dir=forgetful"], work)
    assert outcome(folder)["last weights"] != expected["last weights"]


def test_killed_at_random_moments(uninterrupted, work, arguments):
    expected, seconds = uninterrupted
    moments = random.Random(0)
    killed = 0
    for trial in range(N_RANDOM_KILLS):
        command = [*arguments, f"config.checkpoint_dir=random-{trial}"]
        process = forked.start_training(command, work)
        process.join(timeout=seconds * (trial + moments.random()) / N_RANDOM_KILLS)
        killed += process.is_alive()
        process.kill()
        process.join()
        forked.train(command, work)
        assert_same(work / f"random-{trial}", expected)
    assert killed >= 2


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("safetensors.torch.save_model", 3),
        ("splade.training.trainer.SpladeTrainer._save_rng_state", 2),
        ("transformers.TrainerState.save_to_json", 4),
        ("splade.training.trainer.mark_complete", 1),
        ("splade.training.trainer.mark_complete", 6),
        ("splade.training.checkpoints.shutil.rmtree", 2),
        ("splade.training.run.save_config", 1),
        ("torch.save", 5),
        ("splade.training.checkpoints.checksums", 2),
        ("splade.training.trainer.keep_checkpoints", 4),
        ("transformers.PreTrainedModel.save_pretrained", 1),
        ("splade.training.run_folder.checksums", 1),
        ("splade.models.save._write_settings", 1),
        ("splade.models.save.shutil.rmtree", 2),
        ("splade.training.run_folder.RunFolder.finish", 1),
    ],
)
def test_killed_while_writing(uninterrupted, work, arguments, function, call):
    expected, _ = uninterrupted
    folder = work / f"{function}-{call}"
    command = [*arguments, f"config.checkpoint_dir={folder.name}"]
    process = forked.start_training(command, work, kill_at=(function, call))
    process.join(timeout=300)
    assert process.exitcode == -9 and not (folder / "training_done.json").exists()
    forked.train(command, work)
    assert_same(folder, expected)


def test_killed_again_and_again(uninterrupted, work, arguments):
    expected, _ = uninterrupted
    command = [*arguments, "config.checkpoint_dir=again"]
    for _ in range(6):  # each time one checkpoint further: the second one is half-written
        process = forked.start_training(command, work, kill_at=("splade.training.trainer.mark_complete", 2))
        process.join(timeout=300)
    forked.train(command, work)
    assert_same(work / "again", expected)


def test_killed_command_as_a_user_types_it(uninterrupted, work, arguments):
    expected, _ = uninterrupted
    command = [sys.executable, "-m", "splade.train", *arguments, "config.checkpoint_dir=typed"]
    process = subprocess.Popen(command, cwd=work, env=forked.ENVIRONMENT)
    while not (work / "typed" / "model_ckpt" / "checkpoint-6").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    subprocess.run(command, cwd=work, env=forked.ENVIRONMENT, check=True, timeout=300)
    assert_same(work / "typed", expected)


def test_killed_after_early_stopping(work, arguments):
    """The run that goes on must not train past the step at which it had stopped."""
    stopping = [*arguments, "config.lr=0.5", "config.early_stopping=true", "config.patience=2"]
    forked.train([*stopping, "config.checkpoint_dir=stopped"], work)
    done = json.loads((work / "stopped" / "training_done.json").read_text())["result"]
    assert done["steps"] < 12
    command = [*stopping, "config.checkpoint_dir=stopped-killed"]
    process = forked.start_training(command, work, kill_at=("splade.training.run_folder.RunFolder.finish", 1))
    process.join(timeout=300)
    assert process.exitcode == -9
    forked.train(command, work)
    assert json.loads((work / "stopped-killed" / "training_done.json").read_text())["result"] == done
    models = [weights(work / name / "model" / "model.safetensors") for name in ("stopped", "stopped-killed")]
    assert models[0] == models[1]


def test_moved_folder_goes_on_with_its_best_checkpoint(uninterrupted, work, arguments):
    expected, _ = uninterrupted
    before = [*arguments, "config.checkpoint_dir=before-moving"]
    process = forked.start_training(before, work, kill_at=("splade.training.run_folder.RunFolder.finish", 1))
    process.join(timeout=300)
    shutil.move(work / "before-moving", work / "moved")
    forked.train([*arguments, "config.checkpoint_dir=moved"], work)
    assert_same(work / "moved", expected)
