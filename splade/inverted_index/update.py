"""Adding documents to an index and deleting some, by writing it anew.

A finished index is a source of postings like any segment, so both are merges. The result is the index that building
from the remaining documents would give, byte for byte but for `metadata["updated"]`, which says that it no longer holds
the collection that the metadata name. Nothing is left behind that a later compaction would have to remove. Merging
takes a few seconds per 100 million postings.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from splade.errors import DataError
from splade.inverted_index.document_ids import DocumentIds
from splade.inverted_index.layout import WINDOW_BITS, posting_lists
from splade.inverted_index.merge import IndexInfo, merge, term_ranges
from splade.inverted_index.read import InvertedIndex
from splade.inverted_index.segments import Postings, PostingSource, Segment
from splade.storage.arrays import ArrayFile
from splade.storage.compiled import compiled
from splade.storage.locks import FolderLock
from splade.vectors import SparseVectors

Batches = Iterable[tuple[Sequence[str], SparseVectors]]


def update_documents(index_dir: str | Path, delete: Sequence[str] = (), add: Batches = ()) -> IndexInfo:
    """Delete documents of an index and add others after those that stay: both or, when killed, none.

    Indexes that are open go on showing what they held.

    Args:
        index_dir: folder of the index.
        delete: ids of documents.
        add: document ids and their vectors; all are held in memory.

    Raises:
        BusyError: another process is writing to the folder.
        IndexFileError: no index there.
        DataError: an id to delete is not there, or none would stay; a wrong vector; an id to add is given twice or is
            there already.
        WriteError: the disk is full, or the index cannot be replaced.
    """
    folder = InvertedIndex.open(index_dir).path.parent
    with FolderLock(folder):
        index = InvertedIndex.open(folder)  # as the last writer has left it
        old = _IndexSource(index.file)
        if len(delete):
            keep = np.ones(index.n_docs, np.bool_)
            keep[old.ids.numbers(delete)] = False
            old.keep(keep)
        ids, vectors = [], []
        for doc_ids, batch in add:
            batch.check_named(index.vocab_size, doc_ids)
            ids.append(DocumentIds.from_strings(doc_ids))
            vectors.append(batch)
        n_added = sum(map(len, ids))
        if not len(delete) and not n_added:
            return IndexInfo.of(index.file)
        if not len(old.ids) + n_added:
            raise DataError(f"{index.path}: all {index.n_docs} documents would be deleted; delete the folder instead")
        sources: list[PostingSource] = [old] if len(old.ids) else []
        sources += [Segment(ids, vectors, index.vocab_size)] if n_added else []
        return merge(sources, index.path, index.vocab_size, {**index.metadata, "updated": True})


def add_documents(index_dir: str | Path, batches: Batches) -> IndexInfo:
    """Add documents after those of an index; see `update_documents`."""
    return update_documents(index_dir, add=batches)


def delete_documents(index_dir: str | Path, doc_ids: Sequence[str]) -> IndexInfo:
    """Delete documents from an index; those that stay keep their order; see `update_documents`."""
    return update_documents(index_dir, delete=doc_ids)


class _IndexSource:
    """The postings of an index, of all its documents or of some."""

    def __init__(self, file: ArrayFile):
        self._file, self._lists = file, posting_lists(file)
        self.ids = DocumentIds(file.arrays["id_text"], file.arrays["id_ends"])
        self.lengths = file.arrays["doc_lengths"]
        self.counts = np.diff(self._lists.block_postings[self._lists.term_blocks])
        self._numbers = np.arange(len(self.ids), dtype=np.int32)

    def keep(self, keep: np.ndarray) -> None:
        """Leave out the documents where `keep` (bool) is False; the others are numbered anew."""
        self._numbers = np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32)
        chosen = np.flatnonzero(keep)
        self.ids, self.lengths = self.ids.take(chosen), self.lengths[chosen]
        ranges = list(term_ranges(self.counts))
        self.counts = np.concatenate([np.diff(self.postings(first, last).starts) for first, last in ranges])

    def postings(self, first: int, last: int) -> Postings:
        """Return the postings of the terms `first` to `last` (exclusive)."""
        term_blocks = self._lists.term_blocks[first : last + 1]
        blocks = slice(term_blocks[0], term_blocks[-1])
        begins = self._lists.block_postings[blocks.start : blocks.stop + 1]
        span = int(begins[0]), int(begins[-1])
        starts, pairs = _renumber(
            term_blocks - blocks.start,
            begins - begins[0],
            self._lists.block_windows[blocks],
            self._file.copy("offsets", *span),
            self._file.copy("impacts", *span).view(np.uint32),
            self._numbers,
        )
        return Postings(starts, pairs)


@compiled()
def _renumber(
    term_blocks: np.ndarray,
    block_postings: np.ndarray,
    block_windows: np.ndarray,
    offsets: np.ndarray,
    impact_bits: np.ndarray,
    numbers: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return starts and pairs, as in `Postings`, of the documents whose new number is not negative."""
    starts, pairs = np.zeros(len(term_blocks), np.int64), np.empty((len(offsets), 2), np.uint32)
    count = 0
    for term in range(len(term_blocks) - 1):
        for block in range(term_blocks[term], term_blocks[term + 1]):
            base = np.int64(block_windows[block]) << WINDOW_BITS
            for posting in range(block_postings[block], block_postings[block + 1]):
                number = numbers[base + offsets[posting]]
                if number >= 0:
                    pairs[count, 0] = number
                    pairs[count, 1] = impact_bits[posting]
                    count += 1
        starts[term + 1] = count
    return starts, pairs[:count]
