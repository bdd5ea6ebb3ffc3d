"""Texts to sparse vectors: batched, streaming, divided among processes."""

from splade.encoding.batching import encode_texts
from splade.encoding.queries import QueryEncoder, encode_query
from splade.encoding.sharding import shard_range

__all__ = ["QueryEncoder", "encode_query", "encode_texts", "shard_range"]
