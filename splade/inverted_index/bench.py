"""The index as a comparison of retrieval engines wants it: build from arrays, search one query at a time."""

import tempfile

import numpy as np

from splade.inverted_index.build import IndexBuilder
from splade.inverted_index.read import InvertedIndex
from splade.vectors import SparseVectors


class Engine:
    """An index in a temporary folder."""

    def __init__(self, folder: tempfile.TemporaryDirectory):
        self._folder = folder
        self._index = InvertedIndex.open(folder.name)

    def search(self, term_ids: np.ndarray, weights: np.ndarray, k: int, effort: float = 1.0) -> np.ndarray:
        """Return the numbers of the best documents, best first."""
        indptr = np.array([0, len(term_ids)])
        query = SparseVectors(indptr, term_ids, weights, self._index.vocab_size)
        return self._index.search(query, top_k=k, effort=effort).doc_idx


def build(indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, vocab_size: int) -> Engine:
    """Build an index on disk, from the arrays of a CSR matrix to the finished file, and open it."""
    folder = tempfile.TemporaryDirectory(prefix="splade-index-")
    builder = IndexBuilder(folder.name, vocab_size)
    builder.add(list(map(str, range(len(indptr) - 1))), SparseVectors(indptr, indices, data, vocab_size))
    builder.finish()
    return Engine(folder)
