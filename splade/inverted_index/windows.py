"""What happens inside one window of documents: add up postings, collect the best documents, complete partial scores.

A window's scores are an array of float32 small enough for the processor's cache; reading postings into it costs less than a
nanosecond each. All functions work on slices of postings given as `(begin, end)` positions in `offsets` and `weights`.
"""

import numba
import numpy as np

_BLOCK = (
    64  # documents that are compared at once; a constant, so that the compiler turns the comparison into vector code
)


@numba.njit(nogil=True, cache=True)
def add_slice(
    offsets: np.ndarray, weights: np.ndarray, begin: int, end: int, query_weight: np.float32, scores: np.ndarray
) -> None:
    """Add `query_weight` x weight of every posting of a slice to its document's score."""
    for posting in range(begin, end):
        scores[offsets[posting]] += query_weight * weights[posting]


@numba.njit(nogil=True, cache=True)
def collect(scores: np.ndarray, bar: np.float32, found: np.ndarray, found_scores: np.ndarray) -> int:
    """List the documents with a score above `bar`, in ascending order; return how many there are."""
    blocks = scores.reshape(-1, _BLOCK)
    count = 0
    for block in range(len(blocks)):
        above = np.int32(0)
        for i in range(_BLOCK):
            above += np.int32(blocks[block, i] > bar)
        if above == 0:
            continue
        for i in range(_BLOCK):
            if blocks[block, i] > bar:
                found[count] = block * _BLOCK + i
                found_scores[count] = blocks[block, i]
                count += 1
    return count


@numba.njit(nogil=True, cache=True)
def safe_bar(scores: np.ndarray, top_k: int) -> np.float32:
    """Return a score that at least `top_k` documents of the window exceed, 0 when that takes too long to find.

    The maxima of blocks belong to different documents, so their top_k-th largest is such a score, but for rounding down.
    """
    width = _BLOCK
    while width * 2 * top_k > len(scores):
        width //= 2
    if width < 4:
        return np.float32(0)
    blocks = scores.reshape(-1, width)
    maxima = np.empty(len(blocks), np.float32)
    for block in range(len(blocks)):
        maxima[block] = blocks[block].max()
    return np.partition(maxima, len(maxima) - top_k)[len(maxima) - top_k] * np.float32(1 - 1e-6)


@numba.njit(nogil=True, cache=True)
def collect_from_slice(
    offsets: np.ndarray,
    begin: int,
    end: int,
    scores: np.ndarray,
    bar: np.float32,
    found: np.ndarray,
    found_scores: np.ndarray,
    count: int,
) -> int:
    """As `collect` for the documents of one slice, setting their scores to zero. For windows with few postings."""
    for posting in range(begin, end):
        offset = offsets[posting]
        if scores[offset] > bar:
            found[count] = offset
            found_scores[count] = scores[offset]
            count += 1
        scores[offset] = 0
    return count


@numba.njit(nogil=True, cache=True)
def lower_bound(offsets: np.ndarray, begin: int, end: int, offset: int) -> int:
    """Return the first position in `begin:end` whose offset is not below `offset`, or `end`."""
    size = end - begin
    while size > 0:
        half = size >> 1
        if offsets[begin + half] < offset:
            begin += half + 1
            size -= half + 1
        else:
            size = half
    return begin


@numba.njit(nogil=True, cache=True)
def complete(
    offsets: np.ndarray,
    weights: np.ndarray,
    begin: int,
    end: int,
    query_weight: np.float32,
    found: np.ndarray,
    found_scores: np.ndarray,
    count: int,
    bar: np.float32,
) -> int:
    """Add one slice to the scores of listed documents (ascending); keep those that are then above `bar`."""
    kept = 0
    for i in range(count):
        begin = lower_bound(offsets, begin, end, found[i])
        score = found_scores[i]
        if begin < end and offsets[begin] == found[i]:
            score += query_weight * weights[begin]
        if score > bar:
            found[kept] = found[i]
            found_scores[kept] = score
            kept += 1
    return kept
