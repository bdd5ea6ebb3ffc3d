"""Top-k search over windows of documents, exact and approximate.

The algorithm is MaxScore (Turtle and Flood, 1995) applied window by window. The terms of a query are ordered once by
how much of the possible score they settle per posting read: largest contribution / length of the posting list. In
each window the first terms are read in full, until the largest contributions of the remaining terms add up to well
below the score that a document must reach. Then only documents whose partial score can still reach it are completed,
by looking them up in the remaining slices. Those are the long lists of light terms, most of a query's postings.

Approximate search is the same, but takes into account only a share (`effort`) of what remaining terms can contribute
at most: a document hardly ever has the largest weight of all of them.

The score to reach is at first that of the documents found so far, which is low: the best of a tenth of the collection
are worse than the best of all. So it is guessed from them as if documents came in random order, and where the result
does not confirm the guess, because fewer documents than asked for are above it, the query is searched again without.

A document's contributions are added in the same order of terms on every way, so equal documents get equal scores.
"""

from typing import NamedTuple

import numba
import numpy as np

from splade.inverted_index.kernels.block_kernels import (
    BLOCK,
    add_slice,
    collect,
    collect_from_slice,
    complete,
    safe_bar,
)
from splade.inverted_index.kernels.top_k import keep_best, key_score, ranking_key, write_ranking
from splade.inverted_index.merge import WINDOW_BITS

_WINDOW = 1 << WINDOW_BITS
_SPARSE = _WINDOW // 16  # a window with fewer postings is collected posting by posting
_ROUNDING = np.float32(1 - 1e-5)  # float32 sums of any order differ by less than this factor
_LOOKUP_COST = 100  # of looking a document up in a slice, in postings read: cache misses, mostly
_CAUTION = 2.0  # standard deviations between what is expected of the documents to come and what is guessed


class PostingLists(NamedTuple):
    """The arrays of an index that a search reads; see `merging` for the layout."""

    offsets: np.ndarray  # uint16
    weights: np.ndarray  # float32
    slice_starts: np.ndarray  # int64, by term
    slice_windows: np.ndarray  # uint16
    slice_begins: np.ndarray  # int64
    slice_maxima: np.ndarray  # float32
    term_maxima: np.ndarray  # float32, by term


class Workspace(NamedTuple):
    """Arrays of one window, allocated once for many queries."""

    window_scores: np.ndarray  # float32, zero between queries
    found: np.ndarray  # int64, offsets of documents
    found_scores: np.ndarray  # float32
    keys: np.ndarray  # uint64, ranking keys: the best so far and as many again


@numba.njit(nogil=True, cache=True)
def search_batch(
    lists: PostingLists,
    n_docs: int,
    indptr: np.ndarray,
    term_ids: np.ndarray,
    query_weights: np.ndarray,
    threshold: np.float32,
    effort: float,
    docs: np.ndarray,
    scores: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Search several queries.

    Args:
        lists: the index.
        n_docs: documents in the index.
        indptr: of the queries, as in `SparseVectors`.
        term_ids: of the queries, int32.
        query_weights: of the queries, float32.
        threshold: only documents with a greater score are returned; not negative.
        effort: share of the remaining terms' largest contributions that is taken into account; 1 is exact search.
        docs: (n_queries, top_k) int32, receives document numbers, best first.
        scores: (n_queries, top_k) float32, receives their scores.
        counts: (n_queries,) int64, receives the number of documents found.
    """
    top_k = docs.shape[1]
    window = min(_WINDOW, (n_docs + BLOCK - 1) // BLOCK * BLOCK)
    space = Workspace(
        np.zeros(window, np.float32),
        np.empty(window, np.int64),
        np.empty(window, np.float32),
        np.empty(2 * top_k + 64, np.uint64),
    )
    for query in range(len(indptr) - 1):
        span = slice(indptr[query], indptr[query + 1])
        terms, weights = _order_terms(lists, term_ids[span], query_weights[span])
        size, guess = _search_one(lists, n_docs, terms, weights, threshold, effort, top_k, space, np.float32(0), True)
        lowest = key_score(space.keys[0]) if size == top_k else np.float32(0)
        # Not ">=": of equal scores, the one that was passed over may belong to an earlier document.
        if guess > 0 and not lowest > guess:
            # With less effort, what was found once may be passed over for its own score.
            floor = lowest if effort == 1 else np.float32(0)
            size, _ = _search_one(lists, n_docs, terms, weights, threshold, effort, top_k, space, floor, False)
        counts[query] = size
        write_ranking(space.keys[:size], docs[query], scores[query])


@numba.njit(nogil=True, cache=True)
def _length(lists: PostingLists, term: int) -> int:
    return lists.slice_begins[lists.slice_starts[term + 1]] - lists.slice_begins[lists.slice_starts[term]]


@numba.njit(nogil=True, cache=True)
def _order_terms(lists: PostingLists, term_ids: np.ndarray, query_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order the query's terms by largest contribution per posting, without those that no document has."""
    gains = np.empty(len(term_ids), np.float64)
    n_terms = 0
    for i in range(len(term_ids)):
        length = _length(lists, term_ids[i])
        gains[i] = -query_weights[i] * lists.term_maxima[term_ids[i]] / length if length > 0 else 1
        n_terms += length > 0
    order = np.argsort(gains, kind="mergesort")[:n_terms]
    return term_ids[order].astype(np.int64), query_weights[order]


@numba.njit(nogil=True, cache=True)
def _search_one(
    lists: PostingLists,
    n_docs: int,
    terms: np.ndarray,
    weights: np.ndarray,
    threshold: np.float32,
    effort: float,
    top_k: int,
    space: Workspace,
    floor: np.float32,
    guessing: bool,
) -> tuple[int, np.float32]:
    """Find the first `top_k` documents of one query's ranking.

    `floor` is a score that `top_k` documents are known to reach, or 0; with `guessing`, such scores are guessed, too.

    Returns:
        Their number; their keys are the first of `space.keys`, in no order but with the last of the ranking first.
        And the highest guess: documents that do not exceed it may have been passed over.
    """
    n_terms, size, share, guess = len(terms), 0, 0.5, np.float32(0)
    cursors = np.empty(n_terms, np.int64)
    for i in range(n_terms):
        cursors[i] = lists.slice_starts[terms[i]]
    begins, ends = np.empty(n_terms, np.int64), np.empty(n_terms, np.int64)
    present = np.empty(n_terms, np.float32)  # query weights of the terms that occur in the window
    remaining = np.empty(n_terms + 1, np.float64)  # largest contribution of the terms from each on
    for window in range((n_docs + _WINDOW - 1) >> WINDOW_BITS):
        n_present, n_postings = 0, 0
        for i in range(n_terms):
            cursor = cursors[i]
            if cursor < lists.slice_starts[terms[i] + 1] and lists.slice_windows[cursor] == window:
                begins[n_present], ends[n_present] = lists.slice_begins[cursor], lists.slice_begins[cursor + 1]
                present[n_present] = weights[i]
                remaining[n_present] = effort * weights[i] * lists.slice_maxima[cursor]
                n_postings += ends[n_present] - begins[n_present]
                n_present += 1
                cursors[i] = cursor + 1
        remaining[n_present] = 0
        for i in range(n_present - 1, -1, -1):
            remaining[i] += remaining[i + 1]
        bar = max(threshold, floor)
        if size == top_k:
            bar = max(bar, key_score(space.keys[0]))
        if guessing and window > 0:
            guess = max(guess, _likely_score(space.keys[:size], top_k, (window << WINDOW_BITS) / n_docs))
            bar = max(bar, guess)
        bar *= _ROUNDING
        if n_present == 0 or remaining[0] < bar:
            continue
        if n_postings < _SPARSE:
            for i in range(n_present):
                add_slice(lists.offsets, lists.weights, begins[i], ends[i], present[i], space.window_scores)
            count = 0
            for i in range(n_present):
                count = collect_from_slice(
                    lists.offsets, begins[i], ends[i], space.window_scores, bar, space.found, space.found_scores, count
                )
        else:
            count, share = _read_window(lists, begins, ends, present, remaining, n_present, bar, share, top_k, space)
        for i in range(count):
            if space.found_scores[i] > threshold:
                space.keys[size] = ranking_key(space.found_scores[i], (window << WINDOW_BITS) + space.found[i])
                size += 1
                if size == len(space.keys):
                    size = keep_best(space.keys, size, top_k)
        size = keep_best(space.keys, size, top_k)
    return size, guess


@numba.njit(nogil=True, cache=True)
def _likely_score(keys: np.ndarray, top_k: int, seen: float) -> np.float32:
    """Return a score that `top_k` documents probably reach, 0 if there is none above that of the last key.

    In random order, the number of the `top_k` best documents that are among a share `seen` of the collection has a
    binomial distribution.
    """
    expected = top_k * seen
    rank = int(np.ceil(expected + _CAUTION * np.sqrt(expected * (1 - seen)) + 0.5))
    if rank >= top_k or rank > len(keys):
        return np.float32(0)
    return key_score(np.partition(keys, len(keys) - rank)[len(keys) - rank])


@numba.njit(nogil=True, cache=True)
def _read_window(
    lists: PostingLists,
    begins: np.ndarray,
    ends: np.ndarray,
    present: np.ndarray,
    remaining: np.ndarray,
    n_present: int,
    bar: np.float32,
    share: float,
    top_k: int,
    space: Workspace,
) -> tuple[int, float]:
    """List all documents of a window with a score above `bar`, perhaps a few below.

    Terms are read in full until the rest can contribute `share` of the bar; the others are looked up.

    Returns:
        Number of documents listed, and the share to try in the next window: looking up should cost a third of reading.
    """
    window_scores, found, found_scores = space.window_scores, space.found, space.found_scores
    n_read, read = 0, 0
    while n_read < n_present and remaining[n_read] > share * bar:
        add_slice(lists.offsets, lists.weights, begins[n_read], ends[n_read], present[n_read], window_scores)
        read += ends[n_read] - begins[n_read]
        n_read += 1
    unread = 0
    for i in range(n_read, n_present):
        unread += ends[i] - begins[i]
    if bar == 0:
        bar = safe_bar(window_scores, top_k)
    count = collect(window_scores, np.float32(bar - remaining[n_read]), found, found_scores)
    if count * _LOOKUP_COST > unread:
        for i in range(n_read, n_present):
            add_slice(lists.offsets, lists.weights, begins[i], ends[i], present[i], window_scores)
        count = collect(window_scores, bar, found, found_scores)
        window_scores[:] = 0
        return count, share * 0.8 if unread > 0 else share
    window_scores[:] = 0
    lookups = 0
    for i in range(n_read, n_present):
        lookups += count
        count = complete(
            lists.offsets,
            lists.weights,
            begins[i],
            ends[i],
            present[i],
            found,
            found_scores,
            count,
            np.float32(bar - remaining[i + 1]),
        )
    work = lookups * _LOOKUP_COST
    if work > 0.6 * read:
        return count, share * 0.85
    if work < 0.2 * read:
        return count, min(0.95, share * 1.15)
    return count, share
