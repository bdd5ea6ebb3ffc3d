"""Vectors of an index of this toolkit that another engine searches.

The index numbers the documents, and is the exact search that the engine is compared with.
"""

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np

from splade.encoding.sparse_model import SparseModel
from splade.inverted_index import SearchResults
from splade.retrieval.collection_index import Index
from splade.retrieval.sparse import SparseRetriever
from splade.vectors import SparseVectors

Answers = Iterator[tuple[list[str], np.ndarray]]
"""For each query the ids and the scores (float32) of what was found."""


class ElsewhereRetriever(SparseRetriever):
    """Queries are encoded here and searched by another engine; its overlap with exact search is measured meanwhile.

    Args:
        engine: its name.
        model: encodes the queries.
        index: where the vectors come from.
        threshold: only documents with a greater score are returned.
        n_threads: of the engine; 0: one per core.

    Raises:
        IndexFileError: another model made the index.
    """

    def __init__(self, engine: str, model: SparseModel, index: Index, threshold: float = 0.0, n_threads: int = 1):
        super().__init__(model, index, threshold, n_threads=n_threads)
        self.name = f"{model.name} in {engine}"
        self._numbers = {doc_id: number for number, doc_id in enumerate(index.postings.doc_ids())}

    @property
    def kind_of_search(self) -> str:
        """`approximate`, whatever the engine does."""
        return "approximate"

    @abstractmethod
    def _ask(self, vectors: SparseVectors, top_k: int) -> Answers:
        """Yield what the engine finds for each query."""

    def _search(
        self, vectors: SparseVectors, top_k: int, effort: float | None = None, n_threads: int | None = None
    ) -> SearchResults:
        """Ask the engine; of equal scores, the document that was indexed first stands first."""
        counts, docs, scores = [0], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
        for ids, found in self._ask(vectors, min(top_k, self.index.postings.n_docs)):
            numbers = np.array([self._numbers[doc_id] for doc_id in ids], np.int64)
            order = np.lexsort((numbers, -found))
            order = order[found[order] > self.threshold]
            counts.append(len(order))
            docs.append(numbers[order])
            scores.append(found[order])
        return SearchResults(np.cumsum(counts), np.concatenate(docs), np.concatenate(scores))
