"""The order of a ranking, and a heap that keeps its first entries.

The order, everywhere: higher score first, then the document that was indexed first (the lower number). This module is the
only place that compares two documents of a ranking, so ties come out the same whatever way a search takes.

A heap is two arrays, `scores` float32 and `docs` int32, whose first `size` entries form a binary heap with the last
entry of the ranking at the root: the one that the next better document replaces.
"""

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def ranks_after(score: np.float32, doc: int, other_score: np.float32, other_doc: int) -> bool:
    """Return whether the first document comes after the other in a ranking."""
    return score < other_score or (score == other_score and doc > other_doc)


@numba.njit(nogil=True, cache=True)
def push(scores: np.ndarray, docs: np.ndarray, size: int, score: np.float32, doc: int) -> int:
    """Offer a document to a heap; return the heap's new size."""
    if size < len(scores):
        place = size
        while place > 0:
            parent = (place - 1) >> 1
            if not ranks_after(score, doc, scores[parent], docs[parent]):
                break
            scores[place], docs[place] = scores[parent], docs[parent]
            place = parent
        scores[place], docs[place] = score, doc
        return size + 1
    if ranks_after(scores[0], docs[0], score, doc):
        _sink(scores, docs, size, score, doc)
    return size


@numba.njit(nogil=True, cache=True)
def sort_ranking(scores: np.ndarray, docs: np.ndarray, size: int) -> None:
    """Turn a heap into a ranking, best first, in place."""
    for last in range(size - 1, 0, -1):
        score, doc = scores[last], docs[last]
        scores[last], docs[last] = scores[0], docs[0]
        _sink(scores, docs, last, score, doc)


@numba.njit(nogil=True, cache=True)
def _sink(scores: np.ndarray, docs: np.ndarray, size: int, score: np.float32, doc: int) -> None:
    """Put a document in the place of the root and restore the heap of `size` entries."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and ranks_after(scores[child + 1], docs[child + 1], scores[child], docs[child]):
            child += 1
        if not ranks_after(scores[child], docs[child], score, doc):
            break
        scores[place], docs[place] = scores[child], docs[child]
        place = child
    scores[place], docs[place] = score, doc
