"""Queries as vectors: JSON lines, or as Anserini's topics, `id <TAB> terms`, each term as often as its weight says."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from splade.datasets.collections import open_queries
from splade.datasets.vector_queries import VectorQueries
from splade.errors import DataError, shown
from splade.interop import jsonl_vectors
from splade.interop.term_names import numbers_of_names
from splade.storage.paths import resolve_path
from splade.vectors import SparseVectors

logger = logging.getLogger(__name__)
_MANY_UNKNOWN = 0.5


def open_vector_queries(path: str | Path, terms: Sequence[str]) -> VectorQueries:
    """Read the vectors of queries over a vocabulary.

    Terms that it does not have match no document and are left out; the log says how many there are.

    Args:
        path: `.jsonl` or `.jsonl.gz` of `{"id", "vector": {term: weight}}`; a TSV of terms, or a folder of it.
        terms: the vocabulary.

    Raises:
        DataError: a wrong line, an id that occurs twice, or queries without any term of the vocabulary.
    """
    number_of, vectors = numbers_of_names(terms), dict[str, dict[str, float]]()
    for query_id, vector in _vectors(path):
        if query_id in vectors:
            raise DataError(f"{path}: the id {query_id!r} occurs twice")
        vectors[query_id] = vector
    known = {
        query_id: {number_of[term]: weight for term, weight in vector.items() if term in number_of}
        for query_id, vector in vectors.items()
    }
    n_terms, n_known = (sum(map(len, some.values())) for some in (vectors, known))
    if not n_known:
        example = next((term for vector in vectors.values() for term in vector), "")
        raise DataError(
            f"{path}: none of the {n_terms} terms of the queries, such as {shown(example)}, is in the index's "
            f"vocabulary of {len(terms)} terms: another system made the queries"
        )
    if n_known < n_terms:
        loudness = logging.WARNING if n_known < _MANY_UNKNOWN * n_terms else logging.INFO
        message = "%s: %d of %d terms of the queries are in no document; is their vocabulary that of the documents?"
        logger.log(loudness, message, path, n_terms - n_known, n_terms)
    rows = ((list(vector), list(vector.values())) for vector in known.values())
    try:
        return VectorQueries(list(vectors), SparseVectors.from_rows(rows, len(terms)), terms)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _vectors(path: str | Path) -> Iterator[tuple[str, dict[str, float]]]:
    place = resolve_path(path)
    if place.name.endswith((".jsonl", ".jsonl.gz")):
        yield from ((query_id, vector) for _, query_id, vector in jsonl_vectors.entries(place))
    else:
        yield from ((query_id, dict[str, float](Counter(text.split()))) for query_id, text in open_queries(path))
