"""Arrays that searches write to: a thread's own, used again by each of its searches, and those of the results."""

import threading
from typing import NamedTuple

import numpy as np

from splade.inverted_index.layout import WINDOW_BITS
from splade.storage.compiled import compiled

_KEPT_KEYS = 1 << 18  # more, of a search for very many documents, are not kept


class Workspace(NamedTuple):
    """Arrays of one window."""

    window_scores: np.ndarray  # float32, zero between queries
    found: np.ndarray  # int64, offsets of documents
    found_scores: np.ndarray  # float32
    keys: np.ndarray  # uint64, ranking keys: the best so far and as many again


class Rankings(NamedTuple):
    """What a kernel finds for several queries, in compressed sparse row form, with room for all that it may find."""

    indptr: np.ndarray  # (n_queries + 1,) int64
    doc_idx: np.ndarray  # int32, numbers of documents, best first
    scores: np.ndarray  # float32

    @classmethod
    def empty(cls, n_queries: int, top_k: int) -> "Rankings":
        """Make room for the results of `n_queries` queries."""
        n = n_queries * top_k
        return cls(np.zeros(n_queries + 1, np.int64), np.empty(n, np.int32), np.empty(n, np.float32))


@compiled()
def n_keys(top_k: int) -> int:
    """Return how many keys a search for `top_k` documents holds."""
    return 2 * top_k + 64


class _ThreadsOwn(threading.local):
    """Not made anew for each query: it is larger than the cache of a core, and memory given back is zeroed again."""

    def __init__(self) -> None:
        size = 1 << WINDOW_BITS
        self.space = Workspace(
            np.zeros(size, np.float32), np.empty(size, np.int64), np.empty(size, np.float32), np.empty(0, np.uint64)
        )


_own = _ThreadsOwn()


def thread_workspace(top_k: int) -> Workspace:
    """Return the arrays of the thread that calls, large enough for `top_k` documents."""
    needed = 2 * top_k + 64
    if len(_own.space.keys) >= needed:
        return _own.space
    space = _own.space._replace(keys=np.empty(needed, np.uint64))
    if needed <= _KEPT_KEYS:
        _own.space = space
    return space
