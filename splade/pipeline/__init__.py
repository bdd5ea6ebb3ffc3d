"""The two long jobs that several tasks share: a collection into an index, and queries into a run."""

from splade.pipeline.indexing import index_collection, open_index_of
from splade.pipeline.retrieval import RetrievalStats, Retriever

__all__ = ["RetrievalStats", "Retriever", "index_collection", "open_index_of"]
