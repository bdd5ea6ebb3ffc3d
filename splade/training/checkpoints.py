"""Training checkpoints: only complete ones count, and only the last few and the best are kept.

The mark that ends a checkpoint holds the checksums of its files, which are compared before training goes on from it: a
flipped bit, or an optimiser state that is missing, would lead to other weights without a word.
"""

import logging
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from splade.errors import DataError
from splade.storage.atomic import read_json_object, write_json
from splade.storage.checksums import checksums, damage

logger = logging.getLogger(__name__)

COMPLETE_MARK, STATE_FILE = "whole.json", "trainer_state.json"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step is; `transformers.Trainer` gives it this name."""
    return folder / f"checkpoint-{step}"


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as completely written, with the checksums of its files: the last thing that is done to it."""
    write_json(checkpoint / COMPLETE_MARK, {"files": checksums(checkpoint)})


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of all checkpoints, complete or not, ascending."""
    names = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folder.glob("checkpoint-*"))
    return sorted(int(name[1]) for name in names if name is not None)


def complete_steps(folder: Path) -> list[int]:
    """Return the steps of the complete checkpoints, ascending."""
    return [step for step in checkpoint_steps(folder) if (checkpoint_path(folder, step) / COMPLETE_MARK).is_file()]


def last_whole_step(folder: Path) -> int | None:
    """Return the step of the last checkpoint from which training can go on to the same weights, if there is one.

    Later ones are named in a warning. The best checkpoint so far, which a later one refers to, must be whole, too.
    """
    for step in reversed(complete_steps(folder)):
        fault = _fault(folder, step)
        if fault is None:
            return step
        logger.warning("%s: %s; it is passed over", checkpoint_path(folder, step), fault)
    return None


def _fault(folder: Path, step: int) -> str | None:
    try:
        fault = _damage(checkpoint_path(folder, step))
        best = None if fault else read_json_object(checkpoint_path(folder, step) / STATE_FILE).get("best_global_step")
        if best not in (None, step):
            fault = _damage(checkpoint_path(folder, best))
            return fault and f"the best checkpoint so far is that of step {best}, and there {fault}"
        return fault
    except DataError as error:
        return str(error)


def _damage(checkpoint: Path) -> str | None:
    files = read_json_object(checkpoint / COMPLETE_MARK).get("files")
    if not isinstance(files, dict) or STATE_FILE not in files:
        return f"{COMPLETE_MARK} holds no checksums"
    return damage(checkpoint, files)


def keep_checkpoints(folder: Path, steps: Collection[int]) -> None:
    """Remove all other checkpoints; one whose removal is interrupted is not complete any more."""
    for step in checkpoint_steps(folder):
        if step not in steps:
            checkpoint = checkpoint_path(folder, step)
            (checkpoint / COMPLETE_MARK).unlink(missing_ok=True)
            shutil.rmtree(checkpoint)
