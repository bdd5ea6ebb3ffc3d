"""What happens inside one window of documents: add up postings, collect the best documents, complete partial scores.

A window's scores are an array of float32 small enough for the processor's cache; reading postings into it costs less
than a nanosecond each. Posting blocks are given as `(begin, end)` positions in `offsets` and `impacts`.
"""

import numpy as np

from splade.inverted_index.layout import WINDOW_BITS
from splade.storage.compiled import compiled

LANES = 64  # documents compared at once; a constant, so that the compiler turns the comparison into vector code
_SAMPLE = 4  # one in so many documents is counted
_FIRST_STEP = 16  # postings; half a cache line of offsets


@compiled()
def add_block(
    offsets: np.ndarray, impacts: np.ndarray, begin: int, end: int, query_weight: np.float32, scores: np.ndarray
) -> None:
    """Add `query_weight` x impact of every posting of a block to its document's score."""
    for posting in range(begin, end):
        scores[offsets[posting]] += query_weight * impacts[posting]


@compiled()
def collect(scores: np.ndarray, threshold: np.float32, found: np.ndarray, found_scores: np.ndarray) -> int:
    """List the documents with a score above `threshold`, in ascending order; return how many there are."""
    groups = scores.reshape(-1, LANES)
    count = 0
    for group in range(len(groups)):
        above = np.int32(0)
        for i in range(LANES):
            above += np.int32(groups[group, i] > threshold)
        if above == 0:
            continue
        for i in range(LANES):
            if groups[group, i] > threshold:
                found[count] = group * LANES + i
                found_scores[count] = groups[group, i]
                count += 1
    return count


@compiled()
def safe_threshold(scores: np.ndarray, top_k: int) -> np.float32:
    """Return a score that at least `top_k` documents of the window exceed, 0 when that takes too long to find.

    The maxima of groups belong to different documents, so their top_k-th largest, rounded down, is such a score.
    """
    width = LANES
    while width * 2 * top_k > len(scores):
        width //= 2
    if width < 4:
        return np.float32(0)
    bits = scores.view(np.int32)  # they ascend with the scores, and integers are compared in vector code
    n_groups = len(scores) // width
    maxima = bits[:n_groups].copy()
    for begin in range(n_groups, len(bits), n_groups):
        for group in range(n_groups):
            maxima[group] = max(maxima[group], bits[begin + group])
    return np.partition(maxima.view(np.float32), n_groups - top_k)[n_groups - top_k] * np.float32(1 - 1e-6)


@compiled()
def n_above(scores: np.ndarray, threshold: np.float32) -> int:
    """Estimate how many documents of the window have a score above `threshold`, from the first of them."""
    sample = len(scores) // _SAMPLE
    count = np.int32(0)
    for i in range(sample):
        count += np.int32(scores[i] > threshold)
    return count * _SAMPLE


@compiled()
def collect_from_block(
    offsets: np.ndarray,
    begin: int,
    end: int,
    scores: np.ndarray,
    threshold: np.float32,
    found: np.ndarray,
    found_scores: np.ndarray,
    count: int,
) -> int:
    """As `collect` for the documents of one block, setting their scores to zero. For windows with few postings."""
    for posting in range(begin, end):
        offset = offsets[posting]
        if scores[offset] > threshold:
            found[count] = offset
            found_scores[count] = scores[offset]
            count += 1
        scores[offset] = 0
    return count


@compiled()
def find_posting(offsets: np.ndarray, begin: int, end: int, offset: int) -> int:
    """Return the posting of the document at `offset` in a block, or -1.

    Documents are spread over a window more or less evenly, so the search starts where an even spread would have the
    document and widens from there: one or two cache misses, where halving the block would take one for each step.
    """
    if begin == end:
        return -1
    start = begin + (((end - begin) * offset) >> WINDOW_BITS)
    step = _FIRST_STEP
    if offsets[start] < offset:
        low, high = start + 1, min(start + 1 + step, end)
        while high < end and offsets[high - 1] < offset:
            step *= 2
            low, high = high, min(high + step, end)
    else:
        low, high = max(start - step, begin), start + 1
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


@compiled()
def complete_scores(
    offsets: np.ndarray,
    impacts: np.ndarray,
    begin: int,
    end: int,
    query_weight: np.float32,
    found: np.ndarray,
    found_scores: np.ndarray,
    count: int,
    threshold: np.float32,
) -> int:
    """Add one block to the scores of listed documents; keep those that are then above `threshold`."""
    kept = 0
    for i in range(count):
        posting = find_posting(offsets, begin, end, found[i])
        score = found_scores[i]
        if posting >= 0:
            score += query_weight * impacts[posting]
        if score > threshold:
            found[kept] = found[i]
            found_scores[kept] = score
            kept += 1
    return kept
