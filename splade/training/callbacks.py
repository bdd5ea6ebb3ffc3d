"""What is written down while training runs, always from the trainer's log.

The log is part of every checkpoint. Each file is made anew from it when training starts or resumes, so that after an
interruption no row is missing and none appears twice.
"""

import csv
import io
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from splade.progress import ProgressBar, progress_bar
from splade.storage.atomic import write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TRAINING_FILE, VALIDATION_FILE, TENSORBOARD_FOLDER = "training_perf.txt", "validation_perf.txt", "tensorboard"

LogRow = Mapping[str, float]
_NOT_SHOWN = (
    "step",
    "epoch",
    "steps_per_second",
    "grad_norm",
    "learning_rate",
    *(f"{when}sparsity_{side}" for when in ("", "eval_") for side in "qd"),
)
logger = logging.getLogger(__name__)


def is_validation(row: LogRow) -> bool:
    """Return whether a row of the log comes from validation."""
    return any(name.startswith("eval_") for name in row)


def is_training(row: LogRow) -> bool:
    """Return whether a row of the log holds training losses (another one sums up the run)."""
    return "loss" in row


class PerformanceFiles(TrainerCallback):
    """Writes the log to `training_perf.txt` and `validation_perf.txt`: CSV, made anew with every row."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Write the rows of the log so far."""
        if state.is_world_process_zero:
            for name, belongs in ((TRAINING_FILE, is_training), (VALIDATION_FILE, is_validation)):
                write_text(self.folder / name, to_csv([row for row in state.log_history if belongs(row)]))

    on_log = on_train_begin


class TensorBoard(TrainerCallback):
    """Writes every logged number to TensorBoard, in the groups `train` and `validation`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.writer: SummaryWriter | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Write the rows of the log so far."""
        if state.is_world_process_zero:
            from torch.utils.tensorboard import SummaryWriter

            shutil.rmtree(self.folder, ignore_errors=True)
            self.writer = SummaryWriter(str(self.folder))
            for row in state.log_history:
                self._write(row)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Write the newest row."""
        self._write(state.log_history[-1])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Close the log."""
        if self.writer is not None:
            self.writer.close()

    def _write(self, row: LogRow) -> None:
        if self.writer is None:  # only the first process has one
            return
        group = "validation" if is_validation(row) else "train"
        for name, value in row.items():
            if name != "step":
                self.writer.add_scalar(f"{group}/{name.removeprefix('eval_')}", value, row["step"])


class Progress(TrainerCallback):
    """A bar over optimiser steps, with the last losses; a line of the log for each validation."""

    def __init__(self) -> None:
        self.bar: ProgressBar | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Show the bar where the run starts or resumes."""
        if state.is_world_process_zero:
            self.bar = progress_bar("training", state.max_steps, "step", state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Show what was measured."""
        row = state.log_history[-1]
        if self.bar is not None and is_training(row):
            self.bar.show(**{name: value for name, value in row.items() if name not in _NOT_SHOWN})
        elif is_validation(row) and state.is_world_process_zero:
            values = (f"{name.removeprefix('eval_')} {row[name]:.4g}" for name in row if name not in _NOT_SHOWN)
            logger.info("validation at step %d: %s", row["step"], ", ".join(values))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


class ValidateAtEnd(TrainerCallback):
    """Validates and saves after the last step too, whatever `record_frequency` is."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Ask for validation and a checkpoint at the last step."""
        if state.global_step >= state.max_steps:
            control.should_save = True
            control.should_log = True
            control.should_evaluate = args.eval_strategy != "no"


def to_csv(rows: Sequence[LogRow]) -> str:
    """Render log rows as CSV; `step` comes first, `eval_` is dropped from the names, absent values are empty."""
    if not rows:
        return ""
    columns = ["step", *sorted({name for row in rows for name in row} - {"step", "epoch"})]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name.removeprefix("eval_") for name in columns])
    writer.writerows([row.get(name, "") for name in columns] for row in rows)
    return text.getvalue()
