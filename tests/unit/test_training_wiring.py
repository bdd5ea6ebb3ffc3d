"""What the optimiser, the scheduler, the regularisers and validation really get of the configuration, step by step."""

import csv
import math
from dataclasses import replace
from functools import cached_property

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from splade.config import compose_experiment
from splade.config.choose import available_configs, conf_folder
from splade.errors import SpladeError
from splade.training.run import prepare_training
from splade.training.schedule import schedule_of
from splade.training.trainer import training_arguments

LR, WARMUP, STEPS, DECAY = 1e-3, 3, 8, 0.3


@pytest.fixture
def prepare(tiny_model, tmp_path):
    """Prepare a run of a tiny model of which nothing is trained yet."""

    def make(dropout=0.0, **changes):
        settings = {
            "init_dict.model_type_or_dir": tiny_model(dropout=dropout),
            "config.checkpoint_dir": tmp_path / "checkpoint",
            "config.nb_iterations": STEPS,
            "config.warmup_steps": WARMUP,
            "config.lr": LR,
            "config.weight_decay": DECAY,
            "config.train_batch_size": 4,
            "config.max_length": 16,
            "config.record_frequency": 100,
            "config.train_monitoring_freq": 1,
            "data.VALIDATION_SIZE_FOR_LOSS": 0,
        }
        overrides = [f"{name}={value}" for name, value in (settings | changes).items()]
        return prepare_training(compose_experiment("config_default", overrides))[0]

    return make


class Watch(TrainerCallback):
    """Notes what the optimiser has in its groups, and the gradients, whenever it takes a step."""

    def __init__(self, trainer):
        self.learning_rates, self.decays, self.gradients = [], [], []
        self.names = {parameter: name for name, parameter in trainer.splade.named_parameters()}
        trainer.add_callback(self)

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        torch.optim.Optimizer.register_step_pre_hook(getattr(optimizer, "optimizer", optimizer), self.note)

    def note(self, optimizer, *_):
        groups = optimizer.param_groups
        self.learning_rates.append({group["lr"] for group in groups})
        self.decays.append({self.names[p]: group["weight_decay"] for group in groups for p in group["params"]})
        self.gradients.append({name: None if p.grad is None else p.grad.clone() for p, name in self.names.items()})


def norm(gradients):
    return math.sqrt(sum(float(grad.square().sum()) for grad in gradients.values() if grad is not None))


def test_learning_rate_warms_up_and_falls_to_zero(prepare):
    trainer = prepare()
    watch = Watch(trainer)
    trainer.train_from(None)
    rising = [LR * step / WARMUP for step in range(WARMUP)]
    falling = [LR * (STEPS - step) / (STEPS - WARMUP) for step in range(WARMUP, STEPS)]
    assert [rate for (rate,) in watch.learning_rates] == pytest.approx(rising + falling)


def test_matrices_decay_and_nothing_else(prepare):
    trainer = prepare(**{"config.nb_iterations": 1})
    watch = Watch(trainer)
    trainer.train_from(None)
    assert isinstance(getattr(trainer.optimizer, "optimizer", trainer.optimizer), torch.optim.AdamW)
    (decays,) = watch.decays
    assert set(decays) == set(watch.names.values())
    for name, decay in decays.items():
        spared = name.endswith("bias") or "LayerNorm" in name
        assert decay == (0.0 if spared else DECAY), name


def test_weights_without_a_gradient_shrink_as_said(prepare):
    """The pooling of a vector with no positive logit has no gradient: weight decay is all that moves the weights."""
    trainer = prepare(**{"config.nb_iterations": 3, "config.warmup_steps": 0, "config.regularizer": "null"})
    model = trainer.splade.document_encoder.model
    model.cls.predictions.bias.data.fill_(-100.0)
    weight = model.bert.encoder.layer[0].output.dense.weight
    before = weight.detach().clone()
    trainer.train_from(None)
    factor = math.prod(1 - LR * (3 - step) / 3 * DECAY for step in range(3))
    torch.testing.assert_close(weight.detach(), factor * before)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_step_has_the_mean_gradient_of_its_batches(prepare, accumulation):
    changes = {"config.gradient_accumulation_steps": accumulation, "config.max_grad_norm": 0, "config.nb_iterations": 2}
    trainer, untrained = prepare(**changes), prepare(**changes)
    watch = Watch(trainer)
    for batch in range(accumulation):
        examples = [untrained.sampler[position] for position in range(4 * batch, 4 * batch + 4)]
        loss, _ = untrained.objective(untrained.splade.train(), untrained.data_collator(examples), 0)
        (loss / accumulation).backward()
    trainer.train_from(None)
    assert len(watch.gradients) == 2 and len(trainer.sampler) == 2 * 4 * accumulation
    for name, parameter in untrained.splade.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(watch.gradients[0][name], parameter.grad, msg=name)


def test_gradients_are_clipped(prepare):
    norms = []
    for longest in (0, 1e-3):
        trainer = prepare(**{"config.max_grad_norm": longest, "config.nb_iterations": 1})
        watch = Watch(trainer)
        trainer.train_from(None)
        norms.append(norm(watch.gradients[0]))
    assert norms[0] > 0.01 and norms[1] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_lambda_grows_with_the_square_of_the_step(prepare, tmp_path, accumulation):
    regularizer = "{FLOPS: {lambda_q: 0.1, lambda_d: 0.2, T: 4}}"
    changes = {"config.regularizer": regularizer, "config.gradient_accumulation_steps": accumulation}
    prepare(**changes).train_from(None)
    with (tmp_path / "checkpoint" / "training_perf.txt").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    for side, weight in (("q", 0.1), ("d", 0.2)):
        grown = [row[f"FLOPS_{side}"] / row[f"flops_{side}"] / weight for row in rows]
        expected = [min(1.0, step / 4) ** 2 for step in range(STEPS)]
        if side == "d":  # the mean of positives and negatives is not what is monitored: all documents
            assert [value > 0 for value in grown] == [value > 0 for value in expected]
        else:
            assert grown == pytest.approx(expected, rel=1e-4)
        assert all(row["loss"] > row["InBatchPairwiseNLL"] for row in rows[1:])


def test_regularisers_are_in_the_gradient(prepare):
    found = []
    for scale in (1.0, 1e4):
        regularizer = f"{{FLOPS: {{lambda_q: {scale}, lambda_d: {scale}, T: 4}}}}"
        changes = {"config.regularizer": regularizer, "config.max_grad_norm": 0, "config.nb_iterations": 2}
        trainer = prepare(**changes, **{"config.lr": 1e-9})
        watch = Watch(trainer)
        trainer.train_from(None)
        found.append([norm(gradients) for gradients in watch.gradients])
    (first, second), (first_large, second_large) = found
    assert first_large == pytest.approx(first) and second_large > 50 * second


def test_dropout_is_on_in_training_and_off_in_validation(prepare):
    trainer = prepare(dropout=0.5, **{"data.VALIDATION_SIZE_FOR_LOSS": 8})
    trainer.splade.train()
    measured = [trainer._validate() for _ in range(2)]
    assert measured[0] == measured[1]
    assert all(part.training for part in trainer.splade.modules())
    examples = [trainer.validation.held_out[row] for row in range(8)]
    batch = trainer.data_collator(examples)
    losses = [float(trainer.compute_loss(trainer.splade, batch)) for _ in range(2)]
    assert losses[0] != losses[1]
    loss, _ = trainer.objective(trainer.splade.eval(), batch, math.inf)
    assert measured[0]["loss"] == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_loss_that_is_no_number_ends_training(prepare, value):
    trainer = prepare()
    trainer.objective = lambda *_: (torch.tensor(value), {"InBatchPairwiseNLL": torch.tensor(value)})
    with pytest.raises(SpladeError, match=rf"the loss is {value} at step 0 \(InBatchPairwiseNLL={value}\)"):
        trainer.compute_loss(trainer.splade, {})


@pytest.mark.parametrize("boundary", ["config.train_monitoring_freq", "config.record_frequency"])
def test_losses_that_are_looked_at_later_end_training_before_anything_is_saved(prepare, tmp_path, boundary):
    """On a GPU nobody waits for the loss of each batch."""
    never = {"config.train_monitoring_freq": 100, "config.record_frequency": 100}
    trainer = prepare(**never | {boundary: 4})
    trainer.losses.look_every = 100
    objective, batches = trainer.objective, []

    def broken(*args):
        batches.append(args)
        loss, terms = objective(*args)
        return (loss * math.nan, terms) if len(batches) == 2 else (loss, terms)

    trainer.objective = broken
    with pytest.raises(SpladeError, match="the loss is nan at step 1 "):
        trainer.train_from(None)
    assert len(batches) == 4 and not list((tmp_path / "checkpoint").rglob("*.safetensors"))


@pytest.mark.parametrize(("bf16", "expected"), [(False, None), (True, torch.bfloat16)])
def test_validation_has_the_precision_of_training(prepare, bf16, expected):
    trainer = prepare(**{"config.bf16": bf16, "data.VALIDATION_SIZE_FOR_LOSS": 8})
    seen, objective = [], trainer.objective

    def watched(*args, **kwargs):
        seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        return objective(*args, **kwargs)

    trainer.validation(trainer.splade.eval(), watched)
    assert seen == [expected]
    encoder, ids = trainer.splade.document_encoder, torch.arange(2, 12).unsqueeze(0)
    exact = encoder.encode(ids, torch.ones_like(ids)).weights
    encoder.precision = trainer.validation.precision
    found = encoder.encode(ids, torch.ones_like(ids)).weights
    assert (found == exact).all() != bf16 and abs(found - exact).max() < 0.02


@pytest.mark.parametrize("visible", [0, 4])
def test_several_gpus_are_no_reason_for_data_parallel(prepare, monkeypatch, visible):
    """One process trains on one GPU: replicas of the model have no parameters, which the head needs."""
    devices = TrainingArguments._setup_devices.func

    def several(arguments):
        device = devices(arguments)
        arguments._n_gpu = visible
        return device

    setup = cached_property(several)
    setup.__set_name__(TrainingArguments, "_setup_devices")
    monkeypatch.setattr(TrainingArguments, "_setup_devices", setup)
    trainer = prepare()
    assert trainer.args.n_gpu == min(visible, 1) and trainer.args.train_batch_size == 4
    assert not isinstance(trainer._wrap_model(trainer.model), torch.nn.DataParallel)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_validation_that_is_no_number_ends_training(prepare, value):
    """It would be the best for ever: no later value is less than NaN, or than -inf."""
    trainer = prepare(**{"data.VALIDATION_SIZE_FOR_LOSS": 8})
    trainer.validation = lambda *_: {"loss": value, "MRR@10": 0.5}
    with pytest.raises(SpladeError, match=f"validation at step 0 gave loss={value}"):
        trainer.evaluate()


@pytest.mark.parametrize("name", available_configs(conf_folder()))
def test_what_a_preset_says_reaches_the_trainer(name, tmp_path):
    run = replace(compose_experiment(name).config, fp16=False, gradient_accumulation_steps=3, seed=77)
    schedule = schedule_of(run, n_examples=10_000)
    arguments = training_arguments(run, schedule, tmp_path, validates=True)
    said = (run.lr, run.weight_decay, schedule.warmup_steps, schedule.steps, schedule.batch_size, run.max_grad_norm)
    given = (arguments.learning_rate, arguments.weight_decay, arguments.warmup_steps, arguments.max_steps)
    assert (*given, arguments.per_device_train_batch_size, arguments.max_grad_norm) == said
    assert (arguments.gradient_accumulation_steps, arguments.seed) == (3, 77)
    assert (arguments.lr_scheduler_type, arguments.eval_strategy, arguments.save_strategy) == (
        "linear",
        "steps",
        "steps",
    )
    assert arguments.eval_steps == arguments.save_steps == run.record_frequency
    assert arguments.logging_steps == run.train_monitoring_freq
    assert arguments.metric_for_best_model == run.monitoring_ckpt
    assert arguments.greater_is_better == (run.monitoring_ckpt != "loss")
    assert (arguments.bf16, arguments.fp16) == (run.bf16, False)
