"""An upper-bound filter: a product of 8-bit integers finds the terms that can have a weight; only they are computed.

Of 30,000 terms a passage keeps some hundred. Processors that multiply 8-bit integers natively do so four times as fast
as float32. Quantising hidden states and embeddings to 8 bits changes a logit by no more than a known error bound, so a
term whose quantised logit stays below zero by more than that has no weight. The others, the candidate terms, are
computed in float32: weights are those of the float32 product, only their computation is shorter.

The error bound. With h' and w' the quantised hidden state and embedding,
h . w - h' . w' = (h - h') . w + h' . (w - w'), which by Cauchy-Schwarz is at most |h - h'| |w| + |h'| |w - w'|.
All four norms are computed, not estimated.
"""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from splade.models.head.blocks import Int8Block, packed_blocks
from splade.models.head.kernels import candidate_terms, segment_max

# 8 bits with a sign, the same on both sides of zero.
LARGEST = 127
# Below every product.
LOWEST = np.iinfo(np.int32).min
# For what float32 rounds when the error bound itself is computed.
MARGIN = 1.01
# A model that is not trained for sparsity yet gives weight to half the vocabulary; then the full product is cheaper.
SELECTIVE = 0.2
# So that quantising a large vocabulary takes little memory besides the result.
_TERMS_AT_ONCE = 4096
# Candidates of a passage whose logits are held at once: of a vocabulary of 256k terms, all may be candidates.
MOST_CANDIDATES = 1 << 15


class Int8Filter:
    """An output embedding in 8 bits, each term with a scale of its own, and its quantisation error.

    Args:
        weight: (vocabulary, dim) float32 output embedding.
        bias: (vocabulary,) output bias, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight.detach()
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        self.norms = self.weight.norm(dim=1)
        pieces = [_quantised_terms(piece) for piece in self.weight.split(_TERMS_AT_ONCE)]
        self.quantised, self.scales, self.errors = (torch.cat(parts) for parts in zip(*pieces, strict=True))


class FilteredBatch:
    """A batch of (batch, length, dim) float32 hidden states in 8 bits, and the candidate terms of its passages.

    Attributes:
        blocks: the batch, cut into blocks of whole passages.
    """

    def __init__(self, int8_filter: Int8Filter, hidden: Tensor, attention_mask: Tensor) -> None:
        mask = attention_mask.bool()
        tokens = hidden.flatten(0, 1)
        kept = tokens[mask.flatten()]
        quantised, scale = in_8_bits(kept, kept.abs().amax() if kept.numel() else kept.new_zeros(()))
        restored = quantised * scale
        error = _largest_norm(kept - restored) * int8_filter.norms + _largest_norm(restored) * int8_filter.errors
        self.filter = int8_filter
        self.tokens = tokens
        self.blocks = list(packed_blocks(_padded_again(quantised, mask), mask, Int8Block))
        self._scales = (scale * int8_filter.scales).numpy()
        self._bounds = (int8_filter.bias + MARGIN * error).numpy()

    def weights(self, block: Int8Block) -> Tensor:
        """Return the (passages, vocabulary) weights of a block under `max`."""
        bias = self.filter.bias
        weights = self.tokens.new_zeros(block.size, len(bias))
        for passage, _, candidates, logits in self._candidate_logits(block):
            weights[passage, candidates] = torch.log1p(torch.relu(logits.amax(dim=0) + bias[candidates]))
        return weights

    def max_into(self, block: Int8Block, values: Tensor, argmax: Tensor) -> None:
        """Write the maxima of the candidates' logits, without bias, and the tokens that reached them first.

        Args:
            block: one of `blocks`.
            values: (passages, vocabulary) float32; -inf for all other terms.
            argmax: (passages, vocabulary) int32; untouched for all other terms.
        """
        values.fill_(-torch.inf)
        for passage, rows, candidates, logits in self._candidate_logits(block):
            best, position = logits.max(dim=0)
            values[passage, candidates] = best
            argmax[passage, candidates] = rows[position].to(argmax.dtype)

    def is_selective(self) -> bool:
        """Whether the first block has so few candidates that filtering the batch saves work."""
        block = self.blocks[0]
        found = sum(len(candidates) for _, _, candidates in self._candidates(block))
        return found < SELECTIVE * block.size * len(self.filter.bias)

    def _candidates(self, block: Int8Block) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield each passage that has tokens, the rows of its tokens, and its candidate terms."""
        highest = np.empty((block.size, len(self.filter.bias)), dtype=np.int32)
        for terms, products in block.tiles(self.filter.quantised):
            segment_max(products.numpy(), block.offsets, highest, terms.start, LOWEST)
        for passage, (start, stop) in enumerate(pairwise(block.offsets)):
            if start < stop:
                candidates = candidate_terms(highest[passage], self._scales, self._bounds)
                yield passage, block.rows[start:stop], torch.from_numpy(candidates)

    def _candidate_logits(self, block: Int8Block) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Yield what `_candidates` does, and the (tokens, candidates) logits without bias, in float32.

        Where a passage has very many candidates, they come in several pieces.
        """
        for passage, rows, candidates in self._candidates(block):
            for piece in candidates.split(MOST_CANDIDATES):
                yield passage, rows, piece, self.tokens[rows] @ self.filter.weight[piece].t()


def filter_pays(weight: Tensor) -> bool:
    """Whether this processor multiplies 8-bit integers natively, and the weight is one that the filter is for."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    native = any(capabilities.get(name, False) for name in ("avx512_vnni", "amx_int8"))
    suited = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.shape[1] > 1
    return native and suited and integer_products_are_right()


@cache
def integer_products_are_right() -> bool:
    """Try the product of 8-bit integers: PyTorch makes no promise about it, and is wrong for states of one number."""
    if not (hasattr(torch, "_int_mm") and torch.backends.mkldnn.is_available()):
        return False
    left, right = (torch.arange(n * 48).remainder_(255).sub_(127).view(n, 48) for n in (32, 80))
    return all(
        torch.equal(torch._int_mm(left.to(torch.int8), terms.to(torch.int8).t()).long(), left @ terms.t())
        for terms in (right, right[:1])
    )


def _quantised_terms(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings in 8 bits, the scale of each, and the norm of each one's quantisation error."""
    quantised, scales = in_8_bits(weight, weight.abs().amax(dim=1, keepdim=True))
    return quantised, scales.squeeze(1), (weight - quantised * scales).norm(dim=1)


def in_8_bits(values: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Return values in 8 bits, and the scale that brings them back."""
    # Not zero, so that zeros stay zeros; NaN stays, so that there is no bound and every term is a candidate.
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
