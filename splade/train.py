"""Task: train a model."""

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from splade.config import Experiment, main_process, require, run_task
from splade.config.record import save_config, save_record
from splade.errors import ConfigError
from splade.files import read_json, write_json

logger = logging.getLogger(__name__)

# Where things go and how results are looked at does not change what is trained.
NOT_TRAINING = (
    "checkpoint_dir index_dir out_dir overwrite_final index_retrieve_batch_size top_k threshold search_effort "
    "n_threads eval_metric retrieval_name pretrained_no_yamlconfig train_monitoring_freq"
).split()


@dataclass(frozen=True)
class TrainResult:
    """A finished training run.

    Attributes:
        folder: the checkpoint folder.
        steps: optimiser steps done.
        best_step: step of the checkpoint that was kept as the model.
        best: value of `monitoring_ckpt` at that step, or None without validation.
        monitored: name of that value.
        report: what the training set left out.
    """

    folder: Path
    steps: int
    best_step: int
    best: float | None
    monitored: str
    report: str

    def summary(self) -> str:
        """Return what was trained and where it is."""
        best = "" if self.best is None else f", best {self.monitored} {self.best:.4f} at step {self.best_step}"
        return f"trained {self.steps} steps{best}\n  model in {self.folder / 'model'}"


def train(experiment: Experiment) -> TrainResult:
    """Train the model init_dict on data.TRAIN; the best checkpoint becomes config.checkpoint_dir/model.

    An interrupted run goes on after its last whole checkpoint and ends with the weights of an uninterrupted one.
    """
    require(experiment, "config.checkpoint_dir", "init_dict.model_type_or_dir")
    if experiment.config.regularizer == "eval_only":
        raise ConfigError(
            "config.regularizer=eval_only: this configuration is for evaluation, there is nothing to train"
        )
    from splade.losses import WeightedLoss, parse_regularizers

    run, folder = experiment.config, Path(str(experiment.config.checkpoint_dir))
    loss = WeightedLoss.parse(run.loss, run.augment_pairs == "in_batch_negatives")
    regularizers = parse_regularizers(run.regularizer)
    done = _finished(experiment, folder)
    if done is not None:
        return done

    from transformers import set_seed

    from splade.models.build import build_splade
    from splade.models.checkpoint import save_splade
    from splade.training.checkpoints import last_whole_checkpoint
    from splade.training.collator import Collator
    from splade.training.data import check_monitoring, load_training_data
    from splade.training.objective import Objective
    from splade.training.trainer import make_trainer
    from splade.training.validation import Validation

    set_seed(run.seed)
    data = load_training_data(experiment, loss)
    check_monitoring(experiment, data)
    model = build_splade(experiment.init_dict, run)
    if run.gradient_checkpointing:
        _checkpoint_gradients(model)
    collator = Collator(model.tokenizer, model.query_tokenizer, run.max_length)
    validation = None
    if data.held_out is not None or data.full_ranking is not None:
        validation = Validation(data.held_out, collator, data.full_ranking, run.max_length, run.eval_batch_size)
    trainer = make_trainer(run, model, data.stream, collator, Objective(loss, regularizers), validation)
    if main_process():
        save_config(experiment, folder)
        save_record(experiment, folder, "train")
    checkpoint = last_whole_checkpoint(folder / "model_ckpt")
    if checkpoint is not None:
        logger.info("going on from %s", checkpoint)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    state = trainer.state
    result = TrainResult(
        folder=folder,
        steps=state.global_step,
        best_step=state.best_global_step or state.global_step,
        best=state.best_metric,
        monitored=run.monitoring_ckpt,
        report=data.report,
    )
    if main_process():
        save_splade(model, folder)
        _mark_done(experiment, folder, result)
    return result


def training_settings(experiment: Experiment) -> dict[str, Any]:
    """Return every setting on which the trained weights depend."""
    settings = asdict(experiment)
    for name in NOT_TRAINING:
        settings["config"].pop(name)
    names = ("type", "TRAIN", "incomplete", "VALIDATION_SIZE_FOR_LOSS", "VALIDATION_FULL_RANKING")
    data = {name: settings["data"][name] for name in names}
    return {"init_dict": settings["init_dict"], "config": settings["config"], "data": data}


def _mark_done(experiment: Experiment, folder: Path, result: TrainResult) -> None:
    from splade.models.checkpoint import DONE_FILE, model_settings

    outcome = {name: value for name, value in asdict(result).items() if name != "folder"}
    done = {"model": model_settings(experiment), "settings": training_settings(experiment), "result": outcome}
    write_json(folder / DONE_FILE, done)


def _finished(experiment: Experiment, folder: Path) -> TrainResult | None:
    """Return the result of a finished run of the same settings; clear the way, or refuse, for other settings."""
    from splade.models.checkpoint import DONE_FILE

    started = folder / "settings.json"
    settings = training_settings(experiment)
    before = read_json(started) if started.is_file() else None
    if before is not None and before != settings:
        if not experiment.config.overwrite_final:
            raise ConfigError(
                f"config.checkpoint_dir={folder} belongs to a run with other settings "
                f"({_first_difference(before, settings)}). Give another config.checkpoint_dir, or replace that run "
                "with config.overwrite_final=true"
            )
        if main_process():
            for name in ("model", "model_q", "model_ckpt", "tensorboard"):
                shutil.rmtree(folder / name, ignore_errors=True)
            (folder / DONE_FILE).unlink(missing_ok=True)
    if main_process():
        write_json(started, settings)
    if (folder / DONE_FILE).is_file():
        logger.info("%s is already trained with these settings: nothing to do", folder)
        return TrainResult(folder=folder, **read_json(folder / DONE_FILE)["result"])
    return None


def _first_difference(before: Any, now: Any, path: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *now]:
            if before.get(name) != now.get(name):
                return _first_difference(before.get(name), now.get(name), f"{path}.{name}" if path else name)
    return f"{path} was {before}, is {now}"


def _checkpoint_gradients(model: Any) -> None:
    for encoder in {id(e): e for e in (model.document_encoder, model.query_encoder)}.values():
        if hasattr(encoder, "model"):
            encoder.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


if __name__ == "__main__":
    run_task(train)
