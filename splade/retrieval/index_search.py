"""What every search of an inverted index has in common, wherever the vectors of the queries come from."""

import itertools
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from splade.distributed import available_threads
from splade.evaluation.checks import Finding, check_vector_counts, raise_errors
from splade.evaluation.costs import Costs
from splade.evaluation.expected_flops import flops, term_probabilities
from splade.inverted_index import SearchResults
from splade.inverted_index.own_terms import has_own_terms
from splade.inverted_index.two_step import TwoStepIndex
from splade.progress import progress_bar
from splade.retrieval.collection_index import Index
from splade.retrieval.protocol import Ranking, Retriever
from splade.storage.atomic import JsonObject
from splade.vectors import SparseVectors

_COMPARED_QUERIES = 50
"""Queries of `retrieve` from which the overlap of an approximate search with exact search is measured."""


class IndexRetriever(Retriever):
    """Searches an index for vectors of queries.

    Args:
        name: in tables and messages.
        index: what is searched.
        threshold: only documents with a greater score are returned.
        effort: 1 is exact; less is faster and may miss documents (see `InvertedIndex.search`).
        n_threads: threads that share the queries of `retrieve`; 0: one per core.
        two_step: searched in place of the index's postings; `effort` is then that of its first step.
    """

    def __init__(
        self,
        name: str,
        index: Index,
        threshold: float = 0.0,
        effort: float = 1.0,
        n_threads: int = 0,
        two_step: TwoStepIndex | None = None,
    ):
        self.name = name
        self.index = index
        self.threshold = threshold
        self.effort = effort
        self.n_threads = available_threads(n_threads)
        self.two_step = two_step
        self._tally = QueryTally(index.postings.vocab_size)

    @abstractmethod
    def _encoded(self, queries: Mapping[str, str], tally: "QueryTally") -> Iterator[SparseVectors]:
        """Return the vectors of the queries, in their order, some at a time."""

    @abstractmethod
    def _first_query(self) -> SparseVectors:
        """Return the vector of a query to warm up with."""

    def retrieve(self, queries: Mapping[str, str], top_k: int) -> Iterator[tuple[str, Ranking]]:
        """Yield (query_id, {doc_id: score}) for every query, in their order, best document first."""
        postings = self.index.postings
        tally = self._tally = QueryTally(postings.vocab_size, top_k, self.kind_of_search)
        if not queries:
            return
        # Compiling and first allocations are in no measured query.
        self._search(self._first_query(), top_k)
        query_ids = iter(queries)
        with progress_bar("searching", total=len(queries), unit="query") as bar:
            for vectors in tally.encoded_ahead(self._encoded(queries, tally)):
                start = time.perf_counter()
                results = self._search(vectors, top_k)
                tally.search_seconds += time.perf_counter() - start
                if tally.search is not None:
                    compared = vectors.rows(0, min(len(vectors), _COMPARED_QUERIES - tally.n_compared))
                    tally.compare(results, postings.search(compared, min(10, top_k), self.threshold))
                tally.count(vectors, results)
                for i, query_id in enumerate(itertools.islice(query_ids, len(vectors))):
                    doc_idx, scores = results.row(i)
                    yield query_id, dict(zip(postings.doc_ids(doc_idx), scores.tolist(), strict=True))
                bar.update(len(vectors))

    def costs(self) -> Costs:
        """Return the costs of the index and of the last `retrieve`."""
        tally, postings = self._tally, self.index.postings
        known = Costs(model=self.name, n_docs=postings.n_docs, L0_d=postings.mean_terms, index_bytes=postings.n_bytes)
        if not tally.n_queries:
            return known
        return tally.add_to(known, term_probabilities(postings.posting_counts, postings.n_docs), self.n_threads)

    def query_distribution(self) -> JsonObject | None:
        """Return of the last `retrieve` how many queries had each term, and how many had so many terms."""
        tally = self._tally
        terms = {int(term): int(tally.term_counts[term]) for term in np.flatnonzero(tally.term_counts)}
        counts = {"terms": terms, "lengths": dict(sorted(tally.lengths.items()))}
        return {"index": str(self.index.postings.path.absolute()), "n_queries": tally.n_queries} | counts

    def findings(self) -> list[Finding]:
        """Are the query vectors of the last `retrieve` what a trained sparse encoder gives?

        Raises:
            DataError: every query is empty.
        """
        counts = self._tally.n_queries, self._tally.n_empty, self._tally.mean_terms
        vocab_size = None if has_own_terms(self.index.postings) else self.index.postings.vocab_size
        return raise_errors(check_vector_counts(*counts, vocab_size, "query"))

    def known_doc_ids(self, wanted: Iterable[str]) -> list[str]:
        """Return a few ids of the index, for messages, then those of the wanted ids that it holds."""
        postings = self.index.postings
        return [*postings.doc_ids(range(min(3, postings.n_docs))), *sorted(postings.known_doc_ids(wanted))]

    @property
    def kind_of_search(self) -> str | None:
        """`two-step` or `approximate`; None: exact."""
        return "two-step" if self.two_step is not None else "approximate" if self.effort < 1 else None

    def _search(
        self, vectors: SparseVectors, top_k: int, effort: float | None = None, n_threads: int | None = None
    ) -> SearchResults:
        searched = self.index.postings if self.two_step is None else self.two_step
        effort, n_threads = self.effort if effort is None else effort, n_threads or self.n_threads
        return searched.search(vectors, top_k, self.threshold, effort, n_threads)


class QueryTally:
    """Counts of the queries of one `retrieve`."""

    def __init__(self, vocab_size: int, top_k: int = 0, search: str | None = None):
        self.term_counts = np.zeros(vocab_size, dtype=np.int64)
        self.top_k, self.search = top_k, search
        self.n_compared, self._overlaps = 0, 0.0
        self.lengths: Counter[int] = Counter()
        self.n_queries = self.n_empty = self.n_without_result = 0
        self.encoding_seconds = self.search_seconds = 0.0

    @property
    def mean_terms(self) -> float:
        """Mean number of non-zero terms per query."""
        return float(self.term_counts.sum() / max(1, self.n_queries))

    def encoded_ahead(self, encoded: Iterator[SparseVectors]) -> Iterator[SparseVectors]:
        """Yield groups of query vectors; while one group is searched, a thread encodes the next."""

        def next_group() -> SparseVectors | None:
            start = time.perf_counter()
            vectors = next(encoded, None)
            self.encoding_seconds += time.perf_counter() - start
            return vectors

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode") as thread:
            coming = thread.submit(next_group)
            while (vectors := coming.result()) is not None:
                coming = thread.submit(next_group)
                yield vectors

    def count(self, vectors: SparseVectors, results: SearchResults) -> None:
        """Count a group of queries and what was found for them."""
        self.n_queries += len(vectors)
        self.n_empty += int((vectors.lengths == 0).sum())
        self.lengths.update(vectors.lengths.tolist())
        self.n_without_result += int((np.diff(results.indptr) == 0).sum())
        self.term_counts += np.bincount(vectors.term_ids, minlength=len(self.term_counts))

    def compare(self, results: SearchResults, exact: SearchResults) -> None:
        """Compare the first of some results with those of exact search, each of the best ten documents or fewer."""
        for i in range(len(exact)):
            best = exact.row(i)[0]
            found = np.isin(best, results.row(i)[0][: len(best)]).sum()
            self._overlaps += found / len(best) if len(best) else 1.0
        self.n_compared += len(exact)

    def add_to(self, costs: Costs, p_doc: np.ndarray, n_threads: int) -> Costs:
        """Return the costs with those of the queries."""
        n = self.n_queries
        return replace(
            costs,
            n_queries=n,
            L0_q=self.mean_terms,
            flops=flops(term_probabilities(self.term_counts, n), p_doc),
            encoding_ms_per_query=1e3 * self.encoding_seconds / n,
            search_ms_per_query=1e3 * self.search_seconds / n,
            n_threads=n_threads,
            top_k=self.top_k,
            search=self.search,
            overlap_at_10=self._overlaps / self.n_compared if self.n_compared else None,
            n_empty_queries=self.n_empty,
            n_empty_results=self.n_without_result,
        )
