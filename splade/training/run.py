"""One training run: what the configuration names is put together, trained, and saved as a model."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import set_seed

from splade.config.jobs import Figures
from splade.config.record import save_config, save_record
from splade.config.schema import Experiment
from splade.distributed import first_process_first, n_processes, on_first_process, on_one_machine, process_rank
from splade.encoding.lengths import settle_max_length
from splade.errors import ModelError
from splade.losses import WeightedLoss, needs_idf, parse_regularizers
from splade.models.adapters import add_adapters, merge_adapters
from splade.models.load import build_splade
from splade.models.save import DONE_FILE, save_splade
from splade.models.splade import Splade
from splade.models.token_idf import token_weights
from splade.training.collapse_check import check_trained
from splade.training.collator import Collator
from splade.training.data import TrainingData, load_training_data
from splade.training.objective import Objective
from splade.training.run_folder import RunFolder
from splade.training.schedule import with_global_batch
from splade.training.trainer import SpladeTrainer
from splade.training.unused import freeze_unused
from splade.training.validation import Validation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """A finished training run.

    Attributes:
        steps: optimiser steps done.
        best_step: step of the checkpoint that was kept as the model.
        best: value of `monitoring_ckpt` at that step, or None without validation.
        monitored: name of that value.
        kept: whether that is the `best` or the `last` one.
        report: the size of the training set and what was left out of it, a line each.
    """

    folder: Path
    steps: int
    best_step: int
    best: float | None
    monitored: str
    report: str
    kept: str = "best"

    def summary(self) -> str:
        """Return what was trained, on what, and where it is."""
        best = "" if self.best is None else f", {self.kept} {self.monitored} {self.best:.4f} at step {self.best_step}"
        lines = [f"trained {self.steps} steps{best}", *self.report.splitlines(), f"model in {self.folder / 'model'}"]
        return "\n  ".join(lines)

    def figures(self) -> list[Figures]:
        """Return the value that chose the checkpoint."""
        return [] if self.best is None else [Figures(metrics={f"best {self.monitored}": self.best})]


def train_model(experiment: Experiment) -> TrainResult:
    """Train a model and save it in `config.checkpoint_dir`; a run that is complete is left as it is.

    An interrupted run resumes from its last complete checkpoint and ends with the weights of an uninterrupted one.
    """

    def check(trainer: SpladeTrainer) -> None:
        regularizers = trainer.objective.regularizers
        check_trained(trainer.splade, trainer.sampler, experiment.config, trainer.state.global_step, regularizers)

    def save(trainer: SpladeTrainer, folder: Path) -> None:
        if experiment.init_dict.lora.rank is not None and experiment.init_dict.lora.save == "merged":
            for language_model in trainer.splade.trained_language_models():
                merge_adapters(language_model)
        save_splade(trainer.splade, folder, trainer.collator.max_length)

    return run_training(experiment, "train", prepare_training, check, save)


def run_training(
    experiment: Experiment,
    task: str,
    prepare: Callable[[Experiment], tuple[SpladeTrainer, TrainingData]],
    check: Callable[[SpladeTrainer], None],
    save: Callable[[SpladeTrainer, Path], None],
) -> TrainResult:
    """Train what `prepare` puts together, resuming where an earlier run was; `check` it, `save` it in the folder."""
    experiment = with_global_batch(experiment)
    folder = RunFolder(experiment)
    finished = on_first_process(folder.outcome)
    if finished is not None:
        logger.info("%s is already trained with these settings: nothing to do", folder.path)
        try:
            return TrainResult(folder.path, **finished)
        except TypeError as error:
            raise ModelError(
                f"{folder.path / DONE_FILE}: not what training writes ({error}); remove this file"
            ) from error
    trainer, data = prepare(experiment)
    logger.info("%s", describe_training(experiment, data, trainer.collator.max_length))
    schedule = data.schedule
    if schedule.warmup_steps >= schedule.steps > 1 and process_rank() == 0:
        logger.warning(
            "the learning rate grows for %d steps, and training has only %d: it ends before it reaches config.lr; "
            "config.warmup_ratio=0.1 makes the warm-up a share of training",
            *(schedule.warmup_steps, schedule.steps),
        )
    step = on_first_process(folder.start)
    if process_rank() == 0:
        save_config(experiment, folder.path)
        save_record(experiment, folder.path, task)
    if step is not None:
        logger.info("resuming from step %d", step)
    trainer.train_from(step)
    on_first_process(lambda: check(trainer))
    result = TrainResult(
        folder=folder.path,
        steps=trainer.state.global_step,
        best_step=trainer.kept_step,
        best=trainer.kept_value,
        monitored=experiment.config.monitoring_ckpt,
        report=data.report,
        kept="last" if experiment.config.overwrite_final else "best",
    )

    def finish() -> None:
        save(trainer, folder.path)
        folder.finish({name: value for name, value in asdict(result).items() if name != "folder"})

    on_first_process(finish)
    return result


def describe_training(experiment: Experiment, data: TrainingData, max_length: int) -> str:
    """Return in a line what is trained, how long, and towards what."""
    run, schedule = experiment.config, data.schedule
    passes = schedule.steps * run.gradient_accumulation_steps * schedule.batch_size / len(data.sampler.rows)
    loss = WeightedLoss.parse(run.loss, run.augment_pairs == "in_batch_negatives")
    terms = [
        f"{one.name} (queries {one.lambda_q or 0:g}, documents {one.lambda_d or 0:g}, T {one.growth_steps or 0})"
        for one in parse_regularizers(run.regularizer)
    ]
    return (
        f"training {experiment.init_dict.model_type_or_dir}: {schedule.steps} steps of {schedule.batch_size} queries "
        f"({passes:.3g} passes over the examples), lr {run.lr:g}, warm-up {schedule.warmup_steps}, texts of up to "
        f"{max_length} tokens; {' + '.join([str(loss), *terms])}"
    )


def prepare_training(experiment: Experiment) -> tuple[SpladeTrainer[Splade], TrainingData]:
    """Open the data, build the model, and return the trainer of both, nothing of it trained yet.

    Raises:
        ConfigError: settings that contradict each other, or that this machine or these processes cannot run.
        DataError: wrong files.
        ModelError: a model that cannot be loaded.
    """
    run = experiment.config
    loss = WeightedLoss.parse(run.loss, run.augment_pairs == "in_batch_negatives")
    parse_regularizers(run.regularizer)  # what is wrong with them is said before the data is read
    set_seed(run.seed)
    data = first_process_first(lambda: load_training_data(experiment, loss))
    model = _build_model(experiment)
    idf = None
    if needs_idf(run.regularizer):
        idf = token_weights(experiment.init_dict, model.tokenizer, model.vocab_size)
    objective = Objective(loss, parse_regularizers(run.regularizer, idf), run.encode_at_a_time)
    if experiment.init_dict.lora.rank is not None:
        for language_model in model.trained_language_models():
            add_adapters(language_model, experiment.init_dict.lora)
    if run.gradient_checkpointing:
        model.checkpoint_activations()
    max_length = settle_max_length(run.max_length, model)
    settings = model.document_settings, model.query_settings
    collator = Collator(model.tokenizer, model.query_tokenizer, max_length, *settings)
    validation = None
    if data.held_out is not None or data.full_ranking is not None:
        validation = Validation(
            data.held_out,
            collator,
            data.full_ranking,
            max_length,
            run.eval_batch_size,
            torch.float16 if run.fp16 else torch.bfloat16 if run.bf16 else None,
            None if on_one_machine() else Path(str(run.checkpoint_dir)),
        )
    if n_processes() > 1:
        freeze_unused_parameters(model)
    return SpladeTrainer(run, data.schedule, model, data.sampler, collator, objective, validation), data


def _build_model(experiment: Experiment) -> Splade:
    def build() -> Splade:
        return build_splade(experiment.init_dict, experiment.config, to_train=True)

    # One process counts the tokens of the collection, and the others find the result.
    return build() if experiment.init_dict.idf_collection is None else first_process_first(build)


def freeze_unused_parameters(model: Splade) -> None:
    """Freeze the parameters of a model on which no vector depends, such as a pooler."""
    ids = torch.arange(8, device=next(model.parameters()).device).unsqueeze(0)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    freeze_unused(model, {"queries": batch, "documents": batch})
