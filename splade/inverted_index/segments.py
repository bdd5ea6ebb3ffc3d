"""Inverting documents: from vectors, one document after the other, to postings, one term after the other.

A segment is a part of a collection in inverted form. Building writes segments of bounded size to disk and merges them by
term. A finished index is a source of postings too, which is how documents are added and deleted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numba
import numpy as np

from splade.datasets.vectors import SparseVectors
from splade.inverted_index.array_file import ArrayFile, open_arrays, writing
from splade.inverted_index.document_ids import DocumentIds

KIND = "segment"


@dataclass(frozen=True)
class Postings:
    """Postings of a range of terms.

    Attributes:
        starts: (n_terms + 1,) int64; term i of the range owns the postings `starts[i]:starts[i + 1]`.
        docs: uint32, ascending within a term: the document's number in its source.
        weights: float32.
    """

    starts: np.ndarray
    docs: np.ndarray
    weights: np.ndarray


class PostingSource(Protocol):
    """Anything that can be merged into an index: a number of documents and their postings by term."""

    ids: DocumentIds
    lengths: np.ndarray
    counts: np.ndarray

    def read(self, first: int, last: int) -> Postings:
        """Return the postings of the terms `first` to `last` (exclusive)."""


class Segment:
    """Inverted documents in memory.

    Attributes:
        ids: of the documents.
        lengths: (n_docs,) int32, number of terms of each document.
        counts: (vocab_size,) int64, number of postings of each term.
        starts, docs, weights: all postings, as in `Postings`.
    """

    def __init__(self, doc_ids: Sequence[DocumentIds], batches: Sequence[SparseVectors], vocab_size: int):
        self.ids = DocumentIds.concatenate(doc_ids)
        self.lengths = np.concatenate([np.diff(batch.indptr) for batch in batches]).astype(np.int32)
        self.counts = np.zeros(vocab_size, np.int64)
        for batch in batches:
            _count(batch.term_ids, self.counts)
        self.starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(self.counts)))
        self.docs = np.empty(self.starts[-1], np.uint32)
        self.weights = np.empty(self.starts[-1], np.float32)
        ends = self.starts[:-1].copy()
        base = 0
        for batch in batches:
            _scatter(batch.indptr, batch.term_ids, batch.weights, base, ends, self.docs, self.weights)
            base += len(batch)

    def read(self, first: int, last: int) -> Postings:
        """Return the postings of the terms `first` to `last` (exclusive)."""
        span = slice(self.starts[first], self.starts[last])
        return Postings(self.starts[first : last + 1] - self.starts[first], self.docs[span], self.weights[span])

    def write(self, path: Path) -> None:
        """Write the segment, whole or not at all."""
        with writing(path, KIND, {"vocab_size": len(self.counts), "n_docs": len(self.ids)}) as file:
            file.add("starts", self.starts)
            file.add("docs", self.docs)
            file.add("weights", self.weights)
            file.add("lengths", self.lengths)
            file.add("id_text", self.ids.text)
            file.add("id_ends", self.ids.ends)


class SegmentFile:
    """A segment on disk, read piece by piece."""

    def __init__(self, path: Path):
        self._file: ArrayFile = open_arrays(path, KIND)
        arrays = self._file.arrays
        self.ids = DocumentIds(arrays["id_text"], arrays["id_ends"])
        self.lengths = arrays["lengths"]
        self.starts = arrays["starts"]
        self.counts = np.diff(self.starts)

    def read(self, first: int, last: int) -> Postings:
        """Return the postings of the terms `first` to `last` (exclusive)."""
        start, stop = int(self.starts[first]), int(self.starts[last])
        docs, weights = self._file.read("docs", start, stop), self._file.read("weights", start, stop)
        return Postings(self.starts[first : last + 1] - start, docs, weights)


@numba.njit(nogil=True, cache=True)
def _count(term_ids: np.ndarray, counts: np.ndarray) -> None:
    for entry in range(len(term_ids)):
        counts[term_ids[entry]] += 1


@numba.njit(nogil=True, cache=True)
def _scatter(
    indptr: np.ndarray,
    term_ids: np.ndarray,
    weights: np.ndarray,
    base: int,
    ends: np.ndarray,
    docs_out: np.ndarray,
    weights_out: np.ndarray,
) -> None:
    """Append each document's entries to the postings of their terms; `ends` says where each term's postings end so far."""
    for row in range(len(indptr) - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            place = ends[term_ids[entry]]
            docs_out[place] = base + row
            weights_out[place] = weights[entry]
            ends[term_ids[entry]] = place + 1
