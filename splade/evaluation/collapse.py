"""Vectors that say nothing about their texts: every term in use, no term at all, or the same for all texts.

Training ends there when its scores were too large from the start (see `splade.models.rescaling`), when the learning
rate was too high, or when a regulariser was too strong or too weak. Search over such vectors ranks nothing.
"""

from typing import Literal

import numpy as np

from splade.vectors import SparseVectors

Collapse = Literal["no term is active", "every term is active", "all vectors are the same"]

_NEARLY_EVERY_TERM = 0.99  # padding and special tokens may have no weight
_SAME_WEIGHT = 1e-3  # relative


def find_collapse(vectors: SparseVectors) -> Collapse | None:
    """Return in what way vectors of different texts have collapsed, or None.

    Example:
        >>> same = SparseVectors.from_rows([([1, 2], [0.5, 1.0]), ([1, 2], [0.5, 1.0])], vocab_size=30)
        >>> find_collapse(same)
        'all vectors are the same'
    """
    if not len(vectors):
        return None
    if not vectors.nnz:
        return "no term is active"
    if every_term_is_active(vectors):
        return "every term is active"
    return "all vectors are the same" if len(vectors) > 1 and _all_the_same(vectors) else None


def every_term_is_active(vectors: SparseVectors) -> bool:
    """Return whether each vector holds (nearly) the whole vocabulary."""
    return len(vectors) > 0 and bool((vectors.lengths >= _NEARLY_EVERY_TERM * vectors.vocab_size).all())


def _all_the_same(vectors: SparseVectors) -> bool:
    if (vectors.lengths != vectors.lengths[0]).any():
        return False
    term_ids, weights = vectors.term_ids.reshape(len(vectors), -1), vectors.weights.reshape(len(vectors), -1)
    return bool((term_ids == term_ids[0]).all() and np.allclose(weights, weights[0], rtol=_SAME_WEIGHT, atol=0))
