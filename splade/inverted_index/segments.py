"""Inverting documents: from vectors, one document after the other, to postings, one term after the other.

A segment is a part of a collection in inverted form. Building writes segments of bounded size to disk and merges them
by term. A finished index is a source of postings too, which is how documents are added and deleted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from splade.inverted_index.document_ids import DocumentIds
from splade.inverted_index.layout import ascends, check_ids, check_lengths
from splade.storage.arrays import ArrayFile, Layout, array_writer, open_arrays
from splade.storage.compiled import compiled
from splade.vectors import SparseVectors


@dataclass(frozen=True)
class Postings:
    """Postings of a range of terms.

    Attributes:
        starts: (n_terms + 1,) int64; term i of the range owns the postings `starts[i]:starts[i + 1]`.
        pairs: (n_postings, 2) uint32: the document's number in its source, ascending within a term, and the bits of its
            float32 impact. Side by side, because inverting writes to as many places as there are terms.
    """

    starts: np.ndarray
    pairs: np.ndarray


class PostingSource(Protocol):
    """Anything that can be merged into an index: a number of documents and their postings by term."""

    ids: DocumentIds
    lengths: np.ndarray
    counts: np.ndarray

    def postings(self, first: int, last: int) -> Postings:
        """Return the postings of the terms `first` to `last` (exclusive)."""


class Segment:
    """Documents in memory, inverted one range of terms at a time.

    The terms of a document are ascending, so a mark in each document suffices to go on with the next range.

    Attributes:
        ids: of the documents.
        lengths: (n_docs,) int32, number of terms of each document.
        counts: (vocab_size,) int64, number of postings of each term.
    """

    def __init__(self, doc_ids: Sequence[DocumentIds], batches: Sequence[SparseVectors], vocab_size: int):
        self.ids = DocumentIds.concatenate(doc_ids)
        self.lengths = np.concatenate([np.diff(batch.indptr) for batch in batches]).astype(np.int32)
        self.counts = np.zeros(vocab_size, np.int64)
        for batch in batches:
            _count_terms(batch.term_ids, self.counts)
        self._batches = batches
        self._marks = [batch.indptr[:-1].copy() for batch in batches]

    def postings(self, first: int, last: int) -> Postings:
        """Return the postings of the terms `first` to `last` (exclusive), from where the last call ended."""
        starts = np.zeros(last - first + 1, np.int64)
        np.cumsum(self.counts[first:last], out=starts[1:])
        ends, pairs = starts[:-1].copy(), np.empty((starts[-1], 2), np.uint32)
        base = 0
        for batch, marks in zip(self._batches, self._marks, strict=True):
            bits = np.ascontiguousarray(batch.weights, np.float32).view(np.uint32)
            _scatter(batch.indptr, batch.term_ids, bits, marks, first, last, base, ends, pairs)
            base += len(batch)
        return Postings(starts, pairs)

    def write(self, path: Path) -> None:
        """Write the segment, whole or not at all."""
        postings = self.postings(0, len(self.counts))
        with array_writer(path, _LAYOUT, {}) as file:
            file.write("starts", postings.starts)
            file.write("pairs", postings.pairs.reshape(-1))
            file.write("doc_lengths", self.lengths)
            file.write("id_text", self.ids.text)
            file.write("id_ends", self.ids.ends)


def _check_segment(file: ArrayFile) -> None:
    """Refuse content that cannot be, as for an index."""
    starts, pairs = file.arrays["starts"], file.arrays["pairs"].reshape(-1)
    check_ids(file, max(1, len(file.arrays["id_ends"])))
    if not len(starts) or len(pairs) % 2 or not ascends(starts, 0, len(pairs) // 2):
        file.refuse("'starts' points outside")
    if file.arrays["doc_lengths"].sum() != len(pairs) // 2:
        file.refuse("'doc_lengths' and the number of postings contradict each other")
    if not _pairs_are_right(
        starts, pairs.reshape(-1, 2), pairs.view(np.float32).reshape(-1, 2), len(file.arrays["id_ends"])
    ):
        file.refuse("'pairs' does not hold postings of its documents")


_LAYOUT = Layout(
    "segment",
    {"starts": "<i8", "pairs": "<u4", "doc_lengths": "<i4", "id_text": "|u1", "id_ends": "<i8"},
    _check_segment,
)


class SegmentFile:
    """A segment on disk, read piece by piece.

    Raises:
        IndexFileError: it is damaged, or not over `vocab_size` terms.
    """

    def __init__(self, path: Path, vocab_size: int):
        self._file: ArrayFile = open_arrays(path, _LAYOUT)
        check_lengths(self._file, {"starts": vocab_size + 1})
        arrays = self._file.arrays
        self.ids = DocumentIds(arrays["id_text"], arrays["id_ends"])
        self.lengths = arrays["doc_lengths"]
        self.starts = arrays["starts"]
        self.counts = np.diff(self.starts)

    def postings(self, first: int, last: int) -> Postings:
        """Return the postings of the terms `first` to `last` (exclusive)."""
        start, stop = int(self.starts[first]), int(self.starts[last])
        pairs = self._file.copy("pairs", 2 * start, 2 * stop).reshape(-1, 2)
        return Postings(self.starts[first : last + 1] - start, pairs)


@compiled()
def _pairs_are_right(starts: np.ndarray, pairs: np.ndarray, pairs_as_floats: np.ndarray, n_docs: int) -> bool:
    for term in range(len(starts) - 1):
        before = np.int64(-1)
        for posting in range(starts[term], starts[term + 1]):
            doc, impact = np.int64(pairs[posting, 0]), pairs_as_floats[posting, 1]
            if doc <= before or doc >= n_docs or not np.float32(0) < impact < np.float32(np.inf):
                return False
            before = doc
    return True


@compiled()
def _count_terms(term_ids: np.ndarray, counts: np.ndarray) -> None:
    for entry in range(len(term_ids)):
        counts[term_ids[entry]] += 1


@compiled()
def _scatter(
    indptr: np.ndarray,
    term_ids: np.ndarray,
    impact_bits: np.ndarray,
    marks: np.ndarray,
    first: int,
    last: int,
    base: int,
    ends: np.ndarray,
    pairs: np.ndarray,
) -> None:
    """Append the entries below term `last`, from each document's mark on, to the postings of their terms.

    `ends` is where the postings of each term, counted from `first`, end so far.
    """
    for row in range(len(indptr) - 1):
        entry, stop = marks[row], indptr[row + 1]
        while entry < stop and term_ids[entry] < last:
            place = ends[term_ids[entry] - first]
            pairs[place, 0] = base + row
            pairs[place, 1] = impact_bits[entry]
            ends[term_ids[entry] - first] = place + 1
            entry += 1
        marks[row] = entry
