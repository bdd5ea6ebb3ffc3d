"""Expected number of multiplications per query-document pair, the cost that the FLOPS regulariser stands for."""

import numpy as np

from splade.errors import DataError


def term_probabilities(posting_counts: np.ndarray, n_vectors: int) -> np.ndarray:
    """Return for each term the share of vectors in which it occurs, (vocab_size,) float64.

    Args:
        posting_counts: (vocab_size,) number of vectors that hold each term.
        n_vectors: number of vectors counted.

    Raises:
        DataError: there are no vectors, or more postings of a term than vectors.
    """
    counts = np.asarray(posting_counts, dtype=np.float64)
    if n_vectors < 1:
        raise DataError("the share of vectors that hold a term needs at least one vector, but there is none")
    if counts.size and (counts.min() < 0 or counts.max() > n_vectors):
        raise DataError(
            f"a term occurs in {counts.max():.0f} of {n_vectors} vectors; the counts belong to another collection"
        )
    return counts / n_vectors


def flops(p_query: np.ndarray, p_doc: np.ndarray) -> float:
    """Return the expected number of terms that a query and a document share (arXiv 2004.05665, section 3).

    Each shared term costs the scorer one multiplication: sum over the vocabulary of P(term in query) times
    P(term in document), both drawn at random.

    Args:
        p_query: (vocab_size,) share of queries that hold each term, from `term_probabilities`.
        p_doc: (vocab_size,) share of documents.

    Raises:
        DataError: the two vocabularies differ in size.

    Example:
        >>> flops(np.array([1.0, 0.5, 0.0]), np.array([0.25, 0.5, 1.0]))
        0.5
    """
    if p_query.shape != p_doc.shape:
        raise DataError(
            f"queries are over {p_query.size} terms and documents over {p_doc.size}: two different vocabularies"
        )
    return float(np.dot(np.asarray(p_query, dtype=np.float64), np.asarray(p_doc, dtype=np.float64)))
