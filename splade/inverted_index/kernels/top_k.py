"""The order of a ranking, and keeping the first of it.

The order, everywhere: higher score first, then the document that was indexed first (the lower number). A document and
its score are packed into one integer, a key, whose order is the ranking's: the bits of a positive float32 ascend with
its value, and below them stands the complement of the document's number. All of search compares keys, so ties come
out the same whatever way a search takes.
"""

import numpy as np

from splade.inverted_index.kernels.workspace import Rankings
from splade.storage.compiled import compiled

_DOC_MASK = np.uint64(0xFFFFFFFF)


@compiled()
def ranking_key(score: np.float32, doc: int) -> np.uint64:
    """Pack a positive score and a document number; the greater key stands first in the ranking."""
    return (np.uint64(np.float32(score).view(np.uint32)) << np.uint64(32)) | (_DOC_MASK - np.uint64(doc))


@compiled()
def key_score(key: np.uint64) -> np.float32:
    """Return the score of a key."""
    return np.uint32(key >> np.uint64(32)).view(np.float32)


@compiled()
def key_doc(key: np.uint64) -> np.int64:
    """Return the document number of a key."""
    return np.int64(_DOC_MASK - (key & _DOC_MASK))


@compiled()
def keep_best(keys: np.ndarray, size: int, top_k: int) -> int:
    """Move the `top_k` greatest of the first `size` keys to the front, the smallest of them first; return how many.

    This is Hoare's selection (1961), with the middle element as pivot: keys come in no adversarial order.
    """
    if size < top_k:
        return size
    low, high = 0, size - 1
    while low < high:
        pivot = keys[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if top_k - 1 <= j:
            high = j
        elif top_k - 1 >= i:
            low = i
        else:
            break
    keys[0], keys[top_k - 1] = keys[top_k - 1], keys[0]
    return top_k


@compiled()
def write_ranking(keys: np.ndarray, rankings: Rankings, query: int) -> None:
    """Sort the keys of a query and write their documents and scores, best first, behind those of the query before."""
    keys.sort()
    begin, last = rankings.indptr[query], len(keys) - 1
    rankings.indptr[query + 1] = begin + len(keys)
    for rank in range(len(keys)):
        rankings.doc_idx[begin + rank] = key_doc(keys[last - rank])
        rankings.scores[begin + rank] = key_score(keys[last - rank])
