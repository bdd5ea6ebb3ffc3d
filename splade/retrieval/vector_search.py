"""Search for queries that are vectors, in an index whose vectors have a vocabulary of their own: no model runs."""

from collections.abc import Iterator, Mapping

import numpy as np

from splade.config.schema import RunConfig
from splade.datasets.vector_queries import VectorQueries
from splade.errors import DataError
from splade.retrieval.collection_index import Index
from splade.retrieval.index_search import IndexRetriever, QueryTally
from splade.vectors import SparseVectors

_AT_ONCE = 512


class VectorRetriever(IndexRetriever):
    """Searches an index for the vectors of `VectorQueries`, of threshold, effort and threads as configured."""

    def __init__(self, index: Index, run: RunConfig):
        super().__init__("vectors", index, run.threshold, run.search_effort, run.n_threads)

    def _encoded(self, queries: Mapping[str, str], tally: QueryTally) -> Iterator[SparseVectors]:
        if not isinstance(queries, VectorQueries):
            raise DataError("the index has a vocabulary of its own: its queries are vectors, and these are texts")
        for first in range(0, len(queries), _AT_ONCE):
            yield queries.vectors.rows(first, min(len(queries), first + _AT_ONCE))

    def _first_query(self) -> SparseVectors:
        most_frequent = int(np.argmax(self.index.postings.posting_counts))
        return SparseVectors.from_rows([([most_frequent], [1.0])], self.index.postings.vocab_size)
