"""Errors that name the user's mistake.

Every message says what was wrong, what was given, what is allowed and what to do. Tasks print the message alone;
anything that is not a `SpladeError` is a defect of the toolkit and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class SpladeError(ValueError):
    """Something that the user gave cannot work."""


class ConfigError(SpladeError):
    """A configuration key, value or file is wrong."""


class DataError(SpladeError):
    """A collection, query, qrels, triplet, score or run file is wrong."""


class ModelError(SpladeError):
    """A model folder, its tokenizer or its vocabulary is wrong."""


class IndexFileError(SpladeError):
    """An index file is damaged, foreign or belongs to another model."""


class WriteError(SpladeError):
    """The operating system refused to write: the disk is full, there is no permission, something is in the way."""


class BusyError(SpladeError):
    """Another process is writing to the same folder."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest allowed name, or an empty string."""
    matches = get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ""
