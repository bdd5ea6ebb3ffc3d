"""What is averaged and timed between two lines of the training log."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from splade.errors import SpladeError


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


class LossWatch:
    """Raises an error for a loss that is not finite; `check` must be called before anything is kept of the model.

    Looking at a loss waits until the device has computed it. On a GPU that holds up every batch, so the losses of
    `look_every` batches are looked at together.
    """

    def __init__(self, look_every: int):
        self.look_every = look_every
        self._batches: list[tuple[int, Tensor, Mapping[str, Tensor]]] = []

    def add(self, step: int, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Note the loss of a batch, its terms and the optimiser steps done before."""
        self._batches.append((step, loss.detach(), terms))
        if len(self._batches) >= self.look_every:
            self.check()

    def check(self) -> None:
        """Look at what has been noted.

        Raises:
            SpladeError: a loss was not finite; the first one is named.
        """
        batches, self._batches = self._batches, []
        if not batches:
            return
        finite = torch.isfinite(torch.stack([loss for _, loss, _ in batches])).tolist()
        if all(finite):
            return
        step, loss, terms = batches[finite.index(False)]
        values = ", ".join(f"{name}={value.item():.4g}" for name, value in terms.items())
        raise SpladeError(
            f"the loss is {loss.item()} at step {step} ({values}). Lower config.lr or the regulariser's lambda, use "
            "bf16 instead of fp16, and check the training data's scores."
        )


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
