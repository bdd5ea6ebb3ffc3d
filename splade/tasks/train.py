"""Task: train a model."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from splade.config import Experiment, require
from splade.config.record import save_config, save_record
from splade.errors import ConfigError

if TYPE_CHECKING:
    from splade.training.run_folder import RunFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """A finished training run.

    Attributes:
        folder: the checkpoint folder.
        steps: optimiser steps done.
        best_step: step of the checkpoint that was kept as the model.
        best: value of `monitoring_ckpt` at that step, or None without validation.
        monitored: name of that value.
        report: the size of the training set and what was left out of it, a line each.
    """

    folder: Path
    steps: int
    best_step: int
    best: float | None
    monitored: str
    report: str

    def summary(self) -> str:
        """Return what was trained, on what, and where it is."""
        best = "" if self.best is None else f", best {self.monitored} {self.best:.4f} at step {self.best_step}"
        lines = [f"trained {self.steps} steps{best}", *self.report.splitlines(), f"model in {self.folder / 'model'}"]
        return "\n  ".join(lines)


def train(experiment: Experiment) -> TrainResult:
    """Train the model init_dict on data.TRAIN; the best checkpoint becomes config.checkpoint_dir/model.

    An interrupted run goes on after its last whole checkpoint and ends with the weights of an uninterrupted one.
    """
    require(experiment, "config.checkpoint_dir", "init_dict.model_type_or_dir")
    if experiment.config.regularizer == "eval_only":
        raise ConfigError(
            "config.regularizer=eval_only: this configuration is for evaluation, there is nothing to train"
        )
    from splade.distributed import join_processes, leave_processes, on_first_process
    from splade.training.run_folder import RunFolder

    join_processes()
    folder = RunFolder(experiment)
    outcome = on_first_process(folder.outcome)
    if outcome is not None:
        logger.info("%s is already trained with these settings: nothing to do", folder.path)
        result = TrainResult(folder=folder.path, **outcome)
    else:
        result = _train(experiment, folder)
    leave_processes()
    return result


def _train(experiment: Experiment, folder: "RunFolder") -> TrainResult:
    from transformers import set_seed

    from splade.distributed import on_first_process, process_rank
    from splade.losses import WeightedLoss, parse_regularizers
    from splade.models.load import build_splade
    from splade.models.save import save_splade
    from splade.training.collator import Collator
    from splade.training.data import check_monitoring, load_training_data
    from splade.training.objective import Objective
    from splade.training.trainer import make_trainer
    from splade.training.validation import Validation

    run = experiment.config
    loss = WeightedLoss.parse(run.loss, run.augment_pairs == "in_batch_negatives")
    objective = Objective(loss, parse_regularizers(run.regularizer))
    set_seed(run.seed)
    data = load_training_data(experiment, loss)
    check_monitoring(experiment, data)
    model = build_splade(experiment.init_dict, run)
    if run.gradient_checkpointing:
        model.checkpoint_activations()
    collator = Collator(model.tokenizer, model.query_tokenizer, run.max_length)
    validation = None
    if data.held_out is not None or data.full_ranking is not None:
        validation = Validation(data.held_out, collator, data.full_ranking, run.max_length, run.eval_batch_size)
    trainer = make_trainer(run, model, data.stream, collator, objective, validation)

    step = on_first_process(folder.start)
    if process_rank() == 0:
        save_config(experiment, folder.path)
        save_record(experiment, folder.path, "train")
    if step is not None:
        logger.info("going on from step %d", step)
    trainer.train_from(step)
    result = TrainResult(
        folder=folder.path,
        steps=trainer.state.global_step,
        best_step=trainer.best_step,
        best=trainer.state.best_metric,
        monitored=run.monitoring_ckpt,
        report=data.report,
    )
    if process_rank() == 0:
        save_splade(model, folder.path, run.max_length)
        folder.finish({name: value for name, value in asdict(result).items() if name != "folder"})
    return result
