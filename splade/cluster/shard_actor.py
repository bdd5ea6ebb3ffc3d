"""What an actor of Ray does that searches a shard. It starts on many machines, so it imports as little as it needs."""

import os

import numpy as np

from splade.inverted_index import InvertedIndex, SearchResults
from splade.inverted_index.layout import TermStatistics
from splade.vectors import SparseVectors


class ShardActor:
    """What an actor holds: the index of a shard."""

    def __init__(self, path: str):
        self._index = InvertedIndex.open(path)

    def search(
        self, given: tuple[SparseVectors, int, float, float, int], known: tuple[np.ndarray, TermStatistics]
    ) -> SearchResults:
        """Search for queries, by arguments of `InvertedIndex.search`; `known` are statistics of their terms."""
        terms, of_terms = known
        statistics = TermStatistics(*(np.zeros(self._index.vocab_size, values.dtype) for values in of_terms))
        for all_values, values in zip(statistics, of_terms, strict=True):
            all_values[terms] = values
        self._index.statistics = statistics
        return self._index.search(*given)

    def process_id(self) -> int:
        """Return the id of the actor's process on its machine."""
        return os.getpid()
