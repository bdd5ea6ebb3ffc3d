"""Errors that name the user's mistake.

Every message says what was wrong, what was given, what is allowed and what to do. Tasks print the message alone;
anything that is not a `SpladeError` is a defect of the toolkit and keeps its traceback.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

# Control characters but tab and LF; characters that turn the direction of what follows; halves of surrogate pairs.
_INVISIBLE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)


class SpladeError(ValueError):
    """Something that the user gave cannot work."""


class ConfigError(SpladeError):
    """A configuration key, value or file is wrong."""


class DataError(SpladeError):
    """A collection, query, qrels, triplet, score or run file is wrong."""


class ModelError(SpladeError):
    """A model folder, its tokenizer or its vocabulary is wrong."""


class CollapseError(ModelError):
    """A model's vectors say nothing: every term is active, none is, or they are the same for all texts."""


class IndexFileError(SpladeError):
    """An index file is damaged, foreign or belongs to another model."""


class WriteError(SpladeError):
    """The operating system refused to write: the disk is full, there is no permission, something is in the way."""


class BusyError(SpladeError):
    """Another process is writing to the same folder."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest allowed name, or an empty string where none is near.

    Example:
        >>> nearest("scifat", ["scifact", "fiqa"]), nearest("quora", ["scifact", "fiqa"])
        ("; did you mean 'scifact'?", '')
    """
    names = {other.lower(): other for other in allowed}
    matches = get_close_matches(name.lower(), list(names), n=1, cutoff=0.7)
    return f"; did you mean '{names[matches[0]]}'?" if matches else ""


def printable(text: str) -> str:
    r"""Spell out the characters that would command a terminal or hide what a text says.

    Example:
        >>> printable("BM25\x1b[2J")
        'BM25\\x1b[2J'
    """
    return _INVISIBLE.sub(lambda match: repr(match[0])[1:-1], text)


def shown(value: object, longest: int = 60) -> str:
    """Return a value out of a file for a message: short, and never what is nested in it.

    Example:
        >>> shown("x" * 100, longest=8), shown(1.5), shown(10**400), shown([[]])
        ("'xxxxx...'", '1.5', 'an integer of 1329 bits', 'a list')
    """
    if isinstance(value, str):
        return repr(value if len(value) <= longest else value[: longest - 3] + "...")
    if value is None or isinstance(value, float) or isinstance(value, int) and value.bit_length() <= 64:
        return repr(value)
    return f"an integer of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
