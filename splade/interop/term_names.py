"""From the names of terms in files to their numbers."""

from collections import Counter
from collections.abc import Sequence

from splade.errors import DataError, shown
from splade.interop.anserini import unambiguous_tokens


def numbers_of_names(tokens: Sequence[str]) -> dict[str, int]:
    """Return the number of each term by its name, and by the one under which it was written if that is another.

    Example:
        >>> numbers_of_names(["cat", "a b"])
        {'cat': 0, 'a b': 1, '[term-1]': 1}
    """
    occurrences = Counter(tokens)
    own = {token: number for number, token in enumerate(tokens) if occurrences[token] == 1}
    return own | {name: number for number, name in enumerate(unambiguous_tokens(tokens))}


def foreign_term(place: str, term: str, tokens: Sequence[str]) -> DataError:
    """Return the error for a term that a vocabulary does not have."""
    return DataError(
        f"{place}: the token {shown(term)} is not in the vocabulary of {len(tokens)} terms: another model made the "
        "vectors; data.VOCABULARY=own indexes vectors with the terms that they have"
    )
