"""What an index file holds.

Documents are cut into windows of 2**15, small enough for one window's scores to stay in the processor's cache. The
postings of a term are stored in the order of their documents, so those that lie in one window are contiguous: a
posting block. A posting is the document's offset in its window (16 bits) and its impact (the term's weight in the
document, float32), in two parallel arrays. Of a block, its window, its first posting and its largest impact (block-max,
Ding and Suel, 2011) are stored; of a term, its first block and its largest impact.

Impacts are kept in full only. Impacts of 8 bits beside them would make a file of seven bytes per posting, and reading
one takes 1.0 ns where reading a float32 takes 1.1, from memory, and no less from the cache: not enough to pay for a
second look at every candidate.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from splade.storage.arrays import ArrayFile, Layout, open_arrays

INDEX_FILE = "index.h5"
WINDOW_BITS = 15
MAX_DOCS = 1 << (WINDOW_BITS + 16)  # the number of a window has 16 bits


class PostingLists(NamedTuple):
    """The arrays of an index that a search reads."""

    offsets: np.ndarray  # (n_postings,) uint16
    impacts: np.ndarray  # (n_postings,) float32
    term_blocks: np.ndarray  # (vocab_size + 1,) int64; the blocks of term i are term_blocks[i] to [i + 1]
    block_windows: np.ndarray  # (n_blocks,) uint16
    block_postings: np.ndarray  # (n_blocks + 1,) int64; the postings of block i, likewise
    block_max: np.ndarray  # (n_blocks,) float32
    term_max: np.ndarray  # (vocab_size,) float32, 0 for a term without postings


def open_index_file(path: Path, verify: bool = False) -> ArrayFile:
    """Open an index file; see `open_arrays`."""
    return open_arrays(path, INDEX_LAYOUT, verify)


def posting_lists(file: ArrayFile) -> PostingLists:
    """Return what a search reads of an opened index file."""
    return PostingLists(*(file.arrays[name] for name in PostingLists._fields))


def _check_positions(file: ArrayFile) -> None:
    """Refuse an index in which a position points outside: compiled loops would follow it out of the memory."""
    n_docs, n_postings, vocab_size = (file.integer(name) for name in ("n_docs", "n_postings", "vocab_size"))
    if not 1 <= n_docs <= MAX_DOCS or vocab_size < 1 or file.integer("window_bits") != WINDOW_BITS:
        file.refuse(f"it claims {n_docs} documents and {vocab_size} terms in windows of another size")
    lists, ends = posting_lists(file), file.arrays["id_ends"]
    n_blocks = len(lists.block_windows)
    lengths = {"offsets": n_postings, "impacts": n_postings, "term_blocks": vocab_size + 1, "term_max": vocab_size}
    lengths |= {"block_postings": n_blocks + 1, "block_max": n_blocks, "doc_lengths": n_docs, "id_ends": n_docs}
    for name, length in lengths.items():
        if len(file.arrays[name]) != length:
            file.refuse(f"its array '{name}' has {len(file.arrays[name])} elements instead of {length}")
    if not _ascends(lists.term_blocks, 0, n_blocks, strictly=False):
        file.refuse("'term_blocks' points outside")
    if not _ascends(lists.block_postings, 0, n_postings, strictly=True):
        file.refuse("'block_postings' points outside")
    if not _ascends(ends, ends[0], len(file.arrays["id_text"]), strictly=False) or ends[0] < 0:
        file.refuse("'id_ends' points outside")
    if n_blocks:
        last = np.maximum.reduceat(lists.offsets, lists.block_postings[:-1])
        if last.max() >> WINDOW_BITS or ((lists.block_windows.astype(np.int64) << WINDOW_BITS) + last).max() >= n_docs:
            file.refuse("'block_windows' or 'offsets' points outside")


def _ascends(positions: np.ndarray, first: int, last: int, strictly: bool) -> bool:
    """Whether positions begin and end as given and never descend."""
    ascends = np.greater if strictly else np.greater_equal
    return bool(positions[0] == first and positions[-1] == last and ascends(positions[1:], positions[:-1]).all())


INDEX_LAYOUT = Layout(
    "inverted index",
    {
        "offsets": "<u2",
        "impacts": "<f4",
        "term_blocks": "<i8",
        "block_windows": "<u2",
        "block_postings": "<i8",
        "block_max": "<f4",
        "term_max": "<f4",
        "doc_lengths": "<i4",
        "id_text": "|u1",
        "id_ends": "<i8",
    },
    _check_positions,
)
