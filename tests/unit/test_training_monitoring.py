"""What training records, which checkpoints it keeps, and when it stops by itself."""

import csv

import pytest
from safetensors.torch import load_file

from splade.config import compose_experiment
from splade.errors import ConfigError
from splade.tasks.train import train
from splade.training.callbacks import PerformanceFiles, to_csv
from splade.training.checkpoints import checkpoint_path, complete_steps
from splade.training.validation import Validation


@pytest.fixture
def settings(tiny_model, tmp_path):
    """Overrides of a run of twelve steps with six validations."""
    return {
        "init_dict.model_type_or_dir": tiny_model(),
        "config.checkpoint_dir": tmp_path,
        "config.nb_iterations": 12,
        "config.warmup_steps": 1,
        "config.train_batch_size": 4,
        "config.max_length": 16,
        "config.record_frequency": 2,
        "config.train_monitoring_freq": 3,
        "data.VALIDATION_SIZE_FOR_LOSS": 8,
    }


def run(settings, **changes):
    return train(compose_experiment("config_default", [f"{k}={v}" for k, v in (settings | changes).items()]))


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def measured(monkeypatch):
    """Let validation measure given values, the first of them before training."""

    def measure(name, values):
        remaining = iter(values)
        monkeypatch.setattr(Validation, "__call__", lambda *_: {name: next(remaining)})

    return measure


def test_best_checkpoint_is_kept_and_becomes_the_model(settings, measured, tmp_path):
    measured("loss", [0.1, 5.0, 1.0, 2.0, 3.0, 4.0, 4.0])
    result = run(settings)
    assert (result.steps, result.best_step, result.best) == (12, 4, 1.0)
    assert complete_steps(tmp_path / "model_ckpt") == [4, 8, 10, 12]
    best = load_file(checkpoint_path(tmp_path / "model_ckpt", 4) / "splade.safetensors")
    last = load_file(checkpoint_path(tmp_path / "model_ckpt", 12) / "splade.safetensors")
    kept = load_file(tmp_path / "model" / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    assert kept[name].equal(best[f"document_encoder.model.{name}"])
    assert not kept[name].equal(last[f"document_encoder.model.{name}"])


@pytest.mark.parametrize(
    ("monitored", "values", "steps", "best_step"),
    [
        ("loss", [0.0, 3.0, 2.0, 2.5, 2.0, 9.0, 9.0], 8, 4),
        ("loss", [0.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 12, 12),
        ("MRR@10", [1.0, 0.1, 0.3, 0.2, 0.2, 0.9, 0.9], 8, 4),
        ("MRR@10", [0.0, 0.1, 0.3, 0.2, 0.4, 0.3, 0.3], 12, 8),
    ],
)
def test_early_stopping(settings, measured, monitored, values, steps, best_step):
    measured(monitored, values)
    changes = {"config.early_stopping": True, "config.patience": 2, "config.monitoring_ckpt": monitored}
    if monitored != "loss":
        toy = "pkg://splade/data/toy"
        changes["data.VALIDATION_FULL_RANKING.D_COLLECTION_PATH"] = f"{toy}/collection"
        changes["data.VALIDATION_FULL_RANKING.Q_COLLECTION_PATH"] = f"{toy}/queries/heldout"
        changes["data.VALIDATION_FULL_RANKING.QREL_PATH"] = f"{toy}/qrels/heldout.json"
    result = run(settings, **changes)
    assert (result.steps, result.best_step, result.best) == (steps, best_step, values[best_step // 2])
    assert result.monitored == monitored


def test_the_last_checkpoint_becomes_the_model_where_that_is_asked_for(settings, measured, tmp_path):
    measured("loss", [0.1, 5.0, 1.0, 2.0, 3.0, 4.0, 4.5])
    result = run(settings, **{"config.overwrite_final": True})
    assert (result.steps, result.best_step, result.best) == (12, 12, 4.5)
    assert "last loss 4.5000 at step 12" in result.summary()
    last = load_file(checkpoint_path(tmp_path / "model_ckpt", 12) / "splade.safetensors")
    kept = load_file(tmp_path / "model" / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    assert kept[name].equal(last[f"document_encoder.model.{name}"])
    with pytest.raises(ConfigError, match=r"config.overwrite_final was True, is False.*config.overwrite=true"):
        run(settings)


def test_early_stopping_by_another_value_than_the_one_that_chooses_the_model(settings, monkeypatch):
    toy = "pkg://splade/data/toy"
    paths = f"{{D_COLLECTION_PATH: {toy}/collection, Q_COLLECTION_PATH: {toy}/queries/heldout, "
    paths += f"QREL_PATH: {toy}/qrels/heldout.json}}"
    values = iter(zip([9, 5, 4, 3, 2, 1, 0], [0, 0.1, 0.3, 0.2, 0.2, 0.9, 0.9], strict=True))
    monkeypatch.setattr(Validation, "__call__", lambda *_: dict(zip(("loss", "MRR@10"), next(values), strict=True)))
    changes = {"config.early_stopping": "MRR@10", "config.patience": 2, "data.VALIDATION_FULL_RANKING": paths}
    result = run(settings, **changes)
    assert (result.steps, result.best_step, result.monitored, result.best) == (8, 8, "loss", 2)


def test_validation_in_pieces_measures_the_same(settings, monkeypatch, tmp_path):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    run(settings, **{"config.checkpoint_dir": whole})
    monkeypatch.setattr("splade.training.validation.TEXTS_AT_ONCE", 3)
    run(settings, **{"config.checkpoint_dir": pieces})
    one, other = rows(whole / "validation_perf.txt"), rows(pieces / "validation_perf.txt")
    for row, same in zip(one, other, strict=True):
        assert {name: float(value) for name, value in same.items()} == pytest.approx(
            {name: float(value) for name, value in row.items()}, rel=1e-5
        )
    kept = [load_file(folder / "model" / "model.safetensors") for folder in (whole, pieces)]
    assert all(kept[0][name].equal(kept[1][name]) for name in kept[0])


def test_without_validation_the_last_weights_are_the_model(settings, tmp_path):
    result = run(settings, **{"data.VALIDATION_SIZE_FOR_LOSS": 0, "config.record_frequency": 5})
    assert (result.steps, result.best_step, result.best) == (12, 12, None)
    assert complete_steps(tmp_path / "model_ckpt") == [5, 10, 12]
    assert rows(tmp_path / "validation_perf.txt") == []


def test_validation_is_a_line_of_the_log(settings, measured, caplog):
    caplog.set_level("INFO", "splade.training.callbacks")
    measured("loss", [4.0, 3.0, 2.0, 1.0, 0.5, 0.25, 0.123456])
    run(settings)
    said = [record.getMessage() for record in caplog.records if record.name == "splade.training.callbacks"]
    assert (said[0], said[-1]) == ("validation at step 0: loss 4", "validation at step 12: loss 0.1235")


def test_tensorboard_holds_the_same_numbers_as_the_files(settings, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(settings)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for group, file in (("train", "training_perf.txt"), ("validation", "validation_perf.txt")):
        table = rows(tmp_path / file)
        for name in table[0].keys() - {"step"}:
            shown = [(event.step, event.value) for event in events.Scalars(f"{group}/{name}")]
            assert shown == [(int(row["step"]), pytest.approx(float(row[name]), rel=1e-5)) for row in table], name
    steps = [int(row["step"]) for row in rows(tmp_path / "training_perf.txt")]
    assert steps == [3, 6, 9, 12]


def test_logged_terms_add_up_to_the_loss(settings, tmp_path):
    run(settings, **{"config.loss": "{InBatchPairwiseNLL: 0.5, Contrastive: 2}", "config.augment_pairs": "null"})
    for row in rows(tmp_path / "training_perf.txt"):
        terms = {name: float(value) for name, value in row.items()}
        ranking = 0.5 * terms["InBatchPairwiseNLL"] + 2 * terms["Contrastive"]
        assert terms["loss"] == pytest.approx(ranking + terms["FLOPS_q"] + terms["FLOPS_d"], rel=1e-4)
        assert terms["sparsity_d"] == pytest.approx(1 - terms["L0_d"] / 400, abs=1e-5)
        assert terms["steps_per_second"] > 0


def test_validation_loss_has_the_final_regularisation(settings, tmp_path):
    """Before the first step lambda is zero in training; in validation it is what it will be in the end."""
    run(settings, **{"config.nb_iterations": 2, "config.regularizer.FLOPS.T": 1000})
    first = {name: float(value) for name, value in rows(tmp_path / "validation_perf.txt")[0].items()}
    assert first["FLOPS_q"] == pytest.approx(1e-2 * first["flops_q"], rel=1e-4) and first["FLOPS_q"] > 0


class State:
    """What a callback sees of a trainer."""

    is_world_process_zero = True

    def __init__(self, *log_history):
        self.log_history = list(log_history)


def test_file_is_made_anew_when_training_goes_on_and_when_a_column_appears(tmp_path):
    path = tmp_path / "validation_perf.txt"
    path.write_text("rows of steps that will be done again, the last one half-writ")
    first, training, second, third = (
        {"step": 2, "eval_loss": 1.0},
        {"step": 3, "loss": 7.0},
        {"step": 4, "eval_loss": 2.0, "epoch": 0.5},
        {"step": 6, "eval_MRR@10": 3.0},
    )
    file = PerformanceFiles(tmp_path)
    file.on_train_begin(None, State(first, training), None)
    assert path.read_text() == "step,loss\n2,1.0\n"
    file.on_log(None, State(first, training), None)
    file.on_log(None, State(first, training, second), None)
    assert path.read_text() == "step,loss\n2,1.0\n4,2.0\n"
    file.on_log(None, State(first, training, second, third), None)
    assert path.read_text() == to_csv([first, second, third])
    assert (tmp_path / "training_perf.txt").read_text() == to_csv([training])
