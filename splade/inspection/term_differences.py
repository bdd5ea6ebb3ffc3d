"""Two lists of words with values side by side: two models' bags of one text, or two documents' scores for one query."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TermDifference:
    """A term and its value in both lists; 0 where a list does not have it."""

    token: str
    first: float
    second: float

    @property
    def difference(self) -> float:
        """What the first list has more than the second."""
        return self.first - self.second


def term_differences(first: Mapping[str, float], second: Mapping[str, float]) -> list[TermDifference]:
    """Return all terms of both lists, the largest differences first; equal ones in alphabetical order.

    Example:
        >>> [(one.token, one.difference) for one in term_differences({"cat": 2.0, "dog": 1.0}, {"dog": 4.0})]
        [('dog', -3.0), ('cat', 2.0)]
    """
    rows = [TermDifference(token, first.get(token, 0.0), second.get(token, 0.0)) for token in {**first, **second}]
    return sorted(rows, key=lambda row: (-abs(row.difference), row.token))


def as_shares(values: Mapping[str, float]) -> dict[str, float]:
    """Return the values as shares of their sum: what can be compared between models whose weights differ in scale."""
    total = sum(values.values())
    return {token: value / total for token, value in values.items()} if total else dict(values)
