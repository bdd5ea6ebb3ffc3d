"""An inverted index: open, search, look inside."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from splade.errors import DataError, IndexFileError
from splade.inverted_index.document_ids import DocumentIds
from splade.inverted_index.kernels.block_kernels import find_posting
from splade.inverted_index.kernels.search import highest_score, search_batch
from splade.inverted_index.kernels.workspace import Rankings, thread_workspace
from splade.inverted_index.layout import (
    INDEX_FILE,
    SHARDS_FILE,
    WINDOW_BITS,
    TermStatistics,
    open_index_file,
    posting_lists,
)
from splade.storage.arrays import ArrayFile
from splade.vectors import SparseVectors

_BATCH_RESULTS = 1 << 20  # documents that one call of the kernel may return
_BATCH_QUERIES = 8
_KERNEL_TYPES = (np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.float32))
_LARGEST_SCORE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class SearchResults:
    """The rankings of several queries, in compressed sparse row form.

    Attributes:
        indptr: (n_queries + 1,) int64; query i owns the entries `indptr[i]:indptr[i + 1]`.
        doc_idx: int32, numbers of documents, best first: higher score, then the document that was indexed first.
        scores: float32, dot products of query and document.
    """

    indptr: np.ndarray
    doc_idx: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @classmethod
    def concatenate(cls, parts: Sequence["SearchResults"]) -> "SearchResults":
        """Join the rankings of several sets of queries, at least one."""
        indptr = np.cumsum(np.concatenate([np.zeros(1, np.int64), *(np.diff(part.indptr) for part in parts)]))
        docs, scores = ([getattr(part, name) for part in parts] for name in ("doc_idx", "scores"))
        return cls(indptr, np.concatenate(docs), np.concatenate(scores))

    def row(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return document numbers and scores of query `i`, as views."""
        span = slice(self.indptr[i], self.indptr[i + 1])
        return self.doc_idx[span], self.scores[span]


class InvertedIndex:
    """An index on disk, mapped into memory; made by `InvertedIndex.open`. Safe to use from several threads.

    Example:
        >>> import tempfile
        >>> from splade.inverted_index import IndexBuilder
        >>> vectors = SparseVectors.from_dense(np.array([[0, 2.0, 1.0], [3.0, 0, 0], [0, 1.0, 0]]))
        >>> folder = tempfile.mkdtemp()
        >>> builder = IndexBuilder(folder, vocab_size=3)
        >>> builder.add(["a", "b", "c"], vectors)
        >>> info = builder.finish()
        >>> index = InvertedIndex.open(folder)
        >>> doc_idx, scores = index.search(SparseVectors.from_dense(np.array([[0, 1.0, 0.5]])), top_k=2).row(0)
        >>> index.doc_ids(doc_idx), scores.tolist()
        (['a', 'c'], [2.5, 1.0])
    """

    def __init__(self, file: ArrayFile):
        self.file = file
        self._ids = DocumentIds(file.arrays["id_text"], file.arrays["id_ends"])
        self._lists = posting_lists(file)
        self.statistics = self.own_statistics()
        self.path, self.n_bytes = file.path, file.n_bytes
        self.n_docs, self.n_empty = file.integer("n_docs"), file.integer("n_empty")
        self.n_postings, self.vocab_size = file.integer("n_postings"), file.integer("vocab_size")
        self.metadata = file.json_object("metadata")

    def __repr__(self) -> str:
        return f"InvertedIndex({str(self.path)!r}, {self.n_docs} documents, {self.n_postings} postings)"

    @classmethod
    def open(cls, index_dir: str | Path) -> "InvertedIndex":
        """Open the index of a folder, or an index file itself.

        Raises:
            IndexFileError: no index there, or one that is unfinished, foreign, truncated or damaged.
        """
        path = Path(index_dir)
        if os.path.isdir(path):  # False, too, where there can be none
            if not (path / INDEX_FILE).exists():
                unfinished = any(path.glob(".build-*")) or any(path.glob("shards-*"))
                reason = "an unfinished index; run the same indexing again to complete it" if unfinished else "no index"
                if (path / SHARDS_FILE).exists():
                    reason = "an index in shards, which is not changed; index into one file, without config.n_shards"
                raise IndexFileError(f"{path.absolute()}: holds {reason}")
            path = path / INDEX_FILE
        return cls(open_index_file(path))

    @property
    def posting_counts(self) -> np.ndarray:
        """(vocab_size,) int64: number of documents that each term occurs in."""
        return np.diff(self._lists.block_postings[self._lists.term_blocks])

    def own_statistics(self) -> TermStatistics:
        """Return the statistics of this file alone, which are those of the collection unless the file is a shard."""
        return TermStatistics(self._lists.term_max, self.posting_counts)

    @property
    def mean_terms(self) -> float:
        """Mean number of terms of a document."""
        return self.n_postings / self.n_docs

    def doc_id(self, doc_idx: int) -> str:
        """Return the user's id of a document."""
        if not 0 <= doc_idx < self.n_docs:
            raise DataError(f"document number {doc_idx}: the index holds 0 to {self.n_docs - 1}")
        return self._ids[doc_idx]

    def doc_number(self, doc_id: str) -> int:
        """Return the position of a document, from 0; a DataError for an id that the index does not hold.

        All ids are looked at: 10 ms for a million.
        """
        return int(self._ids.numbers([doc_id])[0])

    def doc_ids(self, doc_idx: Iterable[int] | None = None) -> list[str]:
        """Return the user's ids of some documents, of all by default."""
        if doc_idx is None:
            return list(self._ids)
        chosen = np.asarray(doc_idx if isinstance(doc_idx, np.ndarray) else list(doc_idx))
        if len(chosen) and (chosen.dtype.kind not in "iu" or chosen.min() < 0 or chosen.max() >= self.n_docs):
            raise DataError(f"document numbers are integers from 0 to {self.n_docs - 1}, given {doc_idx!r}")
        return self._ids.strings(chosen)

    def known_doc_ids(self, doc_ids: Iterable[str]) -> set[str]:
        """Return those of the given ids that the index holds."""
        return self._ids.known(doc_ids)

    def search(
        self,
        queries: SparseVectors,
        top_k: int,
        threshold: float = 0.0,
        effort: float = 1.0,
        n_threads: int = 1,
    ) -> SearchResults:
        """Return for each query the documents with the highest dot products.

        Args:
            queries: over the index's vocabulary; empty queries and terms that no document has are allowed.
            top_k: at most so many documents for each query, at least 1.
            threshold: only documents with a greater score; documents that share no term are never returned.
            effort: 1 is exact; less is faster and misses more: the share, of what a query's unread terms could at most
                add to a document's score, that the search takes into account. Expect an overlap@10 with exact search of
                0.999 at 0.7, 0.99 at 0.6 and 0.95 at 0.5 in half a million documents, less in more; larger `top_k`
                overlap more.
            n_threads: threads that share the queries.

        Raises:
            DataError: wrong vectors, `top_k`, `effort` or `n_threads`.
        """
        indptr, term_ids, weights = self.check_search(queries, top_k, threshold, effort, n_threads)
        top_k, min_score = min(int(top_k), self.n_docs), np.float32(min(max(0.0, threshold), _LARGEST_SCORE))
        size = max(1, min(_BATCH_QUERIES, _BATCH_RESULTS // top_k, -(-len(queries) // n_threads)))

        def run(first: int) -> SearchResults:
            rankings = Rankings.empty(min(size, len(queries) - first), top_k)
            search_batch(
                self._lists,
                self.statistics,
                self.n_docs,
                indptr[first : first + size + 1],
                term_ids,
                weights,
                min_score,
                float(effort),
                top_k,
                thread_workspace(top_k),
                rankings,
            )
            n_found = rankings.indptr[-1]
            return SearchResults(rankings.indptr, rankings.doc_idx[:n_found].copy(), rankings.scores[:n_found].copy())

        if len(queries) <= size:
            return run(0)
        if n_threads == 1:
            return SearchResults.concatenate([run(first) for first in range(0, len(queries), size)])
        with ThreadPoolExecutor(n_threads) as pool:
            return SearchResults.concatenate(list(pool.map(run, range(0, len(queries), size))))

    def check_search(
        self, queries: SparseVectors, top_k: int, threshold: float, effort: float, n_threads: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Refuse what `search` cannot do.

        Returns:
            `indptr`, `term_ids` and `weights` of the queries, as int64, int32 and float32 that kernels can be given.

        Raises:
            DataError: wrong vectors, `top_k`, `threshold`, `effort` or `n_threads`.
        """
        if not isinstance(queries, SparseVectors):
            raise DataError(f"queries are given as SparseVectors, got {type(queries).__name__}")
        counts_given = isinstance(top_k, Integral) and isinstance(n_threads, Integral)
        numbers_given = isinstance(effort, Real) and isinstance(threshold, Real)
        right = counts_given and numbers_given and top_k >= 1 and n_threads >= 1 and 0 < effort <= 1
        if not right or threshold != threshold:  # NaN
            raise DataError(
                "top_k and n_threads are integers of at least 1, threshold is a number, effort is above 0 and at most"
                f" 1; given top_k={top_k!r}, n_threads={n_threads!r}, threshold={threshold!r}, effort={effort!r}"
            )
        given = queries.indptr, queries.term_ids, queries.weights
        if queries.vocab_size != self.vocab_size or not _are_of_kernel_types(*given):
            queries.check(self.vocab_size)
        # Copies, because functions would be compiled anew for arrays that are not contiguous or cannot be written to.
        arrays = given[0].astype(np.int64), given[1].astype(np.int32), given[2].astype(np.float32)
        highest = highest_score(*arrays, self.statistics.largest)
        if not highest < _LARGEST_SCORE:
            queries.check(self.vocab_size)
            raise DataError(
                f"scores of up to {highest:.2g} could occur, float32 numbers end at {_LARGEST_SCORE:.2g}: the weights"
                " of the queries are too large"
            )
        return arrays

    def vector(self, doc_idx: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the term ids (int32) and weights (float32) of a document.

        Postings are stored by term, so this looks the document up in every term's list: a few milliseconds.
        """
        if not 0 <= doc_idx < self.n_docs:
            raise DataError(f"document number {doc_idx}: the index holds 0 to {self.n_docs - 1}")
        lists, window, offset = self._lists, doc_idx >> WINDOW_BITS, doc_idx & ((1 << WINDOW_BITS) - 1)
        blocks = np.flatnonzero(lists.block_windows == window)
        spans = zip(lists.block_postings[blocks], lists.block_postings[blocks + 1], strict=True)
        places = np.array([find_posting(lists.offsets, begin, end, offset) for begin, end in spans], np.int64)
        there = places >= 0
        term_ids = np.searchsorted(lists.term_blocks, blocks[there], "right") - 1
        return term_ids.astype(np.int32), lists.impacts[places[there]]

    def impacts(self, doc_idx: int, term_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return those of some terms that a document has, and their weights (float32), in their order."""
        if not 0 <= doc_idx < self.n_docs:
            raise DataError(f"document number {doc_idx}: the index holds 0 to {self.n_docs - 1}")
        lists, window, offset = self._lists, doc_idx >> WINDOW_BITS, doc_idx & ((1 << WINDOW_BITS) - 1)
        there, places = [], []
        for term in term_ids.tolist():
            first, last = lists.term_blocks[term], lists.term_blocks[term + 1]
            block = first + int(np.searchsorted(lists.block_windows[first:last], window))
            if block < last and lists.block_windows[block] == window:
                begin, end = lists.block_postings[block], lists.block_postings[block + 1]
                place = find_posting(lists.offsets, begin, end, offset)
                if place >= 0:
                    there.append(term)
                    places.append(place)
        return np.array(there, np.int32), lists.impacts[np.array(places, np.int64)]

    def verify(self) -> None:
        """Read the whole file and compare its checksum.

        Raises:
            IndexFileError: the file is damaged.
        """
        open_index_file(self.path, verify=True)

    def describe(self) -> dict[str, object]:
        """Return what is in the index, as values that JSON can hold."""
        counts = self.posting_counts
        return {
            "path": str(self.path.absolute()),
            "n_docs": self.n_docs,
            "n_empty": self.n_empty,
            "n_postings": self.n_postings,
            "vocab_size": self.vocab_size,
            "terms_in_use": int((counts > 0).sum()),
            "longest_posting_list": int(counts.max()),
            "mean_terms": self.mean_terms,
            "n_bytes": self.n_bytes,
            "bytes_per_posting": self.n_bytes / max(1, self.n_postings),
            "metadata": self.metadata,
        }


def _are_of_kernel_types(indptr: object, term_ids: object, weights: object) -> bool:
    return (
        isinstance(indptr, np.ndarray)
        and isinstance(term_ids, np.ndarray)
        and isinstance(weights, np.ndarray)
        and indptr.ndim == term_ids.ndim == weights.ndim == 1
        and (indptr.dtype, term_ids.dtype, weights.dtype) == _KERNEL_TYPES
    )
