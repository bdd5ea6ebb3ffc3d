"""Training on a tiny random model: data order, resuming, validation, and what goes wrong early."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from splade.config import compose_experiment
from splade.datasets.training_sets import TrainingExample
from splade.errors import ConfigError, ModelError, SpladeError
from splade.models.load import load_for_inference
from splade.tasks.train import train
from splade.training.callbacks import to_csv
from splade.training.checkpoints import checkpoint_path, complete_steps, keep_checkpoints, mark_complete
from splade.training.sampler import TrainingSampler, split_rows

TOY = "pkg://splade/data/toy"
FULL_RANKING = (
    f"{{D_COLLECTION_PATH: {TOY}/collection, Q_COLLECTION_PATH: {TOY}/queries/heldout, "
    f"QREL_PATH: {TOY}/qrels/heldout.json, TOP_K: 20}}"
)


@pytest.fixture(scope="module")
def model_folder(tiny_model):
    """A tiny random model."""
    return tiny_model()


@pytest.fixture
def settings(model_folder, tmp_path):
    """Overrides of a run of six steps."""
    return {
        "init_dict.model_type_or_dir": model_folder,
        "config.checkpoint_dir": tmp_path / "checkpoint",
        "config.nb_iterations": 6,
        "config.warmup_steps": 1,
        "config.lr": 1e-3,
        "config.train_batch_size": 4,
        "config.max_length": 16,
        "config.record_frequency": 2,
        "config.train_monitoring_freq": 1,
        "data.VALIDATION_SIZE_FOR_LOSS": 8,
    }


def experiment(settings, **changes):
    overrides = settings | changes
    return compose_experiment("config_default", [f"{name}={value}" for name, value in overrides.items()])


def rows(path):
    return list(csv.DictReader(path.open()))


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


class Numbers:
    """A training set whose examples are their numbers."""

    def __len__(self):
        return 10

    def example(self, index, draw=0):
        return TrainingExample(str(index), str(draw), [])


def test_stream_is_a_permutation_of_each_pass():
    sampler = TrainingSampler(Numbers(), np.arange(10), seed=1, length=30)
    passes = [[sampler[p].query for p in range(start, start + 10)] for start in (0, 10, 20)]
    assert all(sorted(order) == [str(i) for i in range(10)] for order in passes)
    assert passes[0] != passes[1] != passes[2]
    assert [sampler[p].positive for p in (0, 10, 29)] == ["0", "1", "2"]


def test_stream_does_not_depend_on_what_was_read_before():
    first, second = (TrainingSampler(Numbers(), np.arange(10), seed=1, length=30) for _ in range(2))
    forwards = [first[p].query for p in range(30)]
    assert [second[p].query for p in reversed(range(30))] == forwards[::-1]
    other_seed = TrainingSampler(Numbers(), np.arange(10), seed=2, length=30)
    assert [other_seed[p].query for p in range(30)] != forwards


def test_held_out_rows_are_not_trained_on():
    training, held_out = split_rows(100, 10, seed=3)
    assert len(held_out) == 10 and sorted([*training, *held_out]) == list(range(100))


def test_outputs_of_a_run(settings, tmp_path):
    full = experiment(settings, **{"data.VALIDATION_FULL_RANKING": FULL_RANKING})
    result = train(full)
    folder = tmp_path / "checkpoint"
    assert result.steps == 6 and result.best is not None
    training, validation = rows(folder / "training_perf.txt"), rows(folder / "validation_perf.txt")
    assert [row["step"] for row in training] == ["1", "2", "3", "4", "5", "6"]
    assert {
        "loss",
        "InBatchPairwiseNLL",
        "FLOPS_q",
        "FLOPS_d",
        "L0_q",
        "L0_d",
        "sparsity_d",
        "steps_per_second",
    } <= set(training[0])
    assert [row["step"] for row in validation] == ["0", "2", "4", "6"]
    assert {"loss", "MRR@10", "recall@100", "ranking_flops"} <= set(validation[0])
    best = min(validation[1:], key=lambda row: float(row["loss"]))
    assert int(best["step"]) == result.best_step and float(best["loss"]) == pytest.approx(result.best)
    assert complete_steps(folder / "model_ckpt") == [2, 4, 6]
    record = json.loads((folder / "run_info" / "train.json").read_text())
    assert record["versions"]["torch"] and record["config"]["config"]["nb_iterations"] == 6
    assert load_for_inference(full).vocab_size == 400


def test_training_lowers_the_loss(settings, tmp_path):
    changes = {
        "config.nb_iterations": 30,
        "config.lr": 5e-3,
        "config.regularizer": "null",
        "config.train_batch_size": 8,
    }
    train(experiment(settings, **changes, **{"config.record_frequency": 10}))
    losses = [float(row["loss"]) for row in rows(tmp_path / "checkpoint" / "validation_perf.txt")]
    assert min(losses[1:]) < 0.9 * losses[0]


def test_same_seed_same_weights_and_other_seed_other_weights(settings, tmp_path):
    folders = [tmp_path / name for name in "abc"]
    for folder, seed in zip(folders, (1, 1, 2), strict=True):
        train(experiment(settings, **{"config.checkpoint_dir": folder, "config.seed": seed}))
    a, b, c = (weights(folder) for folder in folders)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_finished_run_is_left_alone_and_other_settings_are_refused(settings, tmp_path):
    first = train(experiment(settings))
    before = (tmp_path / "checkpoint" / "model" / "model.safetensors").stat().st_mtime_ns
    assert train(experiment(settings)) == first
    assert (tmp_path / "checkpoint" / "model" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="config.lr was 0.001, is 0.002.*config.overwrite=true"):
        train(experiment(settings, **{"config.lr": 2e-3}))
    replaced = train(experiment(settings, **{"config.lr": 2e-3, "config.overwrite": True}))
    assert replaced.best != first.best


def test_half_written_checkpoints_do_not_count(tmp_path):
    for step in (2, 4, 10):
        checkpoint_path(tmp_path, step).mkdir()
    assert complete_steps(tmp_path / "nothing") == [] == complete_steps(tmp_path)
    mark_complete(checkpoint_path(tmp_path, 2)), mark_complete(checkpoint_path(tmp_path, 10))
    assert complete_steps(tmp_path) == [2, 10]
    keep_checkpoints(tmp_path, [10])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-10"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config.loss": "DistilMarginMSE", "config.augment_pairs": "null"}, "needs teacher scores"),
        ({"config.train_batch_size": 1}, "at least 2"),
        ({"config.n_negatives": 4}, "hard_negatives"),
        ({"config.monitoring_ckpt": "MRR@10"}, "not measured"),
        ({"config.early_stopping": True, "data.VALIDATION_SIZE_FOR_LOSS": 0}, "needs validation"),
        ({"config.early_stopping": "MRR@10"}, "early_stopping=MRR@10 is not measured here: true, false or one of loss"),
        ({"config.regularizer": "eval_only"}, "nothing to train"),
        ({"data.VALIDATION_FULL_RANKING": "{QREL_PATH: x}"}, "D_COLLECTION_PATH"),
    ],
)
def test_what_cannot_work_is_an_error_before_the_first_step(settings, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        train(experiment(settings, **changes))
    assert not (tmp_path / "checkpoint" / "model").exists()


def test_loss_that_is_not_a_number_ends_training_with_its_step(settings):
    with pytest.raises(SpladeError, match="the loss is (nan|inf) at step"):
        train(experiment(settings, **{"config.lr": 1e30, "config.max_grad_norm": 0, "config.warmup_steps": 0}))


def test_fp16_changes_nothing_on_a_cpu(settings, tmp_path):
    train(experiment(settings))
    half = experiment(settings, **{"config.fp16": True, "config.checkpoint_dir": tmp_path / "half"})
    train(half)
    expected, found = weights(tmp_path / "checkpoint"), weights(tmp_path / "half")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    half.init_dict.fp16 = True
    assert load_for_inference(half).document_encoder.precision is None


def test_bf16_and_accumulation_and_checkpointing_train(settings):
    changes = {"config.bf16": True, "config.gradient_accumulation_steps": 2, "config.gradient_checkpointing": True}
    changes["data.VALIDATION_FULL_RANKING"] = FULL_RANKING
    result = train(experiment(settings, **changes))
    assert result.steps == 6 and math.isfinite(result.best)


@pytest.mark.parametrize(
    ("changes", "trained", "frozen"),
    [
        ({"config.matching_type": "splade_doc"}, "document_encoder", None),
        ({"config.matching_type": "splade_idf"}, "query_encoder", None),
        ({"init_dict.freeze_d_model": True, "separate": True}, "query_encoder", "document_encoder"),
    ],
)
def test_other_models_train(settings, tiny_model, tmp_path, changes, trained, frozen):
    changes = dict(changes)
    if changes.pop("separate", False):
        changes["init_dict.model_type_or_dir_q"] = tiny_model(seed=1)
    full = experiment(settings, **changes)
    train(full)
    from splade.models.load import build_splade

    before, after = build_splade(full.init_dict, full.config), load_for_inference(full)

    def changed(name):
        pairs = zip(getattr(before, name).parameters(), getattr(after, name).parameters(), strict=True)
        return any(not torch.equal(a, b) for a, b in pairs)

    assert changed(trained)
    if frozen is not None:
        assert not changed(frozen)


def test_a_model_gets_another_activation_by_training_only(settings, tmp_path):
    train(experiment(settings))
    again = {"init_dict.model_type_or_dir": tmp_path / "checkpoint" / "model", "init_dict.activation": "log1p_relu"}
    with pytest.raises(ModelError, match="was trained with the activation 'relu'"):
        load_for_inference(experiment(settings, **again, **{"config.pretrained_no_yamlconfig": True}))
    full = experiment(settings, **again, **{"config.checkpoint_dir": tmp_path / "second"})
    train(full)
    model = load_for_inference(full)
    assert model.document_encoder.activation == model.query_encoder.activation == "log1p_relu"
    pooling = json.loads((tmp_path / "second" / "model" / "1_SpladePooling" / "config.json").read_text())
    assert pooling["activation_function"] == "log1p_relu"


def test_csv_of_rows_with_different_columns():
    text = to_csv([{"step": 1, "eval_loss": 0.5, "epoch": 0.1}, {"step": 2, "eval_MRR@10": 1.0}])
    assert text == "step,MRR@10,loss\n1,,0.5\n2,1.0,\n"
