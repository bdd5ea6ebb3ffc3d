"""Merging sources of postings, term by term, into one index file (see `layout`).

The same documents in the same order give the same bytes, whatever the sources they came from.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splade.errors import DataError
from splade.inverted_index.document_ids import DocumentIds
from splade.inverted_index.layout import INDEX_LAYOUT, MAX_DOCS, WINDOW_BITS
from splade.inverted_index.segments import Postings, PostingSource
from splade.progress import ProgressBar, progress_bar
from splade.storage.arrays import ArrayFile, ArrayWriter, array_writer
from splade.storage.compiled import compiled

_RANGE_POSTINGS = 3 << 22  # merged at once, 8 bytes each
_CHUNK_POSTINGS = 1 << 19  # written at once, so that they stay in the cache between conversion and writing


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

    @classmethod
    def of(cls, file: ArrayFile) -> "IndexInfo":
        """Describe an index that is there."""
        counts = {name: file.integer(name) for name in ("n_docs", "vocab_size", "n_postings", "n_empty")}
        return cls(path=file.path, n_bytes=file.n_bytes, **counts)


def merge(sources: Sequence[PostingSource], path: Path, vocab_size: int, metadata: Mapping[str, object]) -> IndexInfo:
    """Write the index of all documents of the sources, numbered one source after the other.

    Memory: about 110 MB (twice that for several sources), plus 8 bytes per document.

    Raises:
        DataError: no documents, too many, or an id that occurs twice.
    """
    joined = JoinedSource(sources) if sources else None
    if joined is None or len(joined.ids) == 0:
        raise DataError("no documents were given: an index needs at least one")
    ids = joined.ids
    if len(ids) > MAX_DOCS:
        raise DataError(f"{len(ids)} documents were given; one index holds at most {MAX_DOCS}")
    ids.check_unique()
    info = {
        "n_docs": len(ids),
        "vocab_size": vocab_size,
        "n_postings": int(joined.counts.sum()),
        "n_empty": int((joined.lengths == 0).sum()),
    }
    attributes: dict[str, int | str] = {
        **info,
        "window_bits": WINDOW_BITS,
        "metadata": json.dumps(metadata, sort_keys=True),
    }
    with array_writer(path, INDEX_LAYOUT, attributes) as file:
        _write_postings(file, joined)
        file.write("doc_lengths", joined.lengths)
        file.write("id_text", ids.text)
        file.write("id_ends", ids.ends)
    return IndexInfo(path=path, n_bytes=path.stat().st_size, **info)


def _write_postings(file: ArrayWriter, source: PostingSource) -> None:
    n_postings = int(source.counts.sum())
    file.create("offsets", n_postings)
    file.create("impacts", n_postings)
    with progress_bar("merging", total=n_postings, unit="posting") as bar:
        blocks = [_write_range(file, source.postings(*terms), bar) for terms in term_ranges(source.counts)]
    per_term, windows, sizes, maxima = (np.concatenate(part) for part in zip(*blocks, strict=True))
    file.write("term_blocks", _running_sum(per_term))
    file.write("block_windows", windows)
    file.write("block_postings", _running_sum(sizes))
    file.write("block_max", maxima)
    file.write("term_max", _term_max(per_term, maxima))


def _write_range(file: ArrayWriter, merged: Postings, bar: ProgressBar) -> tuple[np.ndarray, ...]:
    """Write the postings of a range of terms; return their blocks, as `_cut_blocks` does."""
    for start in range(0, len(merged.pairs), _CHUNK_POSTINGS):
        offsets, bits = _split_pairs(merged.pairs[start : start + _CHUNK_POSTINGS])
        file.append("offsets", offsets)
        file.append("impacts", bits.view(np.float32))
        bar.update(len(offsets))
    return _cut_blocks(merged.starts, merged.pairs, merged.pairs.view(np.float32))


def _term_max(per_term: np.ndarray, maxima: np.ndarray) -> np.ndarray:
    """(vocab_size,) float32: largest impact of each term, 0 for a term without postings."""
    term_max = np.zeros(len(per_term), np.float32)
    np.maximum.at(term_max, np.repeat(np.arange(len(per_term)), per_term), maxima)
    return term_max


def _running_sum(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)))


def term_ranges(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut the vocabulary into ranges of about `_RANGE_POSTINGS` postings."""
    ends = np.cumsum(counts)
    first, done = 0, 0
    while first < len(counts):
        last = max(first + 1, int(np.searchsorted(ends, done + _RANGE_POSTINGS, "right")))
        yield first, last
        first, done = last, int(ends[last - 1])


class JoinedSource:
    """Several sources as one: the documents of one after those of the other.

    Attributes:
        ids, lengths, counts: as of any `PostingSource`.
    """

    def __init__(self, sources: Sequence[PostingSource]):
        self.ids = DocumentIds.concatenate([source.ids for source in sources])
        self.lengths = np.concatenate([source.lengths for source in sources])
        self.counts: np.ndarray = np.sum([source.counts for source in sources], axis=0)
        self._sources, self._bases = sources, np.cumsum([0, *(len(source.ids) for source in sources)])

    def postings(self, first: int, last: int) -> Postings:
        """Return the postings of the terms `first` to `last` (exclusive)."""
        return _merge_range(self._sources, self._bases, self.counts, first, last)


def _merge_range(
    sources: Sequence[PostingSource], bases: np.ndarray, counts: np.ndarray, first: int, last: int
) -> Postings:
    if len(sources) == 1:
        return sources[0].postings(first, last)
    starts = _running_sum(counts[first:last])
    pairs = np.empty((starts[-1], 2), np.uint32)
    ends = starts[:-1].copy()
    for source, base in zip(sources, bases, strict=False):
        part = source.postings(first, last)
        _append_source(part.starts, part.pairs, int(base), ends, pairs)
    return Postings(starts, pairs)


@compiled()
def _append_source(starts: np.ndarray, pairs: np.ndarray, base: int, ends: np.ndarray, merged: np.ndarray) -> None:
    """Append one source's postings to those of the sources before it."""
    for term in range(len(ends)):
        place = ends[term]
        for posting in range(starts[term], starts[term + 1]):
            merged[place, 0] = base + pairs[posting, 0]
            merged[place, 1] = pairs[posting, 1]
            place += 1
        ends[term] = place


@compiled()
def _split_pairs(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return offsets in the window (uint16) and bits of the impacts (uint32)."""
    offsets, bits = np.empty(len(pairs), np.uint16), np.empty(len(pairs), np.uint32)
    for posting in range(len(pairs)):
        offsets[posting] = pairs[posting, 0] & np.uint32((1 << WINDOW_BITS) - 1)
        bits[posting] = pairs[posting, 1]
    return offsets, bits


@compiled()
def _cut_blocks(
    starts: np.ndarray, pairs: np.ndarray, pairs_as_floats: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cut postings into blocks.

    Returns:
        Blocks per term, and of each block its window, number of postings and largest impact.
    """
    n_terms = len(starts) - 1
    per_term = np.zeros(n_terms, np.int64)
    windows, sizes, maxima = np.empty(0, np.uint16), np.empty(0, np.int64), np.empty(0, np.float32)
    for filling in range(2):
        n_blocks = 0
        for term in range(n_terms):
            begin = starts[term]
            while begin < starts[term + 1]:
                window = np.int64(pairs[begin, 0] >> WINDOW_BITS)
                end = _window_end(pairs, begin, starts[term + 1], (window + 1) << WINDOW_BITS)
                if filling:
                    per_term[term] += 1
                    windows[n_blocks], sizes[n_blocks] = window, end - begin
                    maxima[n_blocks] = pairs_as_floats[begin:end, 1].max()
                n_blocks += 1
                begin = end
        if not filling:
            windows, sizes, maxima = (
                np.empty(n_blocks, np.uint16),
                np.empty(n_blocks, np.int64),
                np.empty(n_blocks, np.float32),
            )
    return per_term, windows, sizes, maxima


@compiled()
def _window_end(pairs: np.ndarray, begin: int, end: int, limit: np.int64) -> int:
    """Return the first position of `begin:end` whose document is not below `limit`, or `end`."""
    size = end - begin
    while size > 0:
        half = size >> 1
        if pairs[begin + half, 0] < limit:
            begin += half + 1
            size -= half + 1
        else:
            size = half
    return begin
