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

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from splade.storage.arrays import ArrayFile, Layout, open_arrays
from splade.storage.compiled import compiled

INDEX_FILE, SHARDS_FILE = "index.h5", "shards.json"
WINDOW_BITS = 15
_INFINITY = np.uint32(0x7F800000)  # its bits
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


class TermStatistics(NamedTuple):
    """What decides the order in which a query's terms are read, and with it the last bit of a score.

    Of the whole collection, also where an index holds a shard of it: so the shards give the scores of one index.
    """

    largest: np.ndarray  # (vocab_size,) float32: largest impact of each term, 0 for a term without postings
    counts: np.ndarray  # (vocab_size,) int64: documents that each term occurs in


def open_index_file(path: Path, verify: bool = False) -> ArrayFile:
    """Open an index file; see `open_arrays`."""
    return open_arrays(path, INDEX_LAYOUT, verify)


def posting_lists(file: ArrayFile) -> PostingLists:
    """Return what a search reads of an opened index file."""
    return PostingLists(*(file.arrays[name] for name in PostingLists._fields))


def check_ids(file: ArrayFile, n_docs: int) -> None:
    """Refuse `id_text`, `id_ends` and `doc_lengths` that do not belong to `n_docs` documents."""
    check_lengths(file, {"doc_lengths": n_docs})
    check_strings(file, "id_text", "id_ends", n_docs)
    if file.arrays["doc_lengths"].min() < 0:
        file.refuse("'doc_lengths' holds a negative number")


def check_strings(file: ArrayFile, text_name: str, ends_name: str, n: int) -> None:
    """Refuse the two arrays of `DocumentIds` where they are not those of n strings, at least one."""
    text, ends = file.arrays[text_name], file.arrays[ends_name]
    check_lengths(file, {ends_name: n})
    if not ascends(ends, ends[0], len(text)) or ends[0] < 0:
        file.refuse(f"'{ends_name}' points outside")
    try:
        text.tobytes().decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        file.refuse(f"'{text_name}' is not UTF-8")
    begins = ends[:-1][ends[:-1] < len(text)]
    if ((text[begins] & 0xC0) == 0x80).any():
        file.refuse(f"'{ends_name}' cuts a character into two")


def check_lengths(file: ArrayFile, lengths: Mapping[str, int]) -> None:
    """Refuse arrays of another length."""
    for name, length in lengths.items():
        if len(file.arrays[name]) != length:
            file.refuse(f"its array '{name}' has {len(file.arrays[name])} elements instead of {length}")


def ascends(positions: np.ndarray, first: int, last: int, strictly: bool = False) -> bool:
    """Whether positions begin and end as given and never descend."""
    compare = np.greater if strictly else np.greater_equal
    return bool(positions[0] == first and positions[-1] == last and compare(positions[1:], positions[:-1]).all())


def _check_index(file: ArrayFile) -> None:
    """Refuse content that cannot be: compiled loops would follow a wrong position out of the memory."""
    n_docs, n_postings, vocab_size = (file.integer(name) for name in ("n_docs", "n_postings", "vocab_size"))
    if not 1 <= n_docs <= MAX_DOCS or vocab_size < 1 or file.integer("window_bits") != WINDOW_BITS:
        file.refuse(f"it claims {n_docs} documents and {vocab_size} terms in windows of another size")
    lists, doc_lengths = posting_lists(file), file.arrays["doc_lengths"]
    n_blocks = len(lists.block_windows)
    lengths = {"offsets": n_postings, "impacts": n_postings, "term_blocks": vocab_size + 1, "term_max": vocab_size}
    check_lengths(file, lengths | {"block_postings": n_blocks + 1, "block_max": n_blocks})
    if not ascends(lists.term_blocks, 0, n_blocks):
        file.refuse("'term_blocks' points outside")
    if not ascends(lists.block_postings, 0, n_postings, strictly=True):
        file.refuse("'block_postings' points outside")
    check_ids(file, n_docs)
    if doc_lengths.sum() != n_postings or (doc_lengths == 0).sum() != file.integer("n_empty"):
        file.refuse("'doc_lengths' and the number of postings contradict each other")
    fault = _fault_in_postings(lists, lists.impacts.view(np.uint32), n_docs)
    if fault:
        file.refuse(_FAULTS[fault - 1])


_FAULTS = (
    "'block_windows' or 'offsets' points outside or does not ascend",
    "'impacts' holds a number that is not finite and positive",
    "'block_max' or 'term_max' is not the largest impact",
)


@compiled()
def _fault_in_postings(lists: PostingLists, impact_bits: np.ndarray, n_docs: int) -> int:
    """Return 0, or which of `_FAULTS`, counted from 1, there is; the positions of terms and blocks are right.

    The bits of positive float32 numbers ascend with them; zero, infinity, NaN and negative numbers lie outside.
    """
    max_bits, term_max_bits = lists.block_max.view(np.uint32), lists.term_max.view(np.uint32)
    for term in range(len(term_max_bits)):
        most_of_term = np.uint32(0)
        for block in range(lists.term_blocks[term], lists.term_blocks[term + 1]):
            begin, end = lists.block_postings[block], lists.block_postings[block + 1]
            last = np.int64(lists.offsets[end - 1])
            if last >> WINDOW_BITS or (np.int64(lists.block_windows[block]) << WINDOW_BITS) + last >= n_docs:
                return 1
            descends = np.uint8(
                block > lists.term_blocks[term] and lists.block_windows[block] <= lists.block_windows[block - 1]
            )
            for posting in range(begin + 1, end):
                descends |= np.uint8(lists.offsets[posting] <= lists.offsets[posting - 1])
            if descends:
                return 1
            least, most = _INFINITY, np.uint32(0)
            for posting in range(begin, end):
                least, most = min(least, impact_bits[posting]), max(most, impact_bits[posting])
            if least == 0 or most >= _INFINITY:
                return 2
            if most != max_bits[block]:
                return 3
            most_of_term = max(most_of_term, most)
        if most_of_term != term_max_bits[term]:
            return 3
    return 0


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
    _check_index,
)
