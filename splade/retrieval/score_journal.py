"""Scores of a reranking that is under way, in a file, so that a killed one goes on where it was."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np

from splade.errors import DataError
from splade.storage.atomic import JsonObject, read_json_object, write_json

SCORES_FILE, STATE_FILE = "scores.part", "scores.json"
_DIGEST_LENGTH = 32


@dataclass(frozen=True)
class WindowScores:
    """Scores of the documents of some queries.

    Attributes:
        scores: query id to (documents,) float32.
        seconds: wall-clock time that they took.
    """

    scores: Mapping[str, np.ndarray]
    seconds: float


class ScoreJournal:
    """Scores of windows of queries, a line each, in a file that is removed when all is done.

    A window is used again only whole and for the same texts in the same order: batches, and with them the last bits of
    the scores, are those of an undisturbed run. A line begins with a digest of what it holds; what was cut or damaged
    is scored again, with all that follows.

    Args:
        folder: where the file is; None: there is none.
        settings: what the scores depend on; those of other settings are removed.
    """

    def __init__(self, folder: Path | None, settings: dict[str, object]):
        self._path = None if folder is None else folder / SCORES_FILE
        self._done: list[JsonObject] = []
        self._next = 0
        if self._path is None:
            return
        state = self._path.with_name(STATE_FILE)
        if not self._path.is_file() or not _same(state, settings):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            write_json(state, settings)
            self._path.touch()
        lines = self._path.read_bytes().splitlines(keepends=True)
        self._done = [json.loads(line[_DIGEST_LENGTH:]) for line in takewhile(_is_whole, lines)]
        self._keep(len(self._done))

    def read(self, asked: str) -> WindowScores | None:
        """Return the next window if it is there, for what is asked."""
        if self._next >= len(self._done):
            return None
        found = self._done[self._next]
        if found["asked"] != _digest(asked.encode()):
            self._done = self._done[: self._next]
            self._keep(self._next)
            return None
        self._next += 1
        scores = {query_id: np.array(values, np.float32) for query_id, values in found["scores"].items()}
        return WindowScores(scores, found["seconds"])

    def write(self, asked: str, window: WindowScores) -> None:
        """Append a window."""
        self._next += 1
        if self._path is None:
            return
        listed = {query_id: values.tolist() for query_id, values in window.scores.items()}
        record = {"asked": _digest(asked.encode()), "scores": listed, "seconds": window.seconds}
        line = json.dumps(record).encode() + b"\n"
        with open(self._path, "ab") as stream:
            stream.write(_digest(line).encode() + line)

    def remove(self) -> None:
        """Remove the file: all is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path.with_name(STATE_FILE).unlink(missing_ok=True)

    def _keep(self, n_lines: int) -> None:
        """Cut the file after so many lines."""
        if self._path is not None:
            kept = self._path.read_bytes().splitlines(keepends=True)[:n_lines]
            with open(self._path, "rb+") as stream:
                stream.truncate(sum(map(len, kept)))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGEST_LENGTH]


def _is_whole(line: bytes) -> bool:
    return line[:_DIGEST_LENGTH] == _digest(line[_DIGEST_LENGTH:]).encode()


def _same(state: Path, settings: dict[str, object]) -> bool:
    try:
        return read_json_object(state) == settings
    except DataError:
        return False
