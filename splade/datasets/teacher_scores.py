"""Teacher scores `{query_id: {doc_id: score}}`: hard negatives for training.

A score file is read once, query by query, and kept as columns (document ids and float32 scores of all queries, one
after the other) that are cached beside it and memory-mapped from then on. All formats are streamed, whatever the size
of the file.
"""

from array import array
from functools import cached_property
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np

from splade.datasets.nested_json import Pairs
from splade.datasets.runs import iterate_run
from splade.datasets.score_pickles import is_pickle, read_pickle
from splade.errors import DataError
from splade.progress import ProgressBar, progress_bar
from splade.storage.arrays import Arrays, Layout
from splade.storage.cache import CACHE_FROM_BYTES, cache_candidates, cache_target, open_cache, source_state, write_cache
from splade.storage.paths import resolve_path

SCORES_SUFFIX = ".splade-scores"
_SEPARATOR = "\n"  # no id holds one
_LAYOUT = Layout(
    "teacher scores",
    {"query_ids": "|u1", "doc_ids": "|u1", "doc_id_ends": "<i8", "scores": "<f4", "score_ends": "<i8"},
)


class TeacherScores:
    """Scored documents of many queries, on disk.

    Attributes:
        name: what the user gave, for messages.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "scores.json"
        >>> _ = path.write_text('{"q1": {"d1": 9.5, "d2": -3}}')
        >>> scores = open_scores(path)
        >>> doc_ids, values = scores["q1"]
        >>> doc_ids, values.tolist(), "q2" in scores
        (['d1', 'd2'], [9.5, -3.0], False)
    """

    def __init__(self, path: Path, arrays: Arrays):
        self.name = str(path)
        self._path = path
        self._query_ids, self._doc_ids = arrays["query_ids"], arrays["doc_ids"]
        self._doc_id_ends, self._score_ends = arrays["doc_id_ends"], arrays["score_ends"]
        self._scores = arrays["scores"]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {query_id: row for row, query_id in enumerate(_split_ids(self._query_ids))}

    @property
    def query_ids(self) -> list[str]:
        """All scored queries, in the order of the file."""
        return list(self._rows)

    def __len__(self) -> int:
        return len(self._score_ends) - 1

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._rows

    def __getitem__(self, query_id: str) -> tuple[list[str], np.ndarray]:
        """Return the documents of a query and their scores, (n,) float32, in the order of the file."""
        row = self._row(query_id)
        scores = self._scores[self._score_ends[row] : self._score_ends[row + 1]]
        doc_ids = self._doc_ids[self._doc_id_ends[row] : self._doc_id_ends[row + 1]]
        return (_split_ids(doc_ids) if len(scores) else []), scores

    def n_documents(self, query_id: str) -> int:
        """Return how many documents of a query are scored, without reading them."""
        row = self._row(query_id)
        return int(self._score_ends[row + 1] - self._score_ends[row])

    def _row(self, query_id: str) -> int:
        row = self._rows.get(query_id)
        if row is None:
            raise DataError(f"{self.name}: there are no scores for the query '{query_id}'")
        return row

    def __reduce__(self) -> tuple[object, ...]:
        return open_scores, (self._path,)


def open_scores(path: str | Path) -> TeacherScores:
    """Open a score file: from its cache, or by reading it once.

    Args:
        path: JSON, pickle (plain dictionaries of numbers only; ids may be integers) or TREC run, perhaps
            gzip-compressed; the run that `splade.retrieve` writes is one of these.

    Raises:
        DataError: the file is missing, empty or wrong; the message says where.
    """
    file = resolve_path(path)
    if file.is_dir():
        raise DataError(
            f"{file.absolute()}: a folder; expected a file with scores (.json, .pkl, TREC run, or with .gz)"
        )
    if file.stat().st_size < CACHE_FROM_BYTES:
        doc_ids, scores = BytesIO(), BytesIO()
        small = _write_columns(file, doc_ids, scores)
        columns: Arrays = {
            "doc_ids": np.frombuffer(doc_ids.getbuffer(), np.uint8),
            "scores": np.frombuffer(scores.getbuffer(), np.float32),
        }
        return TeacherScores(file, small | columns)
    state = source_state(file)
    for candidate in cache_candidates(file, SCORES_SUFFIX):
        arrays = open_cache(candidate, _LAYOUT, state)
        if arrays is not None:
            return TeacherScores(file, arrays)
    return TeacherScores(file, _convert(file, cache_target(file, SCORES_SUFFIX), state))


def _convert(file: Path, target: Path, state: object) -> Arrays:
    """Write the cache by way of nameless temporary files, which vanish with the process."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=target.parent) as doc_ids, TemporaryFile(dir=target.parent) as scores:
        small = _write_columns(file, doc_ids, scores)
        arrays = small | {"doc_ids": _mapped(doc_ids, np.uint8), "scores": _mapped(scores, np.float32)}
        write_cache(target, _LAYOUT, arrays, state)
    cached = open_cache(target, _LAYOUT, state)
    if cached is None:
        raise DataError(f"{target}: changed while it was written")
    return cached


class _ColumnWriter:
    """Appends the documents of one query after the other; `arrays` says whose they are."""

    def __init__(self, file: Path, doc_ids: IO[bytes], scores: IO[bytes], bar: ProgressBar):
        self._file, self._doc_ids, self._scores, self._bar = file, doc_ids, scores, bar
        self._query_ids: dict[str, None] = {}
        self._doc_id_ends, self._score_ends = array("q", [0]), array("q", [0])

    def add(self, query_id: str, pairs: Pairs) -> None:
        if query_id in self._query_ids:
            raise DataError(f"{self._file}: the query '{query_id}' occurs twice")
        joined = _SEPARATOR.join(doc_id for doc_id, _ in pairs).encode("utf-8")
        self._query_ids[query_id] = None
        self._doc_ids.write(joined)
        self._scores.write(np.array([score for _, score in pairs], np.float32).data)
        self._doc_id_ends.append(self._doc_id_ends[-1] + len(joined))
        self._score_ends.append(self._score_ends[-1] + len(pairs))
        self._bar.update()

    def arrays(self) -> Arrays:
        if self._score_ends[-1] == 0:
            raise DataError(f"{self._file}: there are no scores in it")
        return {
            "query_ids": np.frombuffer(_SEPARATOR.join(self._query_ids).encode("utf-8"), np.uint8),
            "doc_id_ends": np.frombuffer(self._doc_id_ends, np.int64),
            "score_ends": np.frombuffer(self._score_ends, np.int64),
        }


def _write_columns(file: Path, doc_ids: IO[bytes], scores: IO[bytes]) -> Arrays:
    """Read the whole file into the two streams; return the small arrays that say which query owns what."""
    with progress_bar(f"reading {file.name}", unit="query") as bar:
        writer = _ColumnWriter(file, doc_ids, scores, bar)
        if is_pickle(file):
            read_pickle(file, writer.add)
        else:
            for query_id, pairs in iterate_run(file):
                writer.add(query_id, pairs)
    return writer.arrays()


def _mapped(stream: IO[bytes], dtype: type) -> np.ndarray:
    stream.flush()
    return np.memmap(stream, dtype, "r")


def _split_ids(joined: np.ndarray) -> list[str]:
    return joined.tobytes().decode("utf-8").split(_SEPARATOR)
