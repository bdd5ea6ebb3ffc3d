"""Inverted index: storage, building, updating and search."""

from splade.inverted_index.build import IndexBuilder
from splade.inverted_index.layout import INDEX_FILE
from splade.inverted_index.merge import IndexInfo
from splade.inverted_index.read import InvertedIndex, SearchResults
from splade.inverted_index.sharded import ShardedIndex, open_index
from splade.inverted_index.update import add_documents, delete_documents, update_documents

__all__ = [
    "INDEX_FILE",
    "IndexBuilder",
    "IndexInfo",
    "InvertedIndex",
    "SearchResults",
    "ShardedIndex",
    "add_documents",
    "delete_documents",
    "open_index",
    "update_documents",
]
