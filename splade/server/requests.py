"""What a request may ask for, read from JSON or from the parameters of an address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from splade.errors import DataError

MODEL = "model"
"""The field of every request that chooses between the models that are served."""


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    Attributes:
        characters: of a query or of a text.
        texts: of one request to encode.
        top_k: documents of an answer.
    """

    characters: int = 10_000
    texts: int = 64
    top_k: int = 1000


@dataclass(frozen=True)
class SearchRequest:
    """One search.

    Attributes:
        query: the question.
        top_k: documents wanted.
        effort: 1 is exact (`config.search_effort`).
        factors: token to what its weight in the query is multiplied by; 0 leaves the term out.
        explain: tell for each document the terms that made its score.
    """

    query: str
    top_k: int = 10
    effort: float = 1.0
    factors: Mapping[str, float] = field(default_factory=dict)
    explain: bool = False


def search_request(given: Mapping[str, object], limits: Limits) -> SearchRequest:
    """Check what is asked of a search.

    Raises:
        DataError: an unknown field, or a value that is not allowed; with the field's name and what is.
    """
    _known(given, ("query", "top_k", "effort", "factors", "explain"))
    factors = given.get("factors", {})
    if not isinstance(factors, dict) or not all(_is_number(factor, 0, 1000) for factor in factors.values()):
        raise DataError("factors: must be an object {token: number from 0 to 1000}")
    explain = given.get("explain", False)
    if not isinstance(explain, bool):
        raise DataError("explain: must be true or false")
    return SearchRequest(
        text(given, "query", limits),
        integer(given, "top_k", min(10, limits.top_k), limits.top_k),
        _number(given, "effort", 1.0, 1.0),
        factors,
        explain,
    )


@dataclass(frozen=True)
class ExplainRequest:
    """One score to be explained.

    Attributes:
        query: the question.
        doc_id: of a document of the index; None: `text` is the document.
        text: any text.
    """

    query: str
    doc_id: str | None
    text: str | None


def explain_request(given: Mapping[str, object], limits: Limits) -> ExplainRequest:
    """Check what shall be explained.

    Raises:
        DataError: an unknown field, a value that is not allowed, or not exactly one of `doc_id` and `text`.
    """
    _known(given, ("query", "doc_id", "text"))
    if ("doc_id" in given) == ("text" in given):
        raise DataError("give doc_id, of a document of the index, or text, any text")
    name = "doc_id" if "doc_id" in given else "text"
    document = text(given, name, limits)
    by_id = name == "doc_id"
    return ExplainRequest(text(given, "query", limits), document if by_id else None, None if by_id else document)


def chosen_name(given: Mapping[str, object], names: Sequence[str]) -> str:
    """Return which of the served models is asked; where none is named, the first."""
    name = given.get(MODEL, names[0])
    if name not in names:
        raise DataError(f"{MODEL}: must be one of {', '.join(names)}, given {str(name)[:40]!r}")
    return str(name)


def text(given: Mapping[str, object], name: str, limits: Limits) -> str:
    """Return a field that is a text, and not empty."""
    value = given.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{name}: must be a string with a character that is not a blank")
    if len(value) > limits.characters:
        raise DataError(f"{name}: has {len(value)} characters; at most {limits.characters} are allowed")
    return value


def texts(given: Mapping[str, object], name: str, limits: Limits) -> list[str]:
    """Return a field that is a text or a list of texts, perhaps empty ones."""
    value = given.get(name)
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise DataError(f"{name}: must be a string or a list of strings")
    if not 1 <= len(found) <= limits.texts:
        raise DataError(f"{name}: has {len(found)} texts; 1 to {limits.texts} are allowed")
    if (longest := max(map(len, found))) > limits.characters:
        raise DataError(f"{name}: a text has {longest} characters; at most {limits.characters} are allowed")
    return found


def integer(given: Mapping[str, object], name: str, default: int, most: int) -> int:
    """Return a field that is an integer from 1 to `most`."""
    value = given.get(name, default)
    if type(value) is not int or not 1 <= value <= most:
        raise DataError(f"{name}: must be an integer from 1 to {most}, given {str(value)[:40]!r}")
    return value


def _number(given: Mapping[str, object], name: str, default: float, most: float) -> float:
    value = given.get(name, default)
    if not _is_number(value, 0, most) or value == 0:
        raise DataError(f"{name}: must be a number above 0, at most {most:g}, given {str(value)[:40]!r}")
    return float(value)


def _is_number(value: object, least: float, most: float) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most  # False for NaN


def _known(given: Mapping[str, object], names: tuple[str, ...]) -> None:
    for name in given:
        if name not in (*names, MODEL):
            raise DataError(f"{str(name)[:40]!r}: no such field; there are {', '.join((*names, MODEL))}")
