"""A controller that finds the lambda at which vectors have a given number of terms."""

import math

import torch
from torch import Tensor

START = -3.0
"""Logarithm of the first factor: lambda begins at a twentieth, for what is pressed out of vectors returns slowly."""
INTEGRAL_GAIN = 0.1
RISE, FALL = 1.0, 4.0
"""Proportional gains where there are too many terms, and too few."""
LARGEST_ERROR = 1.0
FAST, SLOW = 5, 20
"""Batches of the two moving averages, whose difference is the trend."""
HORIZON = 20
"""Batches that the controller looks ahead."""


class LambdaController:
    """Multiplies a lambda by a factor that brings the mean number of terms to `target_terms`.

    A proportional-integral controller of the logarithm, because lambdas differ by orders of magnitude. The error is
    that of the number of terms to be expected in twenty batches, `e = log(terms) + 20 trend - log(target)`, at most 1.
    Then `factor = exp(I + e)`, or `exp(I + 4 e)` where there will be too few terms, and `I` grows by `e / 10` with each
    batch, from -3 on. All follows from the vectors, so all processes have the same factor.

    Example:
        >>> controller = LambdaController(target_terms=100)
        >>> for _ in range(100):
        ...     controller.observe(torch.ones(2, 200))
        >>> controller.factor(torch.ones(1)).item() > 1
        True
    """

    def __init__(self, target_terms: float):
        self.target_terms = target_terms
        self._state: Tensor | None = None  # fast and slow average of log(terms), integral

    def observe(self, vectors: Tensor) -> None:
        """Learn from a batch of (n, vocab) vectors."""
        terms = (vectors.detach() > 0).sum(1).float().mean().clamp_min(0.5).log()
        if self._state is None:
            self._state = torch.stack([terms, terms, torch.full_like(terms, START)])
        fast, slow, integral = self._state.to(terms.device)
        fast, slow = fast.lerp(terms, 1 / FAST), slow.lerp(terms, 1 / SLOW)
        self._state = torch.stack([fast, slow, integral + INTEGRAL_GAIN * self._error(fast, slow)])

    def factor(self, like: Tensor) -> Tensor:
        """Return the scalar by which lambda is multiplied, on the device of some tensor; 1 before the first batch."""
        if self._state is None:
            return like.new_ones(())
        fast, slow, integral = self._state.to(like.device)
        error = self._error(fast, slow)
        return (integral + torch.where(error > 0, RISE * error, FALL * error)).exp()

    def _error(self, fast: Tensor, slow: Tensor) -> Tensor:
        expected = fast + HORIZON * (fast - slow) / (SLOW - FAST)
        return (expected - math.log(self.target_terms)).clamp(-LARGEST_ERROR, LARGEST_ERROR)

    def state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs."""
        return {} if self._state is None else {"state": self._state}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._state = state.get("state")
