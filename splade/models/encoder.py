"""What every sparse encoder offers, whatever it is made of: training, indexing and search ask no more of it."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from splade.vectors import SparseVectors


class SparseEncoder(nn.Module, ABC):
    """Turns batches of token ids into sparse vectors over its vocabulary.

    Attributes:
        vocab_size: number of terms of the vectors.
    """

    vocab_size: int

    @abstractmethod
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode a batch for training.

        Args:
            input_ids: (batch, length) int64 token ids.
            attention_mask: (batch, length) int64, zero for padding.

        Returns:
            (batch, vocab_size) float32 non-negative weights.
        """

    @abstractmethod
    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> SparseVectors:
        """Encode the same, on any device, without autograd and without dropout: one vector per row of the batch.

        Raises:
            ModelError: a weight is not a finite number.
        """
