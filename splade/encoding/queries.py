"""One short text at a time, as fast as possible: the query side of search."""

import numpy as np
import torch

from splade.encoding.tokens import Tokenizer, single_text_tokenizer, token_ids
from splade.models.encoder import SparseEncoder
from splade.vectors import SparseVectors


class QueryEncoder:
    """Encodes single queries without padding, batching or autograd.

    Args:
        encoder: turns batches of token ids into sparse vectors.
        tokenizer: a transformers tokenizer.
        max_length: tokens of a query beyond this, special tokens included, are cut off.
    """

    def __init__(self, encoder: SparseEncoder, tokenizer: Tokenizer, max_length: int) -> None:
        self.encoder = encoder
        self._token_ids = single_text_tokenizer(tokenizer, max_length)

    def __call__(self, query: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the term ids (int32, ascending) and weights (float32) of a query."""
        return self.encode(query).row(0)

    def encode(self, query: str) -> SparseVectors:
        """Return the vector of a query, as a set of one."""
        return _encode(self.encoder, self._token_ids(query))


def encode_query(encoder: SparseEncoder, tokenizer: Tokenizer, query: str, max_length: int) -> SparseVectors:
    """Encode one query; for many, keep a `QueryEncoder`."""
    return _encode(encoder, token_ids(tokenizer, [query], max_length)[0])


def _encode(encoder: SparseEncoder, ids: list[int]) -> SparseVectors:
    input_ids = torch.tensor([ids], dtype=torch.int64)
    return encoder.encode(input_ids, torch.ones_like(input_ids))
