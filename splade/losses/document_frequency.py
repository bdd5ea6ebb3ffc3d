"""Document frequencies of terms while a model is trained, and what a frequent term costs (DF-FLOPS)."""

import math

import torch
from torch import Tensor

MEMORY = 100
"""Batches after which older ones begin to be forgotten: frequencies change about as fast as the model does."""


def frequency_weight(frequencies: Tensor, alpha: float, beta: float) -> Tensor:
    """Return how much terms of some document frequencies are penalised (arXiv 2505.15070).

    `w_t = 1 / (1 + (x_t^(log_alpha 2) - 1)^beta)` of `x_t = DF_t / |C|`: 0 for a term that never occurs, 1/2 at
    `x = alpha`, 1 for a term of every document.

    Args:
        frequencies: (vocab,) shares of the documents that have the term, 0 to 1.
        alpha: share at which the weight is 1/2, between 0 and 1.
        beta: steepness around it, above 0.

    Example:
        >>> frequency_weight(torch.tensor([0.0, 0.1, 1.0]), alpha=0.1, beta=10.0)
        tensor([0.0000, 0.5000, 1.0000])
    """
    odds_against = frequencies.pow(math.log(2.0) / math.log(alpha)).sub(1).clamp_min(0)
    return 1 / (1 + odds_against.pow(beta))


class RunningFrequencies:
    """Document frequencies of the vectors that pass by.

    The mean over the batches so far, and from the hundredth on a moving average of about a hundred batches. Counting a
    whole collection anew every so many steps, as the paper does, would cost the encoding of it.
    """

    def __init__(self) -> None:
        self._shares: Tensor | None = None
        self._n_batches = 0

    def observe(self, documents: Tensor) -> None:
        """Count a batch of (n, vocab) vectors."""
        shares = (documents.detach() > 0).float().mean(0)
        self._n_batches += 1
        if self._shares is None:
            self._shares = shares
        else:
            self._shares = self._shares.to(shares.device).lerp(shares, 1 / min(self._n_batches, MEMORY))

    def shares(self, like: Tensor) -> Tensor:
        """Return the (vocab,) shares of documents that have each term, on the device of some (n, vocab) vectors."""
        return like.new_zeros(like.shape[1]) if self._shares is None else self._shares.to(like.device)

    def state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs."""
        if self._shares is None:
            return {}
        return {"shares": self._shares, "n_batches": torch.tensor(self._n_batches)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        if state:
            self._shares, self._n_batches = state["shares"], int(state["n_batches"])
