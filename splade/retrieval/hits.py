"""What a search for one query returns: the documents found, with their ids, scores and explanations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from splade.inspection.explanation import Explanation, explain
from splade.inverted_index import InvertedIndex


@dataclass(frozen=True)
class Hit:
    """A document that a search has found, its rank (from 1), and the dot product of its vector and the query's."""

    rank: int
    doc_id: str
    score: float
    _doc_idx: int = field(repr=False)
    _query: tuple[np.ndarray, np.ndarray] = field(repr=False, compare=False)
    _postings: InvertedIndex = field(repr=False, compare=False)
    _tokens: list[str] = field(repr=False, compare=False)

    def explain(self) -> Explanation:
        """Return the terms that the query and the document share, and what each adds to the score."""
        return explain(self._query, self._postings.impacts(self._doc_idx, self._query[0]), self._tokens)


class Hits(Sequence[Hit]):
    """The documents that a search has found, best first. Each is made into a `Hit` when it is asked for.

    `doc_ids` and `scores` are there without that, for searches that find many.

    Args:
        doc_idx: (n,) numbers of the documents.
        scores: (n,) float32, their scores.
        query: term ids and weights of the query.
        postings: the index.
        tokens: of the vocabulary.
    """

    def __init__(
        self,
        doc_idx: np.ndarray,
        scores: np.ndarray,
        query: tuple[np.ndarray, np.ndarray],
        postings: InvertedIndex,
        tokens: list[str],
    ):
        self.scores = scores
        self._doc_idx, self._shared = doc_idx, (query, postings, tokens)

    @property
    def doc_ids(self) -> list[str]:
        """The user's ids of the documents."""
        return self._shared[1].doc_ids(self._doc_idx)

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Hit]:
        found = zip(self.doc_ids, self.scores.tolist(), self._doc_idx.tolist(), strict=True)
        return (Hit(rank, *one, *self._shared) for rank, one in enumerate(found, start=1))

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> list[Hit]: ...

    def __getitem__(self, place: int | slice) -> Hit | list[Hit]:
        if isinstance(place, slice):
            return [self[i] for i in range(len(self))[place]]
        number, rank = int(self._doc_idx[place]), range(len(self))[place] + 1
        return Hit(rank, self._shared[1].doc_id(number), float(self.scores[place]), number, *self._shared)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        return repr(list(self))
