"""What is written down while training runs."""

import csv
import io
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from splade.files import write_text
from splade.progress import progress_bar

TRAINING_FILE, VALIDATION_FILE = "training_perf.txt", "validation_perf.txt"


class PerformanceFiles(TrainerCallback):
    """Keeps `training_perf.txt` and `validation_perf.txt` (CSV) equal to the trainer's log.

    The log is part of every checkpoint, so a resumed run rewrites the rows up to its checkpoint and goes on from there:
    no row is lost, none appears twice.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Rewrite both files."""
        if not state.is_world_process_zero:
            return
        training = [row for row in state.log_history if "loss" in row]
        validation = [row for row in state.log_history if any(name.startswith("eval_") for name in row)]
        write_text(self.folder / TRAINING_FILE, to_csv(training))
        write_text(self.folder / VALIDATION_FILE, to_csv(validation))


class TensorBoard(TrainerCallback):
    """Writes every logged number to TensorBoard, in the groups `train` and `validation`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.writer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the log; what an interrupted run wrote after its last checkpoint is dropped."""
        if state.is_world_process_zero:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=state.global_step or None)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write one step's numbers."""
        for name, value in (logs or {}).items() if self.writer is not None else ():
            group = "validation" if name.startswith("eval_") else "train"
            if isinstance(value, int | float):
                self.writer.add_scalar(f"{group}/{name.removeprefix('eval_')}", value, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the log."""
        if self.writer is not None:
            self.writer.close()


class Progress(TrainerCallback):
    """A progress bar over optimiser steps, with the running loss."""

    def __init__(self) -> None:
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the bar where the run starts or goes on."""
        if state.is_world_process_zero:
            self.bar = progress_bar("training", total=state.max_steps, unit="step")
            self.bar.update(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Show the loss."""
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


class ValidateAtEnd(TrainerCallback):
    """Validates and saves after the last step too, whatever `record_frequency` is."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for validation and a checkpoint at the last step."""
        if state.global_step >= state.max_steps:
            control.should_save = True
            control.should_log = True
            control.should_evaluate = args.eval_strategy != "no"


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Render log rows as CSV; `step` comes first, `eval_` is dropped from the names, absent values are empty."""
    names = ["step", *sorted({name for row in rows for name in row} - {"step", "epoch"})]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name.removeprefix("eval_") for name in names])
    for row in rows:
        writer.writerow([row.get(name, "") for name in names])
    return text.getvalue()
