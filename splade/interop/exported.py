"""What exports of vectors to other systems have in common."""

import gzip
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from splade.errors import DataError
from splade.interop.vector_groups import Group
from splade.inverted_index.document_ids import DocumentIds
from splade.storage.atomic import JsonObject, replacing

SparseVector = tuple[np.ndarray, np.ndarray]
AT_ONCE = 5000
"""Documents of a request."""
MOST_LISTED = 20
"""Ids of empty vectors that are named."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file or folder.
        n_vectors: number of vectors.
        empty: ids of those without a term left, for instance after quantisation; the first of them.
        n_empty: how many there are.
        mean_terms: mean number of terms of all vectors.
    """

    path: Path
    n_vectors: int
    empty: tuple[str, ...]
    n_empty: int
    mean_terms: float

    @classmethod
    def of_parts(cls, path: Path, parts: Sequence["Exported"]) -> "Exported":
        """Return what was written in several parts."""
        n_vectors, n_empty = sum(part.n_vectors for part in parts), sum(part.n_empty for part in parts)
        empty = tuple(one for part in parts for one in part.empty)[:MOST_LISTED]
        n_terms = sum(part.mean_terms * part.n_vectors for part in parts)
        return cls(path, n_vectors, empty, n_empty, n_terms / max(1, n_vectors))

    def __str__(self) -> str:
        more = ", ..." if self.n_empty > len(self.empty) else ""
        listed = f" ({', '.join(self.empty)}{more})" if self.empty else ""
        counts = f"{self.n_vectors} vectors, {self.mean_terms:.1f} terms each, {self.n_empty} empty{listed}"
        return f"{counts}\n  in {self.path}"


class Tally:
    """Counts vectors while they are written."""

    def __init__(self) -> None:
        self._n_vectors = self._n_empty = self._n_terms = 0
        self._empty: list[str] = []

    def count(self, some_id: str, n_terms: int) -> None:
        """Count a vector."""
        self._n_vectors, self._n_terms = self._n_vectors + 1, self._n_terms + n_terms
        if not n_terms:
            self._n_empty += 1
            if len(self._empty) < MOST_LISTED:
                self._empty.append(some_id)

    def exported(self, path: str | Path) -> Exported:
        """Return what was written to a path."""
        mean = self._n_terms / max(1, self._n_vectors)
        return Exported(Path(path), self._n_vectors, tuple(self._empty), self._n_empty, mean)


def exported_by_term(path: Path, doc_ids: DocumentIds, lengths: np.ndarray, n_postings: int) -> Exported:
    """Return what was written of documents that were gone through term by term.

    Args:
        path: the file or folder.
        doc_ids: of all documents.
        lengths: (n_docs,) sum of the impacts of each; 0: it is empty.
        n_postings: terms of all.
    """
    empty = np.flatnonzero(lengths == 0)
    listed = tuple(doc_ids[i] for i in empty[:MOST_LISTED].tolist())
    return Exported(path, len(lengths), listed, len(empty), n_postings / max(1, len(lengths)))


def one_by_one(groups: Iterable[Group]) -> Iterator[tuple[str, SparseVector]]:
    """Yield each id with its vector."""
    for ids, vectors in groups:
        yield from zip(ids, vectors, strict=True)


def sorted_terms(names: Sequence[str], counts: np.ndarray) -> list[int]:
    """Return the terms that occur, in the order of the bytes of their names, as systems look them up."""
    return sorted(np.flatnonzero(counts).tolist(), key=lambda term: names[term].encode("utf-8", "surrogatepass"))


def check_line(text_id: str, place: str) -> str:
    """Return an id that fits on a line of its own.

    Raises:
        DataError: it is empty, or holds a line end.
    """
    if len(text_id.splitlines()) != 1:
        raise DataError(f"{place}: the id {text_id!r}, empty or with a line end, cannot be written")
    return text_id


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines to a file, compressed where its name ends with `.gz`, whole or not at all."""
    _write_text(path, (f"{line}\n" for line in lines))


def write_entries(
    path: Path, vectors: Iterable[tuple[str, SparseVector]], entry: Callable[[SparseVector], JsonObject]
) -> Exported:
    """Write `{"id", ...}` a line: each id with what `entry` makes of its vector."""
    tally = Tally()

    def lines() -> Iterator[str]:
        for some_id, vector in vectors:
            tally.count(some_id, len(vector[0]))
            yield json.dumps({"id": some_id, **entry(vector)}, ensure_ascii=False)

    write_lines(path, lines())
    return tally.exported(path)


def write_parts(
    folder: Path,
    name: str,
    suffix: str,
    entries: Iterator[str],
    size: int,
    before: str = "",
    between: str = "",
    after: str = "",
) -> None:
    """Write `<name>.<number>.<suffix>`, so many entries to a file, each whole or absent; stale ones are removed."""
    paths: list[Path] = []
    for first in entries:
        some = itertools.islice(entries, size - 1)
        paths.append(folder / f"{name}.{len(paths):05d}.{suffix}")
        texts = itertools.chain([before, first], (between + entry for entry in some), [after])
        _write_text(paths[-1], texts)
    for other in folder.glob(f"{name}.*.{suffix}"):
        if other not in paths:
            other.unlink()


@contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """Open a text file to write, whole or not at all; `.gz` is compressed, of the same lines into the same bytes."""
    with replacing(path) as temporary, ExitStack() as stack:
        if path.suffix != ".gz":
            yield stack.enter_context(open(temporary, "w", encoding="utf-8", newline="\n"))
            return
        raw = stack.enter_context(open(temporary, "wb"))
        # Without the name and the time of the temporary file.
        compressed = stack.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0))
        yield stack.enter_context(io.TextIOWrapper(compressed, encoding="utf-8", newline="\n"))


def _write_text(path: Path, texts: Iterable[str]) -> None:
    with written_whole(path) as file:
        file.writelines(texts)
