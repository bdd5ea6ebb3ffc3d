"""Collections and queries: texts with ids, read in order or by id, never loaded whole."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from splade.errors import DataError, shown
from splade.storage.cache import file_digest
from splade.storage.line_index import LineIndex, LineSource
from splade.storage.text_files import check_id, check_keys, decode_json, id_text

ParseText = Callable[[str, Path, int], tuple[str, str]]

CONTENT_MARK = "sha256:"
"""Begins the digests of whole contents; those of earlier versions looked at the sizes and ends of files only."""


_ID_HEADINGS = frozenset(
    "id _id pid qid did docid doc_id docno query_id query-id corpus_id corpus-id passage_id document_id".split()
)
_TEXT_HEADINGS = frozenset("text query question title passage document doc content contents body abstract url".split())


class TextCollection(ABC):
    """Texts with ids, in a fixed order.

    Attributes:
        name: what the user gave, for messages.
    """

    name: str

    @abstractmethod
    def digest(self) -> str:
        """Return what tells this collection from others: its name, and a digest of its content."""

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield (id, text) in file order, in constant memory and without an index."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of texts."""

    @abstractmethod
    def __getitem__(self, row: int) -> tuple[str, str]:
        """Return (id, text) of a row, counted from 0 in file order."""

    @abstractmethod
    def rows(self, text_ids: Sequence[str]) -> np.ndarray:
        """Return (n,) int64: the rows of many ids, -1 where there is none."""

    def between(self, start: int, stop: int) -> Iterator[tuple[str, str]]:
        """Yield (id, text) of the rows from `start` to before `stop`, without reading those before."""
        return map(self.__getitem__, range(start, stop))

    def __contains__(self, text_id: object) -> bool:
        return isinstance(text_id, str) and self.rows([text_id])[0] >= 0

    def get(self, text_id: str) -> str | None:
        """Return the text of an id, or None."""
        row = int(self.rows([text_id])[0])
        return None if row < 0 else self[row][1]

    def text(self, text_id: str) -> str:
        """Return the text of an id.

        Raises:
            DataError: no text has this id.
        """
        text = self.get(text_id)
        if text is None:
            raise DataError(f"{self.name}: there is no text with the id '{text_id}'")
        return text


class FileCollection(TextCollection):
    r"""Texts of a TSV or JSON-lines file, plain or gzip-compressed, or of several such files one after the other.

    The offset index is built (or its cached copy opened) when the first random access, look-up or `len` asks for it;
    iterating needs none, but then duplicate ids go unnoticed.

    Example:
        >>> import tempfile
        >>> from splade.datasets.collections import open_collection
        >>> path = Path(tempfile.mkdtemp()) / "raw.tsv"
        >>> _ = path.write_text("d1\tone\nd2\ttwo\tmore\n")
        >>> collection = open_collection(path)
        >>> list(collection)
        [('d1', 'one'), ('d2', 'two more')]
        >>> len(collection), collection[0], collection.text("d2"), "d3" in collection
        (2, ('d1', 'one'), 'two more', False)
    """

    def __init__(self, source: LineSource, kind: str):
        self.name = source.name
        self.source = source
        self.kind = kind
        self._parse = PARSERS[kind]

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self.name}', {self.kind})"

    def digest(self) -> str:
        """Return name and digest of the files' content."""
        if not self.source.files:
            return self.name
        digests = "".join(map(file_digest, self.source.files))
        joined = digests if len(self.source.files) == 1 else sha256(digests.encode()).hexdigest()[:32]
        return f"{self.name} {CONTENT_MARK}{joined}"

    def __iter__(self) -> Iterator[tuple[str, str]]:
        empty = True
        for file, line_number, line in self.source:
            empty = False
            yield self._parse(line, file, line_number)
        if empty:
            raise _empty(self.name)

    @cached_property
    def _index(self) -> LineIndex:
        index = LineIndex.open(self.source, self.kind, partial(_id_of, self.kind))
        if len(index) == 0:
            raise _empty(self.name)
        return index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, row: int) -> tuple[str, str]:
        return self._parse(self._index[row], self.source.path, row + 1)

    def between(self, start: int, stop: int) -> Iterator[tuple[str, str]]:
        """Yield (id, text) of the rows from `start` to before `stop`, without reading those before."""
        for row, line in enumerate(self._index.between(start, stop), start):
            yield self._parse(line, self.source.path, row + 1)

    def rows(self, text_ids: Sequence[str]) -> np.ndarray:
        """Return (n,) int64: the rows of many ids, -1 where there is none."""
        return self._index.rows(text_ids)


class PairCollection(TextCollection):
    """Texts with ids in memory, from pairs (id, text) that are read once; the name is for messages.

    Raises:
        DataError: an id is not a string, empty, surrounded by whitespace or there twice; a text is not a string.

    Example:
        >>> collection = PairCollection([("d1", "one"), ("d2", "two")])
        >>> len(collection), collection.text("d2")
        (2, 'two')
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], name: str = "pairs (id, text)"):
        self.name = name
        self._pairs: list[tuple[str, str]] = []
        self._rows: dict[str, int] = {}
        for row, pair in enumerate(pairs):
            text_id, text = checked_pair(pair, f"{name}: number {row}")
            if self._rows.setdefault(text_id, row) != row:
                raise DataError(f"{name}: the id '{text_id}' occurs twice: numbers {self._rows[text_id]} and {row}")
            self._pairs.append((text_id, text))
        if not self._pairs:
            raise _empty(name)

    def digest(self) -> str:
        """Return name and digest of all ids and texts."""
        digest = sha256()
        for text_id, text in self._pairs:
            digest.update(f"{len(text_id)} {text_id} {len(text)} {text}".encode("utf-8", "surrogatepass"))
        return f"{self.name} {CONTENT_MARK}{digest.hexdigest()[:32]}"

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, row: int) -> tuple[str, str]:
        return self._pairs[row]

    def rows(self, text_ids: Sequence[str]) -> np.ndarray:
        """Return (n,) int64: the rows of many ids, -1 where there is none."""
        return np.array([self._rows.get(text_id, -1) for text_id in text_ids], dtype=np.int64)


def checked_pair(pair: object, place: str) -> tuple[str, str]:
    """Return a pair (id, text) if it is one.

    Raises:
        DataError: it is not; `place` opens the message.
    """
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        raise DataError(f"{place}: expected a pair (id, text) of strings, got {shown(pair)}")
    check_id(pair[0], place)
    return pair[0], _without_lone_surrogates(pair[1])


def parse_tsv(line: str, file: Path, line_number: int) -> tuple[str, str]:
    """Split `id<TAB>text`; further columns are joined by a space.

    Raises:
        DataError: no tab, an impossible id, a line of headings, or several lines that end with CR alone.
    """
    text_id, tab, text = line.partition("\t")
    if not tab:
        raise DataError(f"{file}: line {line_number}: no tab; expected 'id<TAB>text', got {shown(line)}")
    check_id(text_id, f"{file}: line {line_number}")
    if line_number == 1 and _is_heading(line):
        raise DataError(f"{file}: line 1 is a heading, {shown(line)}; remove it, or it would become a document")
    if "\r" in text and len(parts := line.strip("\r").split("\r")) > 1 and all("\t" in part for part in parts if part):
        raise DataError(
            f"{file}: line {line_number}: several lines 'id<TAB>text' that end with CR alone; convert them to LF, for "
            "example with: tr '\\r' '\\n'"
        )
    return text_id, text.replace("\t", " ")


def parse_jsonl(line: str, file: Path, line_number: int) -> tuple[str, str]:
    """Read `{"_id": ..., "title": ..., "text": ...}`; the text is the title, a space and the text.

    Anserini's names are read, too: `id` and `contents`, where there is no `_id` and no `text`.

    Raises:
        DataError: not a JSON object, no `_id` or `text` in it, or an impossible id.
    """
    record, place = decode_json(line, file, line_number), f"{file}: line {line_number}"
    if line.count('"_id"') > 1 or line.count('"text"') > 1:
        check_keys(line, place)
    if not isinstance(record, dict):
        raise DataError(f"{place}: expected a JSON object, got {shown(line)}")
    text_id = record.get("_id", record.get("id"))
    title, text = record.get("title") or "", record.get("text", record.get("contents"))
    if isinstance(text_id, bool) or not isinstance(text_id, str | int):
        raise DataError(f"{place}: no '_id' or 'id' (text or integer); the keys are {shown(', '.join(record))}")
    if not isinstance(text, str) or not isinstance(title, str):
        raise DataError(
            f"{place}: 'text' or 'contents' (and 'title', if any) must be text; the keys are {shown(', '.join(record))}"
        )
    joined = f"{title} {text}" if title and text else title or text
    return id_text(text_id, place), _without_lone_surrogates(joined) if "\\u" in line else joined


PARSERS: dict[str, ParseText] = {"tsv": parse_tsv, "jsonl": parse_jsonl}


def _is_heading(line: str) -> bool:
    first, *others = (heading.strip(' "#') for heading in line.lower().split("\t"))
    return first in _ID_HEADINGS and all(other in _TEXT_HEADINGS for other in others)


def _id_of(kind: str, line: str, file: Path, line_number: int) -> str:
    return PARSERS[kind](line, file, line_number)[0]


def _without_lone_surrogates(text: str) -> str:
    r"""Replace halves of surrogate pairs, which JSON can spell ("\ud800") but no encoding can hold."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _empty(name: str) -> DataError:
    return DataError(f"{name}: the collection is empty")
