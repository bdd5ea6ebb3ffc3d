"""Texts to sparse vectors: batched, streaming, divided among processes."""

from splade.encoding.batching import encode_texts
from splade.encoding.queries import QueryEncoder, encode_query

__all__ = ["QueryEncoder", "encode_query", "encode_texts"]
