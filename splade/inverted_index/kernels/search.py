"""Top-k search over windows of documents, exact and approximate.

The algorithm is MaxScore (Turtle and Flood, 1995) applied window by window, with block-max upper bounds (Ding and Suel,
2011). The terms of a query are ordered once by how much of the possible score they settle per posting read: upper bound
/ length of the posting list. In each window the first posting blocks, the essential ones, are read in full, until the
upper bounds of the others add up to well below the threshold, the score that a document must exceed. Then only
documents whose partial score can still exceed it are completed, by looking them up in the non-essential blocks. Those
belong to the long lists of light terms, most of a query's postings.

Approximate search is the same, but takes into account only a share (`effort`) of what non-essential lists can
contribute at most: a document hardly ever has the largest impact of all of them.

The threshold is at first that of the documents found so far, which is low: the best of a tenth of the collection are
worse than the best of all. So it is estimated from them, in the first window from the best of that, as if documents
came in random order, and where the result does not confirm the estimate, because fewer documents than asked for are
above it, the query is searched again without.

A document's contributions are added in the same order of terms on every way, so equal documents get equal scores.
"""

from typing import NamedTuple

import numpy as np

from splade.inverted_index.kernels.block_kernels import (
    LANES,
    add_block,
    collect,
    collect_from_block,
    complete_scores,
    n_above,
    safe_threshold,
)
from splade.inverted_index.kernels.top_k import keep_best, key_score, ranking_key, write_ranking
from splade.inverted_index.kernels.workspace import Rankings, Workspace, n_keys
from splade.inverted_index.layout import WINDOW_BITS, PostingLists, TermStatistics
from splade.storage.compiled import compiled

_WINDOW = 1 << WINDOW_BITS
_SPARSE = _WINDOW // 16  # a window with fewer postings is collected posting by posting
_ROUNDING = np.float32(1 - 1e-5)  # float32 sums of any order differ by less than this factor
_SHARE = 0.6  # of the threshold: the most that blocks which are not read may contribute
_LOOKUP_COST = 60  # of looking a document up in a block, in postings read: cache misses, mostly
_CAUTION = 3.0  # standard deviations between what is expected of the documents to come and the threshold estimate


class QueryBlocks(NamedTuple):
    """The posting blocks of a query's terms in one window; only the first ones are in use."""

    begins: np.ndarray  # int64
    ends: np.ndarray  # int64
    weights: np.ndarray  # float32, of the terms in the query
    bounds: np.ndarray  # float64, the most that the blocks from each on can add to a score


@compiled()
def highest_score(indptr: np.ndarray, term_ids: np.ndarray, weights: np.ndarray, largest: np.ndarray) -> float:
    """Return the highest score that a document with the largest impact of every term would have, over all queries.

    NaN, where the arrays are not those of sparse vectors over the terms of `largest`.
    """
    if len(indptr) == 0 or indptr[0] != 0 or indptr[-1] != len(term_ids) or len(term_ids) != len(weights):
        return np.nan
    highest = 0.0
    for query in range(len(indptr) - 1):
        begin, end = indptr[query], indptr[query + 1]
        if begin > end or end > len(term_ids):
            return np.nan
        bound, last_term = 0.0, -1
        for i in range(begin, end):
            term, weight = term_ids[i], weights[i]
            if term <= last_term or term >= len(largest) or not 0 < weight < np.inf:
                return np.nan
            bound += np.float64(weight) * largest[term]
            last_term = term
        highest = max(highest, bound)
    return highest


@compiled()
def search_batch(
    lists: PostingLists,
    statistics: TermStatistics,
    n_docs: int,
    indptr: np.ndarray,
    term_ids: np.ndarray,
    query_weights: np.ndarray,
    min_score: np.float32,
    effort: float,
    top_k: int,
    workspace: Workspace,
    rankings: Rankings,
) -> None:
    """Search several queries.

    Args:
        lists: the index.
        statistics: of its terms in the collection of which the index holds all or a shard.
        n_docs: documents in the index.
        indptr: of the queries, as in `SparseVectors`, perhaps of some of them.
        term_ids: of the queries, int32.
        query_weights: of the queries, float32.
        min_score: only documents with a greater score are returned; not negative.
        effort: share of the non-essential lists' upper bounds that is taken into account; 1 is exact search.
        top_k: at most so many documents for each query.
        workspace: of the thread.
        rankings: receives what is found.
    """
    window = min(_WINDOW, (n_docs + LANES - 1) // LANES * LANES)
    space = Workspace(
        workspace.window_scores[:window], workspace.found, workspace.found_scores, workspace.keys[: n_keys(top_k)]
    )
    for query in range(len(indptr) - 1):
        span = slice(indptr[query], indptr[query + 1])
        terms, weights = _order_terms(lists, statistics, term_ids[span], query_weights[span])
        size, estimate = _search_one(
            lists, n_docs, terms, weights, min_score, effort, top_k, space, np.float32(0), True
        )
        lowest = key_score(space.keys[0]) if size == top_k else np.float32(0)
        if lowest < estimate:
            # With less effort, what was found once may be passed over for its own score.
            floor = lowest if effort == 1 else np.float32(0)
            size, _ = _search_one(lists, n_docs, terms, weights, min_score, effort, top_k, space, floor, False)
        write_ranking(space.keys[:size], rankings, query)


@compiled()
def _list_length(lists: PostingLists, term: int) -> int:
    return lists.block_postings[lists.term_blocks[term + 1]] - lists.block_postings[lists.term_blocks[term]]


@compiled()
def _order_terms(
    lists: PostingLists, statistics: TermStatistics, term_ids: np.ndarray, query_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Order the query's terms by largest contribution per posting, without those that no document has."""
    gains = np.empty(len(term_ids), np.float64)
    n_terms = 0
    for i in range(len(term_ids)):
        term = term_ids[i]
        there = _list_length(lists, term) > 0
        gains[i] = -query_weights[i] * statistics.largest[term] / statistics.counts[term] if there else 1
        n_terms += there
    order = np.argsort(gains, kind="mergesort")[:n_terms]
    return term_ids[order].astype(np.int64), query_weights[order]


@compiled()
def _search_one(
    lists: PostingLists,
    n_docs: int,
    terms: np.ndarray,
    weights: np.ndarray,
    min_score: np.float32,
    effort: float,
    top_k: int,
    space: Workspace,
    floor: np.float32,
    estimating: bool,
) -> tuple[int, np.float32]:
    """Find the first `top_k` documents of one query's ranking.

    `floor` is a score that `top_k` documents are known to reach, or 0; with `estimating`, such scores are estimated.

    Returns:
        Their number; their keys are the first of `space.keys`, in no order but with the last of the ranking first.
        And the highest estimate: documents that do not exceed it may have been passed over.
    """
    n_terms, size, estimate = len(terms), 0, np.float32(0)
    blocks = QueryBlocks(
        np.empty(n_terms, np.int64),
        np.empty(n_terms, np.int64),
        np.empty(n_terms, np.float32),
        np.empty(n_terms + 1, np.float64),
    )
    cursors = np.empty(n_terms, np.int64)
    for i in range(n_terms):
        cursors[i] = lists.term_blocks[terms[i]]
    for window in range((n_docs + _WINDOW - 1) >> WINDOW_BITS):
        n_blocks, n_postings = _blocks_of_window(lists, terms, weights, effort, window, cursors, blocks)
        threshold = max(min_score, floor)
        if size == top_k:
            threshold = max(threshold, key_score(space.keys[0]))
        if estimating and window > 0:
            estimate = max(estimate, _estimate_threshold(space.keys[:size], top_k, (window << WINDOW_BITS) / n_docs))
            threshold = max(threshold, estimate)
        threshold *= _ROUNDING
        if n_blocks == 0 or blocks.bounds[0] < threshold:
            continue
        if n_postings < _SPARSE:
            count = _read_sparse_window(lists, blocks, n_blocks, threshold, space)
        else:
            rank = min(top_k, _probable_rank(top_k, min(1.0, _WINDOW / n_docs))) if estimating else top_k
            count, passed = _read_window(lists, blocks, n_blocks, threshold, rank, space)
            if rank < top_k:
                estimate = max(estimate, passed)
        for i in range(count):
            if space.found_scores[i] > min_score:
                space.keys[size] = ranking_key(space.found_scores[i], (window << WINDOW_BITS) + space.found[i])
                size += 1
                if size == len(space.keys):
                    size = keep_best(space.keys, size, top_k)
        size = keep_best(space.keys, size, top_k)
    return size, estimate


@compiled(inline="always")  # a call for each window takes measurable time
def _blocks_of_window(
    lists: PostingLists,
    terms: np.ndarray,
    weights: np.ndarray,
    effort: float,
    window: int,
    cursors: np.ndarray,
    blocks: QueryBlocks,
) -> tuple[int, int]:
    """Gather the blocks of the terms that occur in a window; return the number of blocks and of their postings."""
    n_blocks, n_postings = 0, 0
    for i in range(len(terms)):
        cursor = cursors[i]
        if cursor < lists.term_blocks[terms[i] + 1] and lists.block_windows[cursor] == window:
            begin, end = lists.block_postings[cursor], lists.block_postings[cursor + 1]
            blocks.begins[n_blocks], blocks.ends[n_blocks] = begin, end
            blocks.weights[n_blocks] = weights[i]
            blocks.bounds[n_blocks] = effort * weights[i] * lists.block_max[cursor]
            n_postings += end - begin
            n_blocks += 1
            cursors[i] = cursor + 1
    blocks.bounds[n_blocks] = 0
    for i in range(n_blocks - 1, -1, -1):
        blocks.bounds[i] += blocks.bounds[i + 1]
    return n_blocks, n_postings


@compiled()
def _estimate_threshold(keys: np.ndarray, top_k: int, seen: float) -> np.float32:
    """Return a score that `top_k` documents probably reach, 0 if there is none above that of the last key."""
    rank = _probable_rank(top_k, seen)
    if rank >= top_k or rank > len(keys):
        return np.float32(0)
    return key_score(np.partition(keys, len(keys) - rank)[len(keys) - rank])


@compiled()
def _probable_rank(top_k: int, seen: float) -> int:
    """Return how many of the `top_k` best documents are hardly exceeded among a share `seen` of the collection.

    In random order, their number has a binomial distribution.
    """
    expected = top_k * seen
    return int(np.ceil(expected + _CAUTION * np.sqrt(expected * (1 - seen)) + 0.5))


@compiled(inline="always")  # a call for each window takes measurable time
def _read_sparse_window(
    lists: PostingLists, blocks: QueryBlocks, n_blocks: int, threshold: np.float32, space: Workspace
) -> int:
    """List all documents of a window with a score above `threshold`, at a cost that depends on the postings alone."""
    begins, ends, scores = blocks.begins, blocks.ends, space.window_scores
    for i in range(n_blocks):
        add_block(lists.offsets, lists.impacts, begins[i], ends[i], blocks.weights[i], scores)
    count = 0
    for i in range(n_blocks):
        count = collect_from_block(
            lists.offsets, begins[i], ends[i], scores, threshold, space.found, space.found_scores, count
        )
    return count


@compiled()
def _read_window(
    lists: PostingLists,
    blocks: QueryBlocks,
    n_blocks: int,
    threshold: np.float32,
    rank: int,
    space: Workspace,
) -> tuple[int, np.float32]:
    """List all documents of a window with a score above `threshold`, perhaps a few below.

    Blocks are essential, read in full, until the rest can contribute less than `_SHARE` of the threshold, and from
    there on as long as reading a block takes less time than looking up in it all documents that can still exceed the
    threshold. A `threshold` of 0 is replaced by a score that at least `rank` documents of the window exceed.

    Returns:
        Number of documents listed, and that score, or 0.
    """
    offsets, impacts, begins, ends = lists.offsets, lists.impacts, blocks.begins, blocks.ends
    window_scores, found, found_scores = space.window_scores, space.found, space.found_scores
    first, passed = 0, np.float32(0)
    while first < n_blocks and (
        blocks.bounds[first] > _SHARE * threshold
        or n_above(window_scores, np.float32(threshold - blocks.bounds[first])) * _LOOKUP_COST
        > ends[first] - begins[first]
    ):
        add_block(offsets, impacts, begins[first], ends[first], blocks.weights[first], window_scores)
        first += 1
    if threshold == 0:
        passed = safe_threshold(window_scores, rank)
        threshold = passed * _ROUNDING
    count = collect(window_scores, np.float32(threshold - blocks.bounds[first]), found, found_scores)
    window_scores[:] = 0
    for i in range(first, n_blocks):
        least = np.float32(threshold - blocks.bounds[i + 1])
        count = complete_scores(
            offsets, impacts, begins[i], ends[i], blocks.weights[i], found, found_scores, count, least
        )
    return count, passed
