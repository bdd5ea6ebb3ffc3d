"""Queries that are given as vectors, in place of texts that a model would encode."""

from collections.abc import Iterator, Mapping, Sequence

from splade.vectors import SparseVectors


class VectorQueries(Mapping[str, str]):
    """Queries by id, with their vectors; what stands for a text are the query's terms and weights.

    Args:
        ids: of the queries.
        vectors: one for each, over `terms`.
        terms: the vocabulary.

    Example:
        >>> queries = VectorQueries(["q1"], SparseVectors.from_rows([([0, 1], [2, 1])], 2), ["cat", "dog"])
        >>> queries["q1"]
        'cat:2 dog:1'
    """

    def __init__(self, ids: Sequence[str], vectors: SparseVectors, terms: Sequence[str]):
        self.ids = list(ids)
        self.vectors = vectors
        self._terms = terms
        self._rows = {query_id: row for row, query_id in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __getitem__(self, query_id: str) -> str:
        term_ids, weights = self.vectors.row(self._rows[query_id])
        pairs = zip(term_ids.tolist(), weights.tolist(), strict=True)
        return " ".join(f"{self._terms[term]}:{weight:g}" for term, weight in pairs)
