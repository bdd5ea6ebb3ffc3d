"""Learned sparse retrieval: an inverted index finds the documents whose vectors match the query's best."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from splade.config.schema import RunConfig
from splade.datasets.text_collection import PairCollection
from splade.distributed import first_process_first, n_processes
from splade.encoding.shared import encode_shared
from splade.encoding.sparse_model import SparseModel
from splade.errors import DataError
from splade.inverted_index.two_step import TwoStepIndex
from splade.retrieval.collection_index import Index, check_made_by
from splade.retrieval.hits import Hits
from splade.retrieval.index_search import IndexRetriever, QueryTally
from splade.vectors import SparseVectors


@dataclass(frozen=True)
class _SharedQueries:
    """Vectors that several processes have made of queries, and the seconds that it took."""

    queries: Mapping[str, str]
    vectors: list[SparseVectors]
    seconds: float


class SparseRetriever(IndexRetriever):
    """Searches an index for queries given as texts. Safe to use from several threads.

    Args:
        model: encodes the queries.
        index: what is searched; this model must have made it.
        threshold: only documents with a greater score are returned.
        effort: 1 is exact; less is faster and may miss documents (see `InvertedIndex.search`).
        n_threads: threads that share the queries of `retrieve`; 0: one per core.
        two_step: searched in place of the index's postings; `effort` is then that of its first step.

    Raises:
        IndexFileError: another model made the index.

    Example:
        >>> import splade, tempfile
        >>> model = splade.load("pkg://cognition/model")
        >>> index = splade.Index.build(tempfile.mkdtemp(), model, [("d1", "A cat sat."), ("d2", "Dogs bark.")])
        >>> for hit in SparseRetriever(model, index).search("noisy dog", top_k=1):
        ...     print(hit.rank, hit.doc_id)
        1 d2
    """

    def __init__(
        self,
        model: SparseModel,
        index: Index,
        threshold: float = 0.0,
        effort: float = 1.0,
        n_threads: int = 0,
        two_step: TwoStepIndex | None = None,
    ):
        check_made_by(index.postings, model)
        super().__init__(model.name, index, threshold, effort, n_threads, two_step)
        self.model = model
        self._shared: _SharedQueries | None = None

    @classmethod
    def configured(cls, model: SparseModel, index: Index, run: RunConfig) -> "SparseRetriever":
        """Make the retriever that a configuration asks for, and the second index of a two-step search if need be.

        Raises:
            IndexFileError: another model made the index.
            WriteError: the second index cannot be written beside the first.
        """
        two_step, asked = None, run.two_step
        if asked.candidates is not None:
            check_made_by(index.postings, model)
            terms, candidates = (asked.document_terms, asked.query_terms), asked.candidates
            two_step = first_process_first(lambda: TwoStepIndex.beside(index.postings, *terms, candidates))
        return cls(model, index, run.threshold, run.search_effort, run.n_threads, two_step)

    @property
    def tag(self) -> str:
        """Name in TREC runs."""
        return "splade"

    def search(self, text: str, top_k: int = 10) -> Hits:
        """Return the best documents for one query.

        Raises:
            DataError: `text` is no string (`search_many` takes several), or `top_k` is less than 1.
        """
        if not isinstance(text, str):
            raise DataError(f"search takes one query, a string, got a {type(text).__name__}; search_many takes several")
        return self.hits(self.model.queries.encode_one(text), top_k)[0]

    def search_many(self, texts: Iterable[str], top_k: int = 10) -> list[Hits]:
        """Return the best documents for each of several queries, in their order."""
        groups = self.model.queries.encode_stream([texts] if isinstance(texts, str) else texts)
        return [hits for vectors in groups for hits in self.hits(vectors, top_k, n_threads=self.n_threads)]

    def share(self, queries: Mapping[str, str], top_k: int) -> None:
        """Encode queries by all processes for the first one, which keeps the vectors for `retrieve`."""
        if n_processes() == 1 or not queries:
            return
        start = time.perf_counter()
        texts = PairCollection(queries.items(), "queries")
        vectors = [vectors for _, vectors in encode_shared(self.model.queries, texts)]
        self._shared = _SharedQueries(queries, vectors, time.perf_counter() - start)

    def _encoded(self, queries: Mapping[str, str], tally: QueryTally) -> Iterator[SparseVectors]:
        """Return the vectors of the queries: those that all processes have made, or new ones."""
        shared, self._shared = self._shared, None
        if shared is None or shared.queries is not queries:
            return self.model.queries.encode_stream(queries.values())
        tally.encoding_seconds += shared.seconds
        return iter(shared.vectors)

    def _first_query(self) -> SparseVectors:
        return self.model.encode_queries("a first query")

    def hits(self, vectors: SparseVectors, top_k: int, effort: float | None = None, n_threads: int = 1) -> list[Hits]:
        """Return the best documents for each of several query vectors; `effort` instead of the retriever's own."""
        postings, tokens = self.index.postings, self.model.tokens
        results = self._search(vectors, top_k, effort, n_threads)
        return [Hits(*results.row(i), query, postings, tokens) for i, query in enumerate(vectors)]
