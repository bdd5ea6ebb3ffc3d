"""Training checkpoints: only whole ones count."""

import logging
import re
import shutil
from pathlib import Path

from splade.files import write_json

logger = logging.getLogger(__name__)

WHOLE = "whole.json"


def mark_whole(folder: Path, step: int) -> None:
    """Mark a checkpoint as completely written: the last thing that is done to it."""
    write_json(folder / WHOLE, {"step": step})


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a run; remove what an interrupted write has left."""
    whole: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*") if folder.is_dir() else ():
        step = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if step is None:
            continue
        if (path / WHOLE).is_file():
            whole.append((int(step[1]), path))
        else:
            logger.warning("removing %s, which was not written to its end", path)
            shutil.rmtree(path)
    return max(whole)[1] if whole else None
