"""What encoding a collection asks of an encoder, whatever it is made of."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from splade.vectors import SparseVectors


@runtime_checkable
class SparseEncoder(Protocol):
    """Turns batches of token ids into sparse vectors over its vocabulary."""

    @property
    def vocab_size(self) -> int:
        """Number of terms of the vectors."""
        ...

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> SparseVectors:
        """Encode a batch without autograd.

        Args:
            input_ids: (batch, length) int64 token ids, on any device.
            attention_mask: (batch, length) int64, zero for padding.

        Returns:
            One vector per row of the batch, in the same order.
        """
        ...
