"""Checkpoints and trained models that were damaged: noticed before they are used, an older whole one takes over."""

import json
import logging
import os
import resource
import shutil

import pytest
import torch
from safetensors.torch import load_file

from splade.config import compose_experiment
from splade.errors import ConfigError, ModelError, SpladeError
from splade.models.load import load_for_inference
from splade.tasks.train import train
from splade.training import checkpoints
from splade.training.checkpoints import (
    checkpoint_path,
    complete_steps,
    keep_checkpoints,
    last_whole_step,
    mark_complete,
)
from splade.training.run_folder import RunFolder

FILES = ("splade.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "flipped": flip,
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "folder": replace_by_folder,
    "dangling": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}
MARKS = [
    "",
    "{",
    "[]",
    "null",
    "{}",
    '{"files": []}',
    '{"files": {}}',
    '{"files": null}',
    '{"files": {"optimizer.pt": 1}}',
]


def write_checkpoint(folder, step, best=None):
    path = checkpoint_path(folder, step)
    path.mkdir()
    for name in FILES:
        (path / name).write_bytes(os.urandom(50))
    (path / "trainer_state.json").write_text(json.dumps({"best_global_step": best, "log_history": []}))
    mark_complete(path)
    return path


@pytest.fixture
def steps(tmp_path):
    """Checkpoints of the steps 2, 4 and 6, the last of which is the best."""
    for step in (2, 4, 6):
        write_checkpoint(tmp_path, step, best=step)
    return tmp_path


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_sends_training_back_to_the_checkpoint_before(steps, caplog, name, damage):
    assert last_whole_step(steps) == 6
    DAMAGES[damage](checkpoint_path(steps, 6) / name)
    assert last_whole_step(steps) == 4
    (message,) = (record.getMessage() for record in caplog.records)
    assert f"checkpoint-6: {name} " in message and "passed over" in message


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_without_checksums_proves_nothing(steps, caplog, mark):
    (checkpoint_path(steps, 6) / "whole.json").write_text(mark)
    assert last_whole_step(steps) == 4
    assert "checkpoint-6" in caplog.text and "whole.json" in caplog.text


def test_the_best_checkpoint_must_be_whole_too(steps, caplog):
    write_checkpoint(steps, 8, best=6)
    write_checkpoint(steps, 10, best=6)
    flip(checkpoint_path(steps, 6) / "splade.safetensors")
    assert last_whole_step(steps) == 4
    assert "the best checkpoint so far is that of step 6, and there splade.safetensors is damaged" in caplog.text
    shutil.rmtree(checkpoint_path(steps, 6))
    assert last_whole_step(steps) == 4


def test_files_that_were_added_do_not_matter(steps):
    (checkpoint_path(steps, 6) / "notes.txt").write_text("a good one")
    assert last_whole_step(steps) == 6


def test_none_is_whole(steps):
    for step in (2, 4, 6):
        (checkpoint_path(steps, step) / "optimizer.pt").unlink()
    assert last_whole_step(steps) is None and complete_steps(steps) == [2, 4, 6]


def test_what_comes_after_the_checkpoint_to_go_on_from_is_removed(settings, tmp_path):
    """Counted among the last three, it would cost the checkpoints that are written next."""
    run = RunFolder(experiment(settings, tmp_path))
    assert run.start() is None
    for step in (2, 4, 6):
        write_checkpoint(run.checkpoints, step, best=2)
    for step in (4, 6):
        flip(checkpoint_path(run.checkpoints, step) / "optimizer.pt")
    assert run.start() == 2
    assert complete_steps(run.checkpoints) == [2]
    assert not checkpoint_path(run.checkpoints, 6).exists()


def test_what_is_removed_loses_its_mark_first(steps, monkeypatch):
    def killed(path):
        assert not (path / "whole.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        keep_checkpoints(steps, [6])
    assert complete_steps(steps) == [4, 6]


@pytest.fixture(scope="module")
def settings(tiny_model):
    """Overrides of a run of six steps with dropout, so that the random state matters."""
    return {
        "init_dict.model_type_or_dir": tiny_model(dropout=0.2),
        "config.nb_iterations": 6,
        "config.warmup_steps": 1,
        "config.lr": 5e-3,
        "config.train_batch_size": 4,
        "config.max_length": 16,
        "config.record_frequency": 2,
        "data.VALIDATION_SIZE_FOR_LOSS": 8,
    }


def experiment(settings, folder, **changes):
    overrides = settings | {"config.checkpoint_dir": folder} | changes
    return compose_experiment("config_default", [f"{name}={value}" for name, value in overrides.items()])


@pytest.fixture(scope="module")
def reference(settings, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    train(experiment(settings, folder))
    return folder


@pytest.fixture
def finished(reference, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(reference, tmp_path / "run")


def outcome(folder):
    names = ["model/model.safetensors", *(f"model_ckpt/checkpoint-{step}/splade.safetensors" for step in (2, 4, 6))]
    weights = {f"{name} {key}": tensor for name in names for key, tensor in load_file(folder / name).items()}
    return weights, json.loads((folder / "training_done.json").read_text())["result"]


def assert_same(folder, reference):
    (found, result), (expected, expected_result) = outcome(folder), outcome(reference)
    assert result == expected_result and found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize(
    ("step", "name", "damage"),
    [
        (6, "rng_state.pth", "missing"),
        (6, "optimizer.pt", "missing"),
        (4, "scheduler.pt", "missing"),
        (4, "splade.safetensors", "flipped"),
        (6, "trainer_state.json", "truncated"),
    ],
)
def test_training_goes_on_from_an_older_checkpoint_to_the_same_weights(
    settings, reference, finished, caplog, step, name, damage
):
    """The run was killed after the checkpoint of `step`, which was damaged afterwards."""
    (finished / "training_done.json").unlink()
    keep_checkpoints(finished / "model_ckpt", [kept for kept in (2, 4, 6) if kept <= step])
    DAMAGES[damage](checkpoint_path(finished / "model_ckpt", step) / name)
    with caplog.at_level(logging.INFO):
        train(experiment(settings, finished))
    assert_same(finished, reference)
    assert f"checkpoint-{step}: {name}" in caplog.text and f"resuming from step {step - 2}" in caplog.text


@pytest.mark.parametrize("name", FILES)
def test_killed_inside_a_file_of_a_checkpoint(settings, reference, finished, name):
    (finished / "training_done.json").unlink()
    last = checkpoint_path(finished / "model_ckpt", 6)
    (last / "whole.json").unlink()
    for later in FILES[FILES.index(name) + 1 :]:
        (last / later).unlink()
    DAMAGES["truncated"](last / name)
    shutil.copytree(finished / "model", finished / ".model.part")
    train(experiment(settings, finished))
    assert_same(finished, reference)
    assert not (finished / ".model.part").exists()


@pytest.mark.parametrize("n_bytes", [0, 3_000, 30_000, 70_000, 110_000])
def test_no_room_for_a_checkpoint_or_the_model(settings, reference, tmp_path, n_bytes):
    """Files may not grow beyond a limit, which stops each of the libraries that write, as a full disk does."""
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, largest[1]))
    try:
        with pytest.raises((OSError, SpladeError), match="written|large"):
            train(experiment(settings, tmp_path / "run"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, largest)
    train(experiment(settings, tmp_path / "run"))
    assert_same(tmp_path / "run", reference)


def test_without_any_whole_checkpoint_training_begins_anew(settings, reference, finished, caplog):
    (finished / "training_done.json").unlink()
    for step in (2, 4, 6):
        flip(checkpoint_path(finished / "model_ckpt", step) / "optimizer.pt")
    train(experiment(settings, finished))
    assert_same(finished, reference)
    assert caplog.text.count("optimizer.pt is damaged; it is passed over") == 3


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_model_is_not_loaded(settings, finished, name, damage):
    DAMAGES[damage](finished / "model" / name)
    with pytest.raises(ModelError, match=f"model/{name} .*give the training command again") as caught:
        load_for_inference(experiment(settings, finished))
    assert str(finished) in str(caught.value)


def test_a_damaged_model_is_made_anew_from_its_checkpoints(settings, reference, finished, caplog):
    flip(finished / "model" / "model.safetensors")
    train(experiment(settings, finished))
    assert_same(finished, reference)
    assert "model/model.safetensors is damaged; it is made anew" in caplog.text
    load_for_inference(experiment(settings, finished))


def test_a_model_of_an_earlier_version_has_no_checksums_and_loads(settings, finished):
    record = json.loads((finished / "training_done.json").read_text())
    del record["files"]
    (finished / "training_done.json").write_text(json.dumps(record))
    load_for_inference(experiment(settings, finished))
    shutil.rmtree(finished / "model")
    with pytest.raises(ModelError, match="no trained model|has not ended"):
        load_for_inference(experiment(settings, finished))


@pytest.mark.parametrize(
    "text", ["", "[]", "5", "{", '{"settings": 5}', '{"settings": {}, "files": [1]}', '{"result": "good"}', "\0"]
)
@pytest.mark.parametrize("action", [train, load_for_inference])
def test_a_broken_record_of_the_end(settings, finished, action, text):
    (finished / "training_done.json").write_text(text)
    with pytest.raises((ModelError, ConfigError), match="training_done.json.*remove this file"):
        action(experiment(settings, finished))


@pytest.mark.parametrize("result", [{}, {"steps": 6}, {"steps": 6, "wrong": 1}])
def test_a_broken_result_of_the_end(settings, finished, result):
    record = json.loads((finished / "training_done.json").read_text())
    (finished / "training_done.json").write_text(json.dumps(record | {"result": result}))
    with pytest.raises(ModelError, match="training_done.json.*remove this file"):
        train(experiment(settings, finished))


@pytest.mark.parametrize("text", ["", "[]", "null", "{"])
def test_broken_settings_of_an_interrupted_run(settings, finished, text):
    (finished / "training_done.json").unlink()
    (finished / "model_ckpt" / "settings.json").write_text(text)
    with pytest.raises((ModelError, ConfigError, ValueError), match="settings.json"):
        train(experiment(settings, finished))


def test_an_overwrite_that_is_killed_leaves_no_finished_model(settings, finished):
    """The old model would pass for one of the new settings, or of the old ones although its checkpoints are gone."""
    new = experiment(settings, finished, **{"config.lr": 1e-4, "config.overwrite": True})
    folder = RunFolder(new)
    assert folder.outcome() is None
    assert folder.start() is None
    assert not (finished / "training_done.json").exists() and complete_steps(finished / "model_ckpt") == []
    for settings_of in (new, experiment(settings, finished)):
        with pytest.raises(ModelError, match="training has not ended"):
            load_for_inference(settings_of)


def test_a_start_without_checkpoints_does_not_block_the_corrected_command(settings, tmp_path):
    """A run that ends before its first checkpoint has nothing to lose."""
    wrong = RunFolder(experiment(settings, tmp_path / "run", **{"config.lr": 0.5}))
    assert wrong.outcome() is None and wrong.start() is None
    corrected = RunFolder(experiment(settings, tmp_path / "run"))
    assert corrected.outcome() is None and corrected.start() is None
    write_checkpoint(tmp_path / "run" / "model_ckpt", 2)
    assert corrected.start() == 2
    with pytest.raises(ConfigError, match="config.lr was 0.005, is 0.5"):
        wrong.outcome()
