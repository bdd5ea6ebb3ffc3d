"""How long training takes and how large its batches are."""

from contextlib import nullcontext

import pytest
import yaml

from splade.config import compose_experiment
from splade.config.schema import RunConfig
from splade.errors import ConfigError
from splade.tasks.train import train
from splade.training.schedule import Schedule, schedule_of


def test_steps_warmup_and_batch_as_given():
    run = RunConfig(nb_iterations=100, warmup_steps=0, train_batch_size=16)
    assert schedule_of(run, n_examples=7) == Schedule(100, 0, 16)


@pytest.mark.parametrize(
    ("epochs", "accumulation", "steps", "warmup"),
    [(5, 1, 502_939, 5030), (0.5, 1, 50_294, 503), (1, 4, 25_147, 252), (1e-9, 1, 1, 1)],
)
def test_epochs_and_ratio_are_rounded_up(epochs, accumulation, steps, warmup):
    run = RunConfig(
        nb_iterations=None,
        nb_epochs=epochs,
        warmup_steps=None,
        warmup_ratio=0.01,
        train_batch_size=None,
        per_device_train_batch_size=5,
        gradient_accumulation_steps=accumulation,
    )
    assert schedule_of(run, n_examples=502_939) == Schedule(steps, warmup, 5)


def test_batches_of_several_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    each = RunConfig(train_batch_size=None, per_device_train_batch_size=20, nb_iterations=None, nb_epochs=1)
    assert schedule_of(each, n_examples=160) == Schedule(2, 6000, 80)
    assert schedule_of(RunConfig(train_batch_size=80), n_examples=160).batch_size == 80
    with pytest.raises(ConfigError, match="cannot be divided among 4"):
        schedule_of(RunConfig(train_batch_size=81), n_examples=160)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nb_epochs": 2}, "config.nb_iterations=150000 and config.nb_epochs=2 both"),
        ({"nb_iterations": None}, "no value for config.nb_iterations, nor for config.nb_epochs"),
        ({"warmup_ratio": 0.1}, "config.warmup_steps=6000 and config.warmup_ratio=0.1 both"),
        ({"per_device_train_batch_size": 5}, "both"),
        ({"train_batch_size": None}, "nor for config.per_device_train_batch_size"),
    ],
)
def test_one_of_each_two_is_given(changes, message):
    with pytest.raises(ConfigError, match=message):
        schedule_of(RunConfig(**changes), n_examples=10)


def test_a_run_in_epochs(tiny_model, tmp_path, monkeypatch):
    """480 toy triplets, 32 of them held out: a 56th of an epoch is one step of 8."""
    settings = {
        "init_dict.model_type_or_dir": tiny_model(),
        "config.checkpoint_dir": tmp_path,
        "config.nb_iterations": "null",
        "config.nb_epochs": 3 / 56,
        "config.warmup_steps": "null",
        "config.warmup_ratio": 0.5,
        "config.train_batch_size": "null",
        "config.per_device_train_batch_size": 8,
        "config.max_length": 16,
    }
    experiment = compose_experiment("config_default", [f"{name}={value}" for name, value in settings.items()])
    assert train(experiment).steps == 3
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())["config"]
    assert (saved["train_batch_size"], saved["per_device_train_batch_size"]) == (8, None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("splade.tasks.train.working_together", nullcontext)
    monkeypatch.setattr("splade.training.run.on_first_process", lambda function: function())
    with pytest.raises(ConfigError, match="train_batch_size was 8, is 16"):
        train(experiment)
