"""What happens inside one window of documents: add up postings, collect the best documents, complete partial scores.

A window's scores are an array of float32 small enough for the processor's cache; reading postings into it costs less
than a nanosecond each. All functions work on slices of postings given as `(begin, end)` positions in `offsets` and
`weights`.
"""

import numba
import numpy as np

from splade.inverted_index.merge import WINDOW_BITS

BLOCK = 64  # documents compared at once; a constant, so that the compiler turns the comparison into vector code
_FIRST_STEP = 16  # postings; half a cache line of offsets


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
    blocks = scores.reshape(-1, BLOCK)
    count = 0
    for block in range(len(blocks)):
        above = np.int32(0)
        for i in range(BLOCK):
            above += np.int32(blocks[block, i] > bar)
        if above == 0:
            continue
        for i in range(BLOCK):
            if blocks[block, i] > bar:
                found[count] = block * BLOCK + i
                found_scores[count] = blocks[block, i]
                count += 1
    return count


@numba.njit(nogil=True, cache=True)
def safe_bar(scores: np.ndarray, top_k: int) -> np.float32:
    """Return a score that at least `top_k` documents of the window exceed, 0 when that takes too long to find.

    The maxima of blocks belong to different documents, so their top_k-th largest, rounded down, is such a score.
    """
    width = BLOCK
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
def find(offsets: np.ndarray, begin: int, end: int, offset: int) -> int:
    """Return the posting of the document at `offset` in a slice, or -1.

    Documents are spread over a window more or less evenly, so the search starts where an even spread would have the
    document and widens from there: one or two cache misses, where halving the slice would take one for each step.
    """
    if begin == end:
        return -1
    guess = begin + (((end - begin) * offset) >> WINDOW_BITS)
    step = _FIRST_STEP
    if offsets[guess] < offset:
        low, high = guess + 1, min(guess + 1 + step, end)
        while high < end and offsets[high - 1] < offset:
            step *= 2
            low, high = high, min(high + step, end)
    else:
        low, high = max(guess - step, begin), guess + 1
        while low > begin and offsets[low] > offset:
            step *= 2
            low, high = max(low - step, begin), low
    while low < high:
        middle = (low + high) >> 1
        if offsets[middle] < offset:
            low = middle + 1
        else:
            high = middle
    return low if low < end and offsets[low] == offset else -1


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
    """Add one slice to the scores of listed documents; keep those that are then above `bar`."""
    kept = 0
    for i in range(count):
        posting = find(offsets, begin, end, found[i])
        score = found_scores[i]
        if posting >= 0:
            score += query_weight * weights[posting]
        if score > bar:
            found[kept] = found[i]
            found_scores[kept] = score
            kept += 1
    return kept
