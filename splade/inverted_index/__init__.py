"""Inverted index: storage, building, updating and search."""

from splade.interop.vector_files import read_anserini_vectors, read_npz_vectors
from splade.inverted_index.build import IndexBuilder
from splade.inverted_index.merge import INDEX_FILE, IndexInfo
from splade.inverted_index.read import InvertedIndex, SearchResults
from splade.inverted_index.update import add_documents, delete_documents

__all__ = [
    "INDEX_FILE",
    "IndexBuilder",
    "IndexInfo",
    "InvertedIndex",
    "SearchResults",
    "add_documents",
    "delete_documents",
    "read_anserini_vectors",
    "read_npz_vectors",
]
