"""A score as the sum of the words that earned it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splade.encoding.bag_of_words import bag_of_words, check_vocabulary

SparseVector = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Contribution:
    """What one term adds to a score: `query_weight * doc_weight`."""

    token: str
    query_weight: float
    doc_weight: float

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
        if self.contributions:
            lines.append("   share     score   query  document  term")
        for part in self.contributions[:top]:
            share = part.score / self.score
            lines.append(
                f"  {share:6.1%}  {part.score:8.4f}  {part.query_weight:6.2f}  {part.doc_weight:8.2f}  {part.token}"
            )
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


def explain(query: SparseVector, document: SparseVector, tokens: Sequence[str]) -> Explanation:
    """Split a score into its terms.

    Args:
        query: (term_ids, weights), each term once, as `SparseVectors.row` returns it.
        document: the same for the document.
        tokens: the vocabulary of both.

    Raises:
        DataError: a term lies outside the vocabulary.
    """
    (query_terms, query_weights), (doc_terms, doc_weights) = query, document
    check_vocabulary(query_terms, tokens)
    check_vocabulary(doc_terms, tokens)
    shared, in_query, in_document = np.intersect1d(query_terms, doc_terms, assume_unique=True, return_indices=True)
    parts = [
        Contribution(tokens[int(term)], float(query_weights[i]), float(doc_weights[j]))
        for term, i, j in zip(shared, in_query, in_document, strict=True)
    ]
    parts.sort(key=lambda part: -part.score)
    alone = ~np.isin(query_terms, shared)
    lacking = bag_of_words(np.asarray(query_terms)[alone], np.asarray(query_weights)[alone], tokens)
    return Explanation(sum(part.score for part in parts), tuple(parts), tuple(lacking))
