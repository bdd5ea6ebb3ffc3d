"""One progress bar for every loop that takes longer than a few seconds."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from splade.errors import printable

Item = TypeVar("Item")


def progress(items: Iterable[Item], description: str, total: int | None = None, unit: str = "it") -> Iterable[Item]:
    """Wrap `items` in a progress bar on standard error; silent when that is not a terminal."""
    return tqdm(items, desc=printable(description), total=total, unit=unit, disable=not _terminal(), smoothing=0.1)


def progress_bar(description: str, total: int | None = None, unit: str = "it") -> tqdm:
    """Return a bar to be moved by hand with `update(n)`; silent when standard error is not a terminal."""
    return tqdm(desc=printable(description), total=total, unit=unit, disable=not _terminal(), smoothing=0.1)


def _terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # None: closed by whoever started the process
