"""Training checkpoints: only complete ones count, and only the last few and the best are kept."""

import logging
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from splade.storage.atomic import write_json

logger = logging.getLogger(__name__)

COMPLETE_MARK = "whole.json"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step is; `transformers.Trainer` gives it this name."""
    return folder / f"checkpoint-{step}"


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as completely written: the last thing that is done to it."""
    write_json(checkpoint / COMPLETE_MARK, {})


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of all checkpoints, complete or not, ascending."""
    names = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folder.glob("checkpoint-*"))
    return sorted(int(name[1]) for name in names if name is not None)


def complete_steps(folder: Path) -> list[int]:
    """Return the steps of the complete checkpoints, ascending."""
    return [step for step in checkpoint_steps(folder) if (checkpoint_path(folder, step) / COMPLETE_MARK).is_file()]


def keep_checkpoints(folder: Path, steps: Collection[int]) -> None:
    """Remove all other checkpoints; one whose removal is interrupted is not complete any more."""
    for step in checkpoint_steps(folder):
        if step not in steps:
            checkpoint = checkpoint_path(folder, step)
            (checkpoint / COMPLETE_MARK).unlink(missing_ok=True)
            shutil.rmtree(checkpoint)
