"""A score as the sum of the words that earned it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splade.encoding.bag_of_words import bag_of_words, check_vocabulary

SparseVector = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class InputToken:
    """A token of a text that gave a term its weight, or most of it.

    Attributes:
        token: as the tokenizer names it.
        position: among the tokens that the model reads, from 0; special tokens and a prompt count.
        weight: what it gave.
    """

    token: str
    position: int
    weight: float

    def __str__(self) -> str:
        return f"{self.token}@{self.position}"


Sources = Sequence[InputToken | None]


@dataclass(frozen=True)
class Contribution:
    """What one term adds to a score: `query_weight * doc_weight`.

    Attributes:
        token: the term.
        query_weight: its weight in the query.
        doc_weight: its weight in the document.
        query_from: the token of the query that gave the weight, where that is known.
        doc_from: the same of the document.
    """

    token: str
    query_weight: float
    doc_weight: float
    query_from: InputToken | None = None
    doc_from: InputToken | None = None

    @property
    def score(self) -> float:
        """The term's share of the score."""
        return self.query_weight * self.doc_weight


@dataclass(frozen=True)
class Explanation:
    """Why a document got its score for a query.

    Attributes:
        score: dot product of the two vectors.
        contributions: the shared terms, largest contribution first.
        query_only: terms of the query that the document lacks, with the query's weight, heaviest first.

    Example:
        >>> query, document = (np.array([0, 2]), np.array([2.0, 1.0])), (np.array([2, 3]), np.array([3.0, 1.0]))
        >>> print(explain(query, document, ["cat", "dog", "bird", "fly"]))
        score 3.0000 from 1 shared term
           share     score   query  document  term
          100.0%    3.0000    1.00      3.00  bird
        query terms that the document lacks: cat 2.00
    """

    score: float
    contributions: tuple[Contribution, ...]
    query_only: tuple[tuple[str, float], ...]

    def render(self, top: int = 20) -> str:
        """Return a text with the `top` terms of each kind, about 80 columns wide."""
        plural = "" if len(self.contributions) == 1 else "s"
        lines = [f"score {self.score:.4f} from {len(self.contributions)} shared term{plural}"]
        sourced = any(part.query_from or part.doc_from for part in self.contributions)
        if self.contributions:
            heading = "   share     score   query  document  term"
            lines.append(f"{heading:<60}query token   document token" if sourced else heading)
        for part in self.contributions[:top]:
            share = part.score / self.score
            line = f"  {share:6.1%}  {part.score:8.4f}  {part.query_weight:6.2f}  {part.doc_weight:8.2f}  {part.token}"
            lines.append(f"{line:<60}{part.query_from or '-'!s:<14}{part.doc_from or '-'}" if sourced else line)
        if len(self.contributions) > top:
            rest = sum(part.score for part in self.contributions[top:])
            lines.append(f"  {rest / self.score:6.1%}  {rest:8.4f}  from {len(self.contributions) - top} further terms")
        if self.query_only:
            lacking = "  ".join(f"{token} {weight:.2f}" for token, weight in self.query_only[:top])
            more = f"  and {len(self.query_only) - top} more" if len(self.query_only) > top else ""
            lines.append(f"query terms that the document lacks: {lacking}{more}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


def explain(
    query: SparseVector,
    document: SparseVector,
    tokens: Sequence[str],
    query_sources: Sources | None = None,
    doc_sources: Sources | None = None,
) -> Explanation:
    """Split a score into its terms.

    Args:
        query: (term_ids, weights), each term once, as `SparseVectors.row` returns it.
        document: the same for the document.
        tokens: the vocabulary of both.
        query_sources: for each term of the query the token that gave its weight; None: not known.
        doc_sources: the same for the document.

    Raises:
        DataError: a term lies outside the vocabulary.
    """
    (query_terms, query_weights), (doc_terms, doc_weights) = query, document
    check_vocabulary(query_terms, tokens)
    check_vocabulary(doc_terms, tokens)
    shared, in_query, in_document = np.intersect1d(query_terms, doc_terms, assume_unique=True, return_indices=True)
    parts = [
        Contribution(
            tokens[int(term)],
            float(query_weights[i]),
            float(doc_weights[j]),
            None if query_sources is None else query_sources[i],
            None if doc_sources is None else doc_sources[j],
        )
        for term, i, j in zip(shared, in_query, in_document, strict=True)
    ]
    parts.sort(key=lambda part: -part.score)
    alone = ~np.isin(query_terms, shared)
    lacking = bag_of_words(np.asarray(query_terms)[alone], np.asarray(query_weights)[alone], tokens)
    return Explanation(sum(part.score for part in parts), tuple(parts), tuple(lacking))
