"""A finished index as a source of postings: what changes an index merges it into a new one."""

import numpy as np

from splade.inverted_index.document_ids import DocumentIds
from splade.inverted_index.layout import WINDOW_BITS, posting_lists
from splade.inverted_index.merge import term_ranges
from splade.inverted_index.segments import Postings
from splade.storage.arrays import ArrayFile
from splade.storage.compiled import compiled


class IndexSource:
    """The postings of an index, of all its documents or of some.

    Attributes:
        lists: the arrays of the index, of all its documents.
    """

    def __init__(self, file: ArrayFile):
        self._file, self.lists = file, posting_lists(file)
        self.ids = DocumentIds(file.arrays["id_text"], file.arrays["id_ends"])
        self.lengths = file.arrays["doc_lengths"]
        self.counts = np.diff(self.lists.block_postings[self.lists.term_blocks])
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
        term_blocks = self.lists.term_blocks[first : last + 1]
        blocks = slice(term_blocks[0], term_blocks[-1])
        begins = self.lists.block_postings[blocks.start : blocks.stop + 1]
        span = int(begins[0]), int(begins[-1])
        starts, pairs = _renumber(
            term_blocks - blocks.start,
            begins - begins[0],
            self.lists.block_windows[blocks],
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
