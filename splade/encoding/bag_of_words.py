"""A sparse vector as a list of words."""

from collections.abc import Sequence

import numpy as np

from splade.errors import DataError


def bag_of_words(
    term_ids: np.ndarray, weights: np.ndarray, tokens: Sequence[str], top: int | None = None
) -> list[tuple[str, float]]:
    """Return (token, weight) pairs, the `top` heaviest first; equal weights in the order of the vocabulary `tokens`.

    Raises:
        DataError: a term lies outside the vocabulary.

    Example:
        >>> bag_of_words(np.array([1, 2]), np.array([0.5, 1.5]), ["the", "cat", "sat"])
        [('sat', 1.5), ('cat', 0.5)]
    """
    term_ids, weights = np.asarray(term_ids), np.asarray(weights)
    check_vocabulary(term_ids, tokens)
    order = np.lexsort((term_ids, -weights))[:top]
    return [(tokens[int(term_ids[i])], float(weights[i])) for i in order]


def render_bag(bag: Sequence[tuple[str, float]], width: int = 100) -> str:
    """Return the pairs as wrapped text, `token weight` separated by two spaces, at most `width` columns a line."""
    lines, line = [], ""
    for token, weight in bag:
        piece = f"{token} {weight:.2f}"
        if line and len(line) + 2 + len(piece) > width:
            lines.append(line)
            line = piece
        else:
            line = f"{line}  {piece}" if line else piece
    return "\n".join([*lines, line] if line else lines) or "(empty vector)"


def check_vocabulary(term_ids: np.ndarray, tokens: Sequence[str]) -> None:
    """Raise a DataError for a term that lies outside the vocabulary."""
    if len(term_ids) and int(np.max(term_ids)) >= len(tokens):
        raise DataError(
            f"term {int(np.max(term_ids))} lies outside the vocabulary of {len(tokens)} tokens; "
            "take the tokenizer of the model that made the vectors"
        )
