"""Inverted index: storage, building and search."""

from splade.inverted_index.builder import IndexBuilder
from splade.inverted_index.index import InvertedIndex, SearchResults
from splade.inverted_index.merging import INDEX_FILE, IndexInfo

__all__ = ["INDEX_FILE", "IndexBuilder", "IndexInfo", "InvertedIndex", "SearchResults"]
