"""Queries into a run: encode, search, and keep what it cost."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from splade.config.schema import RunConfig
from splade.distributed import available_threads
from splade.encoding import encode_texts
from splade.inverted_index import InvertedIndex, SearchResults
from splade.models.splade import Splade
from splade.pipeline.checks import check_max_length
from splade.progress import progress_bar
from splade.vectors import SparseVectors


@dataclass(frozen=True)
class RetrievalStats:
    """What retrieving for a set of queries was like.

    Attributes:
        n_queries: queries searched.
        n_empty_queries: queries whose vector is zero, for which nothing can be found.
        n_empty_results: queries for which nothing was found.
        L0_q: mean number of non-zero terms per query.
        flops: expected multiplications per query-document pair.
        encoding_ms_per_query: wall-clock milliseconds.
        search_ms_per_query: wall-clock milliseconds, with `n_threads` threads.
        n_threads: search threads.
        top_k: documents asked for.
    """

    n_queries: int
    n_empty_queries: int
    n_empty_results: int
    L0_q: float
    flops: float
    encoding_ms_per_query: float
    search_ms_per_query: float
    n_threads: int
    top_k: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


class Retriever:
    """Searches an index for queries given as texts.

    Args:
        model: encodes the queries.
        index: what is searched.
        max_length: tokens per query.
        batch_size: upper bound of queries per batch.
        top_k: documents per query.
        threshold: only documents scoring above it.
        effort: 1 exact; less is faster and may miss documents.
        n_threads: search threads.
        encode: stands in for the model: query texts to their vectors, in groups (`StoredQueries.encode`).

    Raises:
        ModelError: `max_length` is more than the model has positions for.
    """

    def __init__(
        self,
        model: Splade,
        index: InvertedIndex,
        max_length: int,
        batch_size: int,
        top_k: int,
        threshold: float = 0.0,
        effort: float = 1.0,
        n_threads: int = 1,
        encode: Callable[[list[str]], Iterator[SparseVectors]] | None = None,
    ):
        check_max_length(model, max_length)
        self.encode = encode if encode is not None else self._encode
        self.model = model
        self.index = index
        self.max_length = max_length
        self.batch_size = batch_size
        self.top_k = top_k
        self.threshold = threshold
        self.effort = effort
        self.n_threads = n_threads
        self._query_counts = np.zeros(model.vocab_size, dtype=np.int64)
        self._n_queries = self._n_empty = self._n_without_result = 0
        self._encoding_seconds = self._search_seconds = 0.0

    @classmethod
    def of(
        cls,
        model: Splade,
        index: InvertedIndex,
        run: RunConfig,
        encode: Callable[[list[str]], Iterator[SparseVectors]] | None = None,
    ) -> "Retriever":
        """Return a retriever with the settings of `config`."""
        return cls(
            model,
            index,
            run.max_length,
            run.index_retrieve_batch_size,
            run.top_k,
            run.threshold,
            run.search_effort,
            available_threads(run.n_threads),
            encode,
        )

    def run(
        self, queries: Iterable[tuple[str, str]], total: int | None = None
    ) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield (query_id, {doc_id: score}) for every (query_id, text), best document first, in the given order."""
        self._warm_up()
        ids, texts = (list(column) for column in zip(*queries, strict=True))
        bar = progress_bar("searching", total=total or len(ids), unit="query")
        query_ids = iter(ids)
        for vectors in self._encoded_ahead(self.encode(texts)):
            start = time.perf_counter()
            results = self.index.search(vectors, self.top_k, self.threshold, self.effort, self.n_threads)
            self._search_seconds += time.perf_counter() - start
            self._count(vectors, results)
            for i, query_id in enumerate(itertools.islice(query_ids, len(vectors))):
                doc_idx, scores = results.row(i)
                yield query_id, dict(zip(self.index.doc_ids(doc_idx), scores.tolist(), strict=True))
            bar.update(len(vectors))
        bar.close()

    def stats(self) -> RetrievalStats:
        """Return the figures of all queries searched so far."""
        n = max(1, self._n_queries)
        p_query, p_doc = self._query_counts / n, self.index.posting_counts / self.index.n_docs
        return RetrievalStats(
            n_queries=self._n_queries,
            n_empty_queries=self._n_empty,
            n_empty_results=self._n_without_result,
            L0_q=float(self._query_counts.sum() / n),
            flops=float(p_query @ p_doc),
            encoding_ms_per_query=1e3 * self._encoding_seconds / n,
            search_ms_per_query=1e3 * self._search_seconds / n,
            n_threads=self.n_threads,
            top_k=self.top_k,
        )

    def _warm_up(self) -> None:
        """Encode and search once, so that compiling and first allocations are in no measured query."""
        for vectors in self._encode(["a first query"]):
            self.index.search(vectors, self.top_k, self.threshold, self.effort, self.n_threads)

    def _encode(self, texts: list[str]) -> Iterator[SparseVectors]:
        return encode_texts(
            self.model.query_encoder, self.model.query_tokenizer, texts, self.max_length, self.batch_size
        )

    def _encoded_ahead(self, encoded: Iterator[SparseVectors]) -> Iterator[SparseVectors]:
        """Yield groups of query vectors; while one group is searched, a thread encodes the next."""

        def next_group() -> SparseVectors | None:
            start = time.perf_counter()
            vectors = next(encoded, None)
            self._encoding_seconds += time.perf_counter() - start
            return vectors

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode") as thread:
            coming = thread.submit(next_group)
            while (vectors := coming.result()) is not None:
                coming = thread.submit(next_group)
                yield vectors

    def _count(self, vectors: SparseVectors, results: SearchResults) -> None:
        self._n_queries += len(vectors)
        self._n_empty += int((vectors.lengths == 0).sum())
        self._n_without_result += int((np.diff(results.indptr) == 0).sum())
        self._query_counts += np.bincount(vectors.term_ids, minlength=len(self._query_counts))
