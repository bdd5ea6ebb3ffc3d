"""Which terms can have a weight at all: found with a product in half precision, so that only they are computed in full.

Of 30,000 terms a passage keeps some hundred. Processors that multiply bfloat16 natively do so two to three times as
fast as float32. Rounding hidden states and embeddings to bfloat16 changes a logit by no more than a known bound, so a
term whose rounded logit stays below zero by more than that has no weight. The few others are computed in float32:
weights are those of the float32 product, only their computation is shorter.

The bound. With u = 2^-8, the rounding error of bfloat16, and Cauchy-Schwarz, the product of a rounded state h and a
rounded embedding w, itself rounded, differs from h . w by at most (3 u + O(u^2)) |h| |w|.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from splade.models.pooling_blocks import PackedBlock, RoundedBlock, packed_blocks
from splade.models.pooling_kernels import possible_terms, segment_max_bfloat16

# 3 u, and 2 % for the terms of second order and the accumulation in float32.
RELATIVE_ERROR = 3 * 2.0**-8 * 1.02
# A model that is not trained for sparsity yet gives weight to half the vocabulary; then the full product is cheaper.
SELECTIVE = 0.2


class TermScreen:
    """An output embedding in half precision, and how far its logits may be from the truth.

    Args:
        weight: (vocabulary, dim) float32 output embedding.
        bias: (vocabulary,) output bias, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight.detach()
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        self.half_weight = weight.bfloat16()
        self.slack = RELATIVE_ERROR * weight.norm(dim=1)

    def blocks(self, hidden: Tensor, attention_mask: Tensor) -> Iterator[PackedBlock]:
        """Cut a (batch, length, dim) batch of float32 hidden states into blocks in bfloat16."""
        return packed_blocks(hidden.bfloat16(), attention_mask.bool(), RoundedBlock)

    def weights(self, block: PackedBlock, hidden: Tensor) -> Tensor:
        """Return the (passages, vocabulary) weights of a block under `max`.

        Args:
            block: one of `blocks`.
            hidden: (batch x length, dim) the hidden states in float32.
        """
        weights = hidden.new_zeros(block.size, len(self.weight))
        for passage, _, candidates, logits in self._candidate_logits(block, hidden):
            weights[passage, candidates] = torch.log1p(torch.relu(logits.amax(dim=0) + self.bias[candidates]))
        return weights

    def max_into(self, block: PackedBlock, hidden: Tensor, values: Tensor, winners: Tensor) -> None:
        """Write maxima of logits without bias, and which tokens won, for terms that can have a weight.

        Args:
            block: one of `blocks`.
            hidden: (batch x length, dim) the hidden states in float32.
            values: (passages, vocabulary) float32; -inf for all other terms.
            winners: (passages, vocabulary) int32; untouched for all other terms.
        """
        values.fill_(-torch.inf)
        for passage, rows, candidates, logits in self._candidate_logits(block, hidden):
            best, position = logits.max(dim=0)
            values[passage, candidates] = best
            winners[passage, candidates] = rows[position].to(winners.dtype)

    def is_selective(self, block: PackedBlock, hidden: Tensor) -> bool:
        """Whether a block, as an example of its batch, leaves so few candidates that screening saves work."""
        found = sum(len(candidates) for _, _, candidates in self._candidates(block, hidden))
        return found < SELECTIVE * block.size * len(self.weight)

    def _candidates(self, block: PackedBlock, hidden: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield each passage that has tokens, the rows of its tokens, and the terms that can have a weight."""
        rounded = torch.empty(block.size, len(self.weight), dtype=torch.bfloat16).view(torch.int16)
        for terms, logits in block.tiles(self.half_weight):
            segment_max_bfloat16(logits.view(torch.int16).numpy(), block.offsets, rounded.numpy(), terms.start)
        for passage, (start, stop) in enumerate(pairwise(block.offsets)):
            if start < stop:
                rows = block.rows[start:stop]
                reach = float(hidden[rows].norm(dim=1).max())
                found = possible_terms(rounded[passage].numpy(), self.bias.numpy(), self.slack.numpy(), reach)
                yield passage, rows, torch.from_numpy(found)

    def _candidate_logits(self, block: PackedBlock, hidden: Tensor) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Yield what `_candidates` does, and the (tokens, candidates) logits without bias, in float32."""
        for passage, rows, candidates in self._candidates(block, hidden):
            yield passage, rows, candidates, hidden[rows] @ self.weight[candidates].t()


def screening_pays(weight: Tensor) -> bool:
    """Whether this processor multiplies bfloat16 natively, and the weight is one that a screen is for."""
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return native and weight.device.type == "cpu" and weight.dtype == torch.float32
