"""A controller that finds the lambda at which vectors have a given number of terms."""

import math

import torch
from torch import Tensor

START, LEAST, MOST = 0.01, 0.002, 1.0
"""Shares of the loss that the penalty has at most at first, at least and at most."""
INTEGRAL_GAIN, FASTEST = 0.3, 0.06
"""Growth of the logarithm of lambda with each batch: this times the error, and at most that."""
RISE, FALL = 2.0, 4.0
"""Proportional gains where there are too many terms, and too few."""
LARGEST_ERROR = 1.0
FAST, SLOW = 5, 20
"""Batches of the two moving averages, whose difference is the trend."""
HORIZON = 20
"""Batches that the controller looks ahead."""
RECOUNTS = 4
"""Recounts without dropout of which there is an average."""
NO_TERMS = 0.6


class LambdaController:
    """Multiplies a lambda by a factor that brings the mean number of terms to `target_terms`.

    A proportional-integral controller of the logarithm, because lambdas differ by orders of magnitude. The error is
    that of the number of terms to be expected in twenty batches, `e = log(terms) + 20 trend - log(target)`, at most 1.
    Then `factor = exp(I + 2 e)`, or `exp(I + 4 e)` where there will be too few terms, and `I` grows by `0.3 e` with
    each batch, at most by 0.06. It stays where the penalty is between 0.2 % and 100 % of the loss that it is added to,
    and begins at 1 % at most: with less lambda has no effect, and would only be lost while terms go by themselves; with
    more they go faster than the trend shows. So any lambda can be given as a start.

    Dropout takes terms away (7 to 11 % of those of SPLADE-tiny), so a few texts are counted again without it now and
    then. All follows from the vectors and losses, so all processes have the same factor.

    Example:
        >>> controller = LambdaController(target_terms=100)
        >>> for _ in range(100):
        ...     controller.observe(torch.ones(2, 200), penalty=torch.tensor(0.01), loss=torch.tensor(1.0))
        >>> controller.factor(torch.ones(1)).item() > 1
        True
    """

    def __init__(self, target_terms: float):
        self.target_terms = target_terms
        # log(terms), fast and slow; loss; penalty; integral; log(terms without dropout / terms), number of these
        self._state: Tensor | None = None

    def observe(self, vectors: Tensor, penalty: Tensor, loss: Tensor) -> None:
        """Learn from a batch.

        Args:
            vectors: (n, vocab).
            penalty: scalar, what the regulariser adds to the loss with the lambda that was given.
            loss: scalar, what it is added to.
        """
        seen = torch.stack([_log_terms(vectors), penalty.float(), loss.float()])[[0, 0, 2, 1]]
        if self._state is None:
            integral = (_scale(seen) + math.log(START)).clamp_max(0.0)
            self._state = torch.cat([seen, torch.stack([integral, *seen.new_zeros(2)])])
        state = self._state.to(seen.device)
        averages = state[:4].lerp(seen, seen.new_tensor([1 / FAST, 1 / SLOW, 1 / SLOW, 1 / SLOW]))
        state = torch.cat([averages, state[4:]])
        scale = _scale(averages)
        growth = (INTEGRAL_GAIN * self._error(state)).clamp(-FASTEST, FASTEST)
        state[4] = (state[4] + growth).clamp(scale + math.log(LEAST), scale + math.log(MOST))
        self._state = state

    def recount(self, vectors: Tensor, without_dropout: Tensor) -> None:
        """Learn from a few texts how many terms they have with dropout and without: (n, vocab) vectors of each."""
        if self._state is None:
            return
        state = self._state.to(vectors.device).clone()
        difference = _log_terms(without_dropout) - _log_terms(vectors)
        state[6] += 1
        state[5] += (difference - state[5]) / state[6].clamp_max(RECOUNTS)
        self._state = state

    def factor(self, like: Tensor) -> Tensor:
        """Return the scalar by which lambda is multiplied, on the device of some tensor; 1 before the first batch."""
        if self._state is None:
            return like.new_ones(())
        state = self._state.to(like.device)
        error = self._error(state)
        return (state[4] + torch.where(error > 0, RISE * error, FALL * error)).exp()

    @property
    def has_pressed_out_all(self) -> bool:
        """Whether (nearly) no vector of the last twenty batches has a term."""
        return self._state is not None and self._state[1].item() < math.log(NO_TERMS)

    def _error(self, state: Tensor) -> Tensor:
        expected = state[0] + HORIZON * (state[0] - state[1]) / (SLOW - FAST) + state[5]
        return (expected - math.log(self.target_terms)).clamp(-LARGEST_ERROR, LARGEST_ERROR)

    def state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs."""
        return {} if self._state is None else {"state": self._state}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._state = state.get("state")


def _log_terms(vectors: Tensor) -> Tensor:
    """Return the logarithm of the mean number of terms of (n, vocab) vectors; of a half where there are none."""
    return (vectors > 0).sum(1).float().mean().clamp_min(0.5).log()


def _scale(averages: Tensor) -> Tensor:
    """Return the logarithm of the factor with which the penalty is as large as the loss."""
    tiny = torch.finfo(averages.dtype).tiny
    return (averages[2].clamp_min(tiny) / averages[3].clamp_min(tiny)).log()
