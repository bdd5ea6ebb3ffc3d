"""What the objective learns while it trains, and that a run which was interrupted goes on with it."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from splade.config import compose_experiment
from splade.tasks.train import train
from splade.training.trainer import OBJECTIVE_FILE

LEARNING = "{DF: {reg: DF_FLOPS, lambda_d: 0.5}, FLOPS: {lambda_q: 0.1, target_terms: 30}}"


@pytest.fixture(scope="module")
def model_folder(tiny_model):
    """A tiny random model."""
    return tiny_model()


@pytest.fixture
def run(model_folder):
    """Train six steps into a folder."""

    def start(folder, **changes):
        settings = {
            "init_dict.model_type_or_dir": model_folder,
            "config.checkpoint_dir": folder,
            "config.nb_iterations": 6,
            "config.warmup_steps": 0,
            "config.lr": 1e-3,
            "config.train_batch_size": 4,
            "config.max_length": 16,
            "config.record_frequency": 2,
            "config.train_monitoring_freq": 1,
            "data.VALIDATION_SIZE_FOR_LOSS": 0,
        }
        train(compose_experiment("config_default", [f"{name}={value}" for name, value in (settings | changes).items()]))
        return load_file(folder / "model" / "model.safetensors")

    return start


def test_interrupted_runs_go_on_with_what_regularisers_have_learned(run, tmp_path):
    whole = run(tmp_path / "whole", **{"config.regularizer": LEARNING})
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / "training_done.json").unlink()
    for step in (4, 6):
        shutil.rmtree(tmp_path / "cut" / "model_ckpt" / f"checkpoint-{step}")
    settings = tmp_path / "cut" / "model_ckpt" / "settings.json"
    settings.write_text(settings.read_text().replace(str(tmp_path / "whole"), str(tmp_path / "cut")))
    resumed = run(tmp_path / "cut", **{"config.regularizer": LEARNING})
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    learned = load_file(tmp_path / "cut" / "model_ckpt" / "checkpoint-6" / OBJECTIVE_FILE)
    assert set(learned) == {"DF/frequencies.shares", "DF/frequencies.n_batches", "FLOPS/controller.state"}
    assert learned["DF/frequencies.n_batches"] == 6
    rows = (tmp_path / "cut" / "training_perf.txt").read_text().splitlines()
    assert len(rows) == 7 and "lambda_FLOPS" in rows[0].split(",")
