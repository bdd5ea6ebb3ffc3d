"""Merging sources of postings, term by term, into one index file.

Layout. Documents are cut into windows of 2**15, small enough for one window's scores to stay in the processor's cache. The
postings of a term are stored in the order of their documents, so those that lie in one window are contiguous: a slice. A
posting is the document's offset in its window (16 bits) and its weight (float32), in two parallel arrays; a slice is
the number of its window, its first posting and its largest weight.

The same documents in the same order give the same bytes, whatever the sources they came from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np

from splade.errors import DataError
from splade.inverted_index.array_file import ArrayFileWriter, writing
from splade.inverted_index.document_ids import DocumentIds
from splade.inverted_index.segments import Postings, PostingSource
from splade.progress import progress_bar

KIND = "inverted index"
INDEX_FILE = "index.h5"
WINDOW_BITS = 15
_MAX_DOCS = 1 << (WINDOW_BITS + 16)  # the number of a window has 16 bits
_CHUNK_POSTINGS = 1 << 22


@dataclass(frozen=True)
class IndexInfo:
    """What was written.

    Attributes:
        path: the index file.
        n_docs, vocab_size, n_postings: its size.
        n_empty: documents without any term; no query finds them.
        n_bytes: length of the file.
    """

    path: Path
    n_docs: int
    vocab_size: int
    n_postings: int
    n_empty: int
    n_bytes: int


def merge(sources: Sequence[PostingSource], path: Path, vocab_size: int, metadata: dict[str, Any]) -> IndexInfo:
    """Write the index of all documents of the sources, numbered one source after the other.

    Memory: about 64 MB, plus 8 bytes per document.

    Raises:
        DataError: no documents, too many, or an id that occurs twice.
    """
    ids = DocumentIds.concatenate([source.ids for source in sources]) if sources else None
    if ids is None or len(ids) == 0:
        raise DataError("no documents were given: an index needs at least one")
    if len(ids) > _MAX_DOCS:
        raise DataError(f"{len(ids)} documents were given; one index holds at most {_MAX_DOCS}")
    ids.check_unique()
    lengths = np.concatenate([source.lengths for source in sources])
    counts = np.sum([source.counts for source in sources], axis=0)
    info = {
        "n_docs": len(ids),
        "vocab_size": vocab_size,
        "n_postings": int(counts.sum()),
        "n_empty": int((lengths == 0).sum()),
    }
    with writing(path, KIND, {**info, "window_bits": WINDOW_BITS, "metadata": metadata}) as file:
        _write_postings(file, sources, counts)
        file.add("lengths", lengths)
        file.add("id_text", ids.text)
        file.add("id_ends", ids.ends)
    return IndexInfo(path=path, n_bytes=path.stat().st_size, **info)


def _write_postings(file: ArrayFileWriter, sources: Sequence[PostingSource], counts: np.ndarray) -> None:
    n_postings = int(counts.sum())
    file.create("offsets", "<u2", n_postings)
    file.create("weights", "<f4", n_postings)
    bases = np.cumsum([0, *(len(source.ids) for source in sources)])
    slices = []
    with progress_bar("merging", total=n_postings, unit="posting") as bar:
        for first, last in _term_ranges(counts):
            merged = _merge_range(sources, bases, counts, first, last)
            offsets = (merged.docs & np.uint32((1 << WINDOW_BITS) - 1)).astype(np.uint16)
            file.append("offsets", offsets)
            file.append("weights", merged.weights)
            slices.append(_cut(merged.starts, merged.docs, merged.weights, WINDOW_BITS))
            bar.update(len(merged.docs))
    per_term, windows, sizes, maxima = (np.concatenate(part) for part in zip(*slices, strict=True))
    file.add("slice_starts", _running_sum(per_term))
    file.add("slice_windows", windows)
    file.add("slice_begins", _running_sum(sizes))
    file.add("slice_maxima", maxima)
    file.add("term_maxima", _term_maxima(per_term, maxima))


def _term_maxima(per_term: np.ndarray, maxima: np.ndarray) -> np.ndarray:
    """(vocab_size,) float32: largest weight of each term, 0 for a term without postings."""
    term_maxima = np.zeros(len(per_term), np.float32)
    np.maximum.at(term_maxima, np.repeat(np.arange(len(per_term)), per_term), maxima)
    return term_maxima


def _running_sum(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)))


def _term_ranges(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut the vocabulary into ranges of about `_CHUNK_POSTINGS` postings."""
    ends = np.cumsum(counts)
    first, done = 0, 0
    while first < len(counts):
        last = max(first + 1, int(np.searchsorted(ends, done + _CHUNK_POSTINGS, "right")))
        yield first, last
        first, done = last, int(ends[last - 1])


def _merge_range(
    sources: Sequence[PostingSource], bases: np.ndarray, counts: np.ndarray, first: int, last: int
) -> Postings:
    starts = _running_sum(counts[first:last])
    docs, weights = np.empty(starts[-1], np.uint32), np.empty(starts[-1], np.float32)
    ends = starts[:-1].copy()
    for source, base in zip(sources, bases, strict=False):
        part = source.read(first, last)
        _append(part.starts, part.docs, part.weights, base, ends, docs, weights)
    return Postings(starts, docs, weights)


@numba.njit(nogil=True, cache=True)
def _append(
    starts: np.ndarray,
    docs: np.ndarray,
    weights: np.ndarray,
    base: int,
    ends: np.ndarray,
    docs_out: np.ndarray,
    weights_out: np.ndarray,
) -> None:
    """Append one source's postings to those of the sources before it."""
    for term in range(len(ends)):
        place = ends[term]
        for posting in range(starts[term], starts[term + 1]):
            docs_out[place] = base + docs[posting]
            weights_out[place] = weights[posting]
            place += 1
        ends[term] = place


@numba.njit(nogil=True, cache=True)
def _cut(
    starts: np.ndarray, docs: np.ndarray, weights: np.ndarray, window_bits: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cut postings into slices.

    Returns:
        Slices per term, and of each slice its window, number of postings and largest weight.
    """
    n_terms = len(starts) - 1
    n_slices = 0
    for term in range(n_terms):
        window = -1
        for posting in range(starts[term], starts[term + 1]):
            if docs[posting] >> window_bits != window:
                window = np.int64(docs[posting] >> window_bits)
                n_slices += 1
    per_term = np.zeros(n_terms, np.int64)
    windows = np.empty(n_slices, np.uint16)
    sizes = np.empty(n_slices, np.int64)
    maxima = np.empty(n_slices, np.float32)
    current = -1
    for term in range(n_terms):
        window = -1
        for posting in range(starts[term], starts[term + 1]):
            if docs[posting] >> window_bits != window:
                window = np.int64(docs[posting] >> window_bits)
                current += 1
                per_term[term] += 1
                windows[current] = window
                sizes[current] = 0
                maxima[current] = weights[posting]
            sizes[current] += 1
            maxima[current] = max(maxima[current], weights[posting])
    return per_term, windows, sizes, maxima
