"""What is averaged and timed between two lines of the training log."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor


class RunningMeans:
    """Means of named scalars; they stay on their device until they are taken."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count one more value of each name."""
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def take(self) -> dict[str, float]:
        """Return the means of what was added, and forget it."""
        means = {name: (total / self._count).item() for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


class Speedometer:
    """Optimiser steps per second, validation and checkpoints not counted."""

    def __init__(self, step: int):
        self._step, self._since = step, time.perf_counter()

    def take(self, step: int) -> float:
        """Return the speed since the last call, or since the beginning."""
        steps, seconds = step - self._step, time.perf_counter() - self._since
        self._step, self._since = step, self._since + seconds
        return steps / seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock inside the block."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start
