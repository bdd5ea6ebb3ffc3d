"""Every compiled loop of the search against a few lines of NumPy that do the same. The whole search has its twin
(`full_sort`) in test_inverted_index_properties, and over several windows in test_inverted_index_oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splade.errors import DataError
from splade.inverted_index.kernels import block_kernels as block
from splade.inverted_index.kernels import top_k as ranking
from splade.inverted_index.kernels.search import highest_score
from splade.inverted_index.kernels.workspace import Rankings
from splade.vectors import SparseVectors

WINDOW = 256
SEEDS = st.integers(0, 1 << 32)
quickly = settings(deadline=None, max_examples=60)


def a_block(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Offsets, impacts, begin and end of a block between postings of other blocks."""
    n, before, after = rng.integers(0, WINDOW), rng.integers(0, 20), rng.integers(0, 20)
    inside = np.sort(rng.choice(WINDOW, n, replace=False))
    others = [rng.integers(0, WINDOW, size) for size in (before, after)]
    offsets = np.concatenate([others[0], inside, others[1]]).astype(np.uint16)
    return offsets, rng.integers(1, 9, len(offsets)).astype(np.float32), before, before + n


def some_scores(rng: np.random.Generator, n: int = WINDOW) -> np.ndarray:
    return (rng.integers(0, 9, n) * (rng.random(n) < 0.3)).astype(np.float32)


@quickly
@given(SEEDS)
def test_add_block(seed):
    rng = np.random.default_rng(seed)
    offsets, impacts, begin, end = a_block(rng)
    scores = some_scores(rng)
    expected = scores.copy()
    expected[offsets[begin:end]] += np.float32(0.5) * impacts[begin:end]
    block.add_block(offsets, impacts, begin, end, np.float32(0.5), scores)
    assert scores.tolist() == expected.tolist()


@quickly
@given(SEEDS, st.integers(-1, 8))
def test_collect(seed, threshold):
    scores = some_scores(np.random.default_rng(seed))
    found, found_scores = np.empty(WINDOW, np.int64), np.empty(WINDOW, np.float32)
    count = block.collect(scores, np.float32(threshold), found, found_scores)
    expected = np.flatnonzero(scores > threshold)
    assert found[:count].tolist() == expected.tolist()
    assert found_scores[:count].tolist() == scores[expected].tolist()


@quickly
@given(SEEDS, st.integers(0, 8))
def test_collect_from_block(seed, threshold):
    rng = np.random.default_rng(seed)
    offsets, _, begin, end = a_block(rng)
    scores = some_scores(rng)
    expected = [d for d in offsets[begin:end].tolist() if scores[d] > threshold]
    expected_scores, left = scores[expected].tolist(), scores.copy()
    left[offsets[begin:end]] = 0
    found, found_scores = np.full(WINDOW + 1, 77), np.empty(WINDOW + 1, np.float32)
    count = block.collect_from_block(offsets, begin, end, scores, np.float32(threshold), found, found_scores, 1)
    assert found[:count].tolist() == [77, *expected]
    assert found_scores[1:count].tolist() == expected_scores
    assert scores.tolist() == left.tolist()


@quickly
@given(SEEDS, st.integers(1, WINDOW))
def test_safe_threshold(seed, top_k):
    scores = np.random.default_rng(seed).random(WINDOW).astype(np.float32)
    threshold = block.safe_threshold(scores, top_k)
    assert threshold == 0 if top_k > WINDOW // 8 else (scores > threshold).sum() >= top_k
    width = max((w for w in (64, 32, 16, 8, 4) if w * 2 * top_k <= WINDOW), default=0)
    if width:
        maxima = np.sort(scores.reshape(width, -1).max(axis=0))[::-1]
        assert threshold == maxima[top_k - 1] * np.float32(1 - 1e-6)


@quickly
@given(SEEDS, st.integers(-1, 8))
def test_n_above(seed, threshold):
    scores = some_scores(np.random.default_rng(seed))
    assert block.n_above(scores, np.float32(threshold)) == 4 * (scores[: WINDOW // 4] > threshold).sum()


@quickly
@given(SEEDS)
def test_find_posting(seed):
    offsets, _, begin, end = a_block(np.random.default_rng(seed))
    for offset in range(WINDOW):
        places = begin + np.flatnonzero(offsets[begin:end] == offset)
        assert block.find_posting(offsets, begin, end, offset) == (places[0] if len(places) else -1)


@quickly
@given(SEEDS, st.integers(0, 12))
def test_complete_scores(seed, threshold):
    rng = np.random.default_rng(seed)
    offsets, impacts, begin, end = a_block(rng)
    scores = some_scores(rng)
    found = np.flatnonzero(scores)
    listed, listed_scores = found.copy(), scores[found]
    count = block.complete_scores(
        offsets, impacts, begin, end, np.float32(2), listed, listed_scores, len(found), np.float32(threshold)
    )
    scores[offsets[begin:end]] += 2 * impacts[begin:end]
    expected = found[scores[found] > threshold]
    assert listed[:count].tolist() == expected.tolist()
    assert listed_scores[:count].tolist() == scores[expected].tolist()


@quickly
@given(SEEDS, st.integers(1, 60), st.integers(0, 60))
def test_ranking(seed, top_k, n):
    """Keys order as (higher score, lower number); the best are kept; documents and scores come back."""
    rng = np.random.default_rng(seed)
    docs, scores = (rng.choice(1 << 20, n, replace=False) << 11) + 2047, some_scores(rng, n) + 1  # up to 2**31 - 1
    expected = np.lexsort((docs, -scores))[:top_k]
    keys = np.array([ranking.ranking_key(s, d) for s, d in zip(scores, docs.tolist(), strict=True)], np.uint64)
    size = ranking.keep_best(keys, n, top_k)
    assert size == min(n, top_k)
    if n >= top_k:
        assert (ranking.key_doc(keys[0]), ranking.key_score(keys[0])) == (docs[expected[-1]], scores[expected[-1]])
    rankings = Rankings.empty(2, top_k + 7)
    rankings.indptr[1] = 7
    ranking.write_ranking(keys[:size], rankings, 1)
    assert rankings.indptr.tolist() == [0, 7, 7 + size]
    assert rankings.doc_idx[7 : 7 + size].tolist() == docs[expected].tolist()
    assert rankings.scores[7 : 7 + size].tolist() == scores[expected].tolist()


FAULTS = {
    "none": lambda indptr, terms, weights: None,
    "a term too high": lambda indptr, terms, weights: terms.put(-1, 9),
    "a negative term": lambda indptr, terms, weights: terms.put(0, -1),
    "a term twice": lambda indptr, terms, weights: terms.put(1, terms[0]),
    "a weight of 0": lambda indptr, terms, weights: weights.put(2, 0),
    "infinity": lambda indptr, terms, weights: weights.put(2, np.inf),
    "NaN": lambda indptr, terms, weights: weights.put(0, np.nan),
    "a wrong begin": lambda indptr, terms, weights: indptr.put(0, 1),
    "a wrong end": lambda indptr, terms, weights: indptr.put(-1, 99),
    "descending": lambda indptr, terms, weights: indptr.put(1, 99),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_highest_score(fault):
    """The sum of products with the largest impacts, of the best query; NaN for what `SparseVectors.check` refuses."""
    largest = np.arange(9, dtype=np.float32)
    arrays = np.array([0, 2, 2, 5]), np.array([1, 4, 0, 2, 8], np.int32), np.array([1, 2, 7, 1, 0.5], np.float32)
    FAULTS[fault](*arrays)
    highest = highest_score(*arrays, largest)
    if fault == "none":
        assert highest == 9.0
        assert highest_score(np.zeros(0, np.int64), *arrays[1:], largest) != highest
    else:
        assert np.isnan(highest)
        with pytest.raises(DataError):
            SparseVectors(*arrays, 9).check(9)
