"""Progress of every loop that takes longer than a few seconds: a bar on a terminal, lines of the log elsewhere.

A line says what is done, how many of how many, how fast, how long it will take, and the last losses in training:

    training: 500 of 2,000 steps (25%), 3.1/s, 0:08:04 left, loss 0.4127, InBatchPairwiseNLL 0.4030, FLOPS_d 0.0097

What ends before the first line is due says nothing, so that files opened in passing leave no trace.
"""

import itertools
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from datetime import timedelta
from typing import Protocol, TypeVar

from tqdm import tqdm

from splade.errors import printable

Item = TypeVar("Item")

BAR_AFTER_SECONDS = 1.0
FIRST_LINE_SECONDS, LINE_SECONDS = 10.0, 30.0
logger = logging.getLogger(__name__)


class ProgressBar(Protocol):
    """What is moved by hand with `update(n)`; a context manager that ends the bar.

    Attributes:
        n: how many are done.
    """

    n: int

    def update(self, n: int = 1) -> object:
        """Count `n` more."""

    def show(self, **values: float) -> None:
        """Show numbers beside the progress, such as the loss."""

    def close(self) -> None:
        """End it."""

    def __enter__(self) -> "ProgressBar": ...

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None: ...


def progress(items: Iterable[Item], description: str, total: int | None = None, unit: str = "item") -> Iterator[Item]:
    """Yield `items` and show their progress; `total` is their number, where they do not know it themselves."""
    known = len(items) if total is None and isinstance(items, Sized) else total
    with progress_bar(description, known, unit) as bar:
        for item in items:
            yield item
            bar.update()


def progress_bar(description: str, total: int | None = None, unit: str = "item", done: int = 0) -> ProgressBar:
    """Return a bar on standard error or, when that is not a terminal, one that writes lines to the log.

    Args:
        description: what is done.
        total: how many in all; None: unknown.
        unit: of what is counted, in the singular; `B` stands for bytes.
        done: how many an earlier run has done.
    """
    if not _first_process() or sys.stderr is None or not sys.stderr.isatty():  # None: closed by who started it
        return LogLines(description, total, unit, done)
    return _Bar(
        desc=printable(description),
        total=total,
        unit=unit,
        unit_scale=unit == "B",
        smoothing=0.1,
        delay=BAR_AFTER_SECONDS,
        initial=done,
    )


class LogLines:
    """Progress as lines of the log: the first after ten seconds, then one every half minute, and one at the end.

    Of several processes only the first writes any. The arguments are those of `progress_bar`; `clock` tells seconds.
    """

    def __init__(
        self,
        description: str,
        total: int | None = None,
        unit: str = "item",
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.n = done
        self._description, self._total, self._unit = printable(description), total, unit
        self._done, self._clock = done, clock
        self._values: dict[str, float] = {}
        self._started = clock()
        self._due = self._started + FIRST_LINE_SECONDS if _first_process() else math.inf
        self._spoke = False

    def update(self, n: int = 1) -> None:
        """Count `n` more."""
        self.n += n
        now = self._clock()
        if now >= self._due:
            self._due, self._spoke = now + LINE_SECONDS, True
            logger.info("%s", self._line(now - self._started))

    def show(self, **values: float) -> None:
        """Show these numbers at the end of the next lines."""
        self._values = values

    def close(self) -> None:
        """Say how long it took, if there was a line before."""
        if self._spoke:
            self._due, self._spoke = math.inf, False
            seconds = round(self._clock() - self._started)
            logger.info("%s: %s in %s", self._description, self._count(self.n), timedelta(seconds=seconds))

    def __enter__(self) -> "LogLines":
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None:
        if kind is None:
            self.close()

    def _line(self, seconds: float) -> str:
        rate = (self.n - self._done) / max(seconds, 1e-9)
        parts = [self._count(self.n), f"{self._amount(rate)}/s"]
        if self._total is not None:
            parts[0] = f"{self._amount(self.n)} of {self._count(self._total)} ({self.n / max(1, self._total):.0%})"
            if rate > 0:
                parts.append(f"{timedelta(seconds=round(max(0, self._total - self.n) / rate))} left")
        parts += [f"{name} {value:.4g}" for name, value in self._values.items()]
        return f"{self._description}: {', '.join(parts)}"

    def _count(self, n: float) -> str:
        if self._unit == "B":
            return self._amount(n)
        plural = "queries" if self._unit == "query" else "batches" if self._unit == "batch" else f"{self._unit}s"
        return f"{self._amount(n)} {plural if n != 1 else self._unit}"

    def _amount(self, n: float) -> str:
        if self._unit == "B":
            return f"{n / 1e6:,.1f} MB"
        return f"{n:,.0f}" if n >= 100 or n == int(n) else f"{n:.3g}"


def _first_process() -> bool:
    return os.environ.get("RANK") in (None, "", "0")


class _Bar(tqdm):
    """A bar of tqdm."""

    def show(self, **values: float) -> None:
        """Show the first of these numbers, for which there is room."""
        for name, value in itertools.islice(values.items(), 1):
            self.set_postfix({name: f"{value:.4f}"}, refresh=False)
