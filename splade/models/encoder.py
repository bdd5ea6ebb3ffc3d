"""What every sparse encoder offers, whatever it is made of: training, indexing and search ask no more of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from splade.config.schema import LARGEST_INT
from splade.errors import shown
from splade.models.head.pooling import ACTIVATIONS, Activation
from splade.vectors import SparseVectors


@dataclass(frozen=True)
class EncoderSettings:
    """What an encoder's vectors depend on besides its weights and the configuration: what the model's folder says.

    Attributes:
        activation: that of the head; None: nothing is said.
        top_k: only the largest weights of a vector are kept, that many; None: all.
        prompt: put before every text.
        max_length: tokens of a text beyond this are cut off, whatever the configuration says; None: nothing is said.
        special_tokens: whether the tokenizer adds those that mark the ends of a text.
    """

    activation: Activation | None = None
    top_k: int | None = None
    prompt: str = ""
    max_length: int | None = None
    special_tokens: bool = True

    @classmethod
    def from_json(cls, said: Mapping[str, object]) -> "EncoderSettings":
        """Return what a file says.

        Raises:
            TypeError: an unknown or missing name, or a value that cannot be.
        """
        settings = cls(**said)  # type: ignore[arg-type]  # checked below
        counts = (settings.top_k, settings.max_length)
        if not (
            settings.activation in (None, *ACTIVATIONS)
            and isinstance(settings.prompt, str)
            and all(count is None or type(count) is int and 0 < count <= LARGEST_INT for count in counts)
            and isinstance(settings.special_tokens, bool)
        ):
            raise TypeError(f"impossible values: {shown(str(said), 200)}")
        return settings


NOTHING_SAID = EncoderSettings()


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

    def token_weights(self, input_ids: Tensor, term_ids: Tensor) -> Tensor | None:
        """Return what each token of one text gives to some terms, before pooling; None: this encoder cannot tell.

        Args:
            input_ids: (length,) token ids of the text.
            term_ids: (n,) int64 terms.

        Returns:
            (length, n) float32 on the CPU. Pooled over tokens, they are the weights of the terms.
        """
        return None

    def gather(self, parts: Sequence[SparseVectors], order: np.ndarray) -> SparseVectors:
        """Return the rows of several batches in an order."""
        return SparseVectors.concatenate(list(parts), self.vocab_size).take(order)
