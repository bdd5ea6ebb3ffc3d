"""Adding documents to an index and deleting some, by writing it anew.

A finished index is a source of postings like any segment, so both are merges. The result is the index that building
from the remaining documents would give, byte for byte: nothing is left behind that a later compaction would have to
remove. Merging takes a few seconds per 100 million postings.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numba
import numpy as np

from splade.errors import DataError
from splade.inverted_index.document_ids import DocumentIds
from splade.inverted_index.merge import KIND, WINDOW_BITS, IndexInfo, merge, term_ranges
from splade.inverted_index.read import InvertedIndex
from splade.inverted_index.segments import Postings, PostingSource, Segment
from splade.inverted_index.validation import check_vectors
from splade.storage.array_file import open_arrays
from splade.vectors import SparseVectors


def add_documents(index_dir: str | Path, batches: Iterable[tuple[Sequence[str], SparseVectors]]) -> IndexInfo:
    """Add documents after those of an index.

    Args:
        index_dir: folder of the index.
        batches: document ids and their vectors; all are held in memory.

    Raises:
        IndexFileError: no index there.
        DataError: a wrong vector, or an id that is given twice or is there already.
    """
    index = InvertedIndex.open(index_dir)
    ids, vectors = [], []
    for doc_ids, batch in batches:
        if len(doc_ids) != len(batch):
            raise DataError(f"{len(doc_ids)} document ids were given for {len(batch)} vectors")
        check_vectors(batch, index.vocab_size, doc_ids)
        ids.append(DocumentIds.from_strings(doc_ids))
        vectors.append(batch)
    sources: list[PostingSource] = [_IndexSource(index.path)]
    if ids:
        sources.append(Segment(ids, vectors, index.vocab_size))
    return merge(sources, index.path, index.vocab_size, index.metadata)


def delete_documents(index_dir: str | Path, doc_ids: Sequence[str]) -> IndexInfo:
    """Delete documents from an index; those that stay keep their order.

    Raises:
        IndexFileError: no index there.
        DataError: an id is not in the index, or none would stay.
    """
    index = InvertedIndex.open(index_dir)
    source = _IndexSource(index.path)
    keep = np.ones(index.n_docs, np.bool_)
    keep[source.ids.find(doc_ids)] = False
    if not keep.any():
        raise DataError(f"{index.path}: all {index.n_docs} documents would be deleted; delete the folder instead")
    source.keep(keep)
    return merge([source], index.path, index.vocab_size, index.metadata)


class _IndexSource:
    """The postings of an index, of all its documents or of some."""

    def __init__(self, path: Path):
        self._file = open_arrays(path, KIND)
        arrays = self._file.arrays
        self._begins, self._windows = arrays["slice_begins"], arrays["slice_windows"]
        self._starts = arrays["slice_starts"]
        self.ids = DocumentIds(arrays["id_text"], arrays["id_ends"])
        self.lengths = arrays["lengths"]
        self.counts = np.diff(self._begins[self._starts])
        self._numbers = np.arange(len(self.ids), dtype=np.int32)

    def keep(self, keep: np.ndarray) -> None:
        """Leave out the documents where `keep` (bool) is False; the others are numbered anew."""
        self._numbers = np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32)
        chosen = np.flatnonzero(keep)
        self.ids, self.lengths = self.ids.take(chosen), self.lengths[chosen]
        ranges = list(term_ranges(self.counts))
        self.counts = np.concatenate([np.diff(self.read(first, last).starts) for first, last in ranges])

    def read(self, first: int, last: int) -> Postings:
        """Return the postings of the terms `first` to `last` (exclusive)."""
        slices = slice(self._starts[first], self._starts[last] + 1)
        begins = self._begins[slices]
        offsets = self._file.read("offsets", int(begins[0]), int(begins[-1]))
        weights = self._file.read("weights", int(begins[0]), int(begins[-1]))
        windows = self._windows[slices.start : slices.stop - 1]
        starts, pairs = _renumber(
            self._starts[first : last + 1] - slices.start,
            begins - begins[0],
            windows,
            offsets,
            weights.view(np.uint32),
            self._numbers,
        )
        return Postings(starts, pairs)


@numba.njit(nogil=True, cache=True)
def _renumber(
    slice_starts: np.ndarray,
    slice_begins: np.ndarray,
    slice_windows: np.ndarray,
    offsets: np.ndarray,
    weight_bits: np.ndarray,
    numbers: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return starts and pairs, as in `Postings`, of the documents whose new number is not negative."""
    starts, pairs = np.zeros(len(slice_starts), np.int64), np.empty((len(offsets), 2), np.uint32)
    count = 0
    for term in range(len(slice_starts) - 1):
        for part in range(slice_starts[term], slice_starts[term + 1]):
            base = np.int64(slice_windows[part]) << WINDOW_BITS
            for posting in range(slice_begins[part], slice_begins[part + 1]):
                number = numbers[base + offsets[posting]]
                if number >= 0:
                    pairs[count, 0] = number
                    pairs[count, 1] = weight_bits[posting]
                    count += 1
        starts[term + 1] = count
    return starts, pairs[:count]
