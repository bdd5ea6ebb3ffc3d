"""Texts to sparse vectors: batched, streaming, divided among processes."""

from splade.encoding.queries import QueryEncoder, encode_query
from splade.encoding.sharding import shard_range
from splade.encoding.texts import encode_texts

__all__ = ["QueryEncoder", "encode_query", "encode_texts", "shard_range"]
