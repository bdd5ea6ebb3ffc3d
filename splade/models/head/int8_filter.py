"""Which terms can have a weight at all: found with a product of 8-bit integers, so that only they are computed in full.

Of 30,000 terms a passage keeps some hundred. Processors that multiply 8-bit integers natively do so four times as fast
as float32. Rounding hidden states and embeddings to 8 bits changes a logit by no more than a known bound, so a term
whose rounded logit stays below zero by more than that has no weight. The few others are computed in float32: weights
are those of the float32 product, only their computation is shorter.

The bound. With h' and w' the rounded hidden state and embedding, h . w - h' . w' = (h - h') . w + h' . (w - w'), which
by Cauchy-Schwarz is at most |h - h'| |w| + |h'| |w - w'|. All four norms are computed, not estimated.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splade.models.head.blocks import RoundedBlock, packed_blocks
from splade.models.head.kernels import possible_terms, segment_max_int32

# 8 bits with a sign, the same on both sides of zero.
LARGEST = 127
# For what float32 rounds when the bound itself is computed.
MARGIN = 1.01
# A model that is not trained for sparsity yet gives weight to half the vocabulary; then the full product is cheaper.
SELECTIVE = 0.2
# So that rounding a large vocabulary takes little memory besides the result.
_TERMS_AT_ONCE = 4096


class TermScreen:
    """An output embedding rounded to 8 bits, each term with a scale of its own, and how much the rounding changed it.

    Args:
        weight: (vocabulary, dim) float32 output embedding.
        bias: (vocabulary,) output bias, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight.detach()
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        self.norms = self.weight.norm(dim=1)
        pieces = [_rounded_terms(piece) for piece in self.weight.split(_TERMS_AT_ONCE)]
        self.rounded, self.scales, self.errors = (torch.cat(parts) for parts in zip(*pieces, strict=True))


class ScreenedBatch:
    """A batch of hidden states rounded to 8 bits, and what a screen finds in it.

    Args:
        screen: of the output embedding.
        hidden: (batch, length, dim) float32 hidden states.
        attention_mask: (batch, length), zero for tokens that are left out.

    Attributes:
        blocks: the batch, cut into blocks of whole passages.
    """

    def __init__(self, screen: TermScreen, hidden: Tensor, attention_mask: Tensor) -> None:
        mask = attention_mask.bool()
        tokens = hidden.flatten(0, 1)
        kept = tokens[mask.flatten()]
        rounded, scale = _rounded(kept, kept.abs().amax() if kept.numel() else kept.new_zeros(()))
        restored = rounded * scale
        self.screen = screen
        self.tokens = tokens
        self.blocks = list(packed_blocks(_padded_again(rounded, mask), mask, RoundedBlock))
        slack = _largest_norm(kept - restored) * screen.norms + _largest_norm(restored) * screen.errors
        self._units = (scale * screen.scales).numpy()
        self._reach = (screen.bias + MARGIN * slack).numpy()

    def weights(self, block: RoundedBlock) -> Tensor:
        """Return the (passages, vocabulary) weights of a block under `max`."""
        screen = self.screen
        weights = self.tokens.new_zeros(block.size, len(screen.weight))
        for passage, _, candidates, logits in self._candidate_logits(block):
            weights[passage, candidates] = torch.log1p(torch.relu(logits.amax(dim=0) + screen.bias[candidates]))
        return weights

    def max_into(self, block: RoundedBlock, values: Tensor, winners: Tensor) -> None:
        """Write maxima of logits without bias, and which tokens won, for terms that can have a weight.

        Args:
            block: one of `blocks`.
            values: (passages, vocabulary) float32; -inf for all other terms.
            winners: (passages, vocabulary) int32; untouched for all other terms.
        """
        values.fill_(-torch.inf)
        for passage, rows, candidates, logits in self._candidate_logits(block):
            best, position = logits.max(dim=0)
            values[passage, candidates] = best
            winners[passage, candidates] = rows[position].to(winners.dtype)

    def is_selective(self) -> bool:
        """Whether the first block leaves so few candidates that screening the batch saves work."""
        block = self.blocks[0]
        found = sum(len(candidates) for _, _, candidates in self._candidates(block))
        return found < SELECTIVE * block.size * len(self.screen.weight)

    def _candidates(self, block: RoundedBlock) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield each passage that has tokens, the rows of its tokens, and the terms that can have a weight."""
        screen = self.screen
        highest = np.empty((block.size, len(screen.weight)), dtype=np.int32)
        for terms, products in block.tiles(screen.rounded):
            segment_max_int32(products.numpy(), block.offsets, highest, terms.start)
        for passage, (start, stop) in enumerate(pairwise(block.offsets)):
            if start < stop:
                found = possible_terms(highest[passage], self._units, self._reach)
                yield passage, block.rows[start:stop], torch.from_numpy(found)

    def _candidate_logits(self, block: RoundedBlock) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Yield what `_candidates` does, and the (tokens, candidates) logits without bias, in float32."""
        for passage, rows, candidates in self._candidates(block):
            yield passage, rows, candidates, self.tokens[rows] @ self.screen.weight[candidates].t()


def screening_pays(weight: Tensor) -> bool:
    """Whether this processor multiplies 8-bit integers natively, and the weight is one that a screen is for."""
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = any(capabilities.get(name, False) for name in ("avx512_vnni", "amx_int8"))
    suited = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.shape[1] > 1
    return native and suited and _integer_products_are_right()


@cache
def _integer_products_are_right() -> bool:
    """Try the product of 8-bit integers: PyTorch makes no promise about it, and is wrong for states of one number."""
    if not (hasattr(torch, "_int_mm") and torch.backends.mkldnn.is_available()):
        return False
    left, right = (torch.arange(n * 48).remainder_(255).sub_(127).view(n, 48) for n in (32, 80))
    return all(
        torch.equal(torch._int_mm(left.to(torch.int8), terms.to(torch.int8).t()).long(), left @ terms.t())
        for terms in (right, right[:1])
    )


def _rounded_terms(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings in 8 bits, the scale of each, and the norm of what rounding took from each."""
    rounded, scales = _rounded(weight, weight.abs().amax(dim=1, keepdim=True))
    return rounded, scales.squeeze(1), (weight - rounded * scales).norm(dim=1)


def _rounded(values: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Return values in 8 bits, and the scale that brings them back."""
    # Not zero, so that zeros stay zeros; not-a-number stays, so that the bound is none and every term is a candidate.
    scale = (largest / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    return (values / scale).round_().nan_to_num_(nan=0.0).clamp_(-LARGEST, LARGEST).to(torch.int8), scale


def _padded_again(kept: Tensor, mask: Tensor) -> Tensor:
    """Put the rows of the tokens that count back to their places in the batch."""
    if len(kept) == mask.numel():
        return kept.view(*mask.shape, kept.shape[1])
    batch = kept.new_zeros(*mask.shape, kept.shape[1])
    batch[mask] = kept
    return batch


def _largest_norm(rows: Tensor) -> float:
    return float(rows.norm(dim=1).max()) if len(rows) else 0.0
