"""Random access to the records of a text file, by row and by id.

The index holds the byte offset of every record and, when records have ids, a 64-bit hash of every id in ascending
order with the row it belongs to. A look-up is a binary search in the hashes followed by a comparison with the line
itself, so a collision of hashes costs one more read and never gives a wrong record. The arrays are cached
(see `cache`) and memory-mapped: opening 8.8 million lines again reads a kilobyte.

No stale or damaged byte is handed out: an index belongs to the digest of its source (and of the unpacked copy, if there
is one), and a file that is written while it is read or in use is an error.
"""

import hashlib
import itertools
import logging
import os
import weakref
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splade.errors import DataError, SpladeError
from splade.progress import progress_bar
from splade.storage.arrays import Arrays, Layout
from splade.storage.atomic import replacing
from splade.storage.cache import (
    CACHE_FROM_BYTES,
    cache_candidates,
    cache_target,
    changed_while_read,
    file_digest,
    open_cache,
    source_state,
    write_cache,
)
from splade.storage.text_files import BOM, decode_line, is_gzip, raw_lines, without_line_end

INDEX_SUFFIX = ".splade-lines"
TEXT_SUFFIX = ".splade-text"
_BAR_STEP = 50_000
_PIECE_BYTES = 1 << 20
logger = logging.getLogger(__name__)
_LAYOUT = Layout("line index", {"offsets": "<i8", "hashes": "<u8", "rows": "<i8"})

ReadId = Callable[[str, Path, int], str | None]
"""(line, file, line number) to the record's id, None for records without; raises `DataError` for a wrong line."""


@dataclass(frozen=True)
class LineSource:
    """Where lines come from: one text file, or several that are read one after the other as one.

    Attributes:
        path: the file or folder that the user gave; names the source in messages, and the cache lies beside it.
        files: the files, in order.
        read: how to get the raw lines (with line ends) of one of the files.
    """

    path: Path
    files: tuple[Path, ...]
    read: Callable[[Path], Iterator[bytes]] = raw_lines

    @classmethod
    def of_file(cls, path: Path) -> "LineSource":
        """Return the source for a single file, plain or gzip-compressed."""
        return cls(path, (path,))

    @property
    def name(self) -> str:
        """What messages call the source."""
        return str(self.path)

    @property
    def addressable(self) -> bool:
        """True for one plain file: its lines can be read at their offsets. Others are unpacked first."""
        return len(self.files) == 1 and self.read is raw_lines and not is_gzip(self.files[0])

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.files)

    def state(self, kind: str) -> dict[str, object]:
        """Return what must be unchanged for a cached index to be valid."""
        return {"kind": kind, "files": [source_state(file) for file in self.files]}

    def records(self) -> Iterator[tuple[Path, int, bytes, bytes]]:
        """Yield (file, line number, raw line, line without BOM and line end), the empty ones included."""
        for file in self.files:
            before = _version(file.stat())
            for line_number, raw in enumerate(self.read(file), start=1):
                yield file, line_number, raw, without_line_end(raw.removeprefix(BOM))
            if _version(file.stat()) != before:
                raise changed_while_read(file)

    def __iter__(self) -> Iterator[tuple[Path, int, str]]:
        """Yield (file, line number, text) for every line that is not empty, in constant memory."""
        for file, line_number, _, line in self.records():
            if line:
                yield file, line_number, decode_line(line, file, line_number)


class LineIndex:
    r"""The non-empty lines of a source as a sequence, with look-up by id.

    Can be shared by forked workers and pickled for spawned ones: reading needs no file position.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "raw.tsv"
        >>> _ = path.write_bytes(b"d1\tone\r\nd2\ttwo\n")
        >>> index = LineIndex.open(LineSource.of_file(path), "tsv", lambda line, file, number: line.split("\t")[0])
        >>> len(index), index[1], index.rows(["d2", "d3"]).tolist()
        (2, 'd2\ttwo', [1, -1])
    """

    def __init__(self, source: LineSource, kind: str, read_id: ReadId, text: Path | bytes, arrays: Arrays):
        self.source = source
        self._kind, self._read_id, self._text = kind, read_id, text
        self._offsets, self._hashes, self._rows = arrays["offsets"], arrays["hashes"], arrays["rows"]
        self._descriptor = -1
        if isinstance(text, Path):
            self._descriptor = os.open(text, os.O_RDONLY)
            self._opened = _version(os.fstat(self._descriptor))
            weakref.finalize(self, os.close, self._descriptor)

    @classmethod
    def open(cls, source: LineSource, kind: str, read_id: ReadId) -> "LineIndex":
        """Open the cached index of `source`, or build and cache it.

        Args:
            source: the lines.
            kind: names the record format; an index of another kind is rebuilt.
            read_id: checks a line and gives its id; called for every line while the index is built.

        Raises:
            DataError: a line is wrong or an id occurs twice (both lines are named).
        """
        if source.size < CACHE_FROM_BYTES:
            text = bytearray()
            arrays = _scan(source, read_id, write=text.extend)
            return cls(source, kind, read_id, bytes(text), arrays)._without_duplicates()
        state = source.state(kind)
        indexes = cache_candidates(source.path, INDEX_SUFFIX)
        copies = cache_candidates(source.path, TEXT_SUFFIX)
        for index, copy in zip(indexes, copies, strict=True):
            lines = source.files[0] if source.addressable else copy
            if index.is_file() and lines.is_file():
                cached = open_cache(index, _LAYOUT, state if source.addressable else _with_copy(state, copy))
                if cached is not None:
                    return cls(source, kind, read_id, lines, cached)
        return cls._build(source, kind, read_id, state)

    @classmethod
    def _build(cls, source: LineSource, kind: str, read_id: ReadId, state: dict[str, object]) -> "LineIndex":
        if source.addressable:
            lines = source.files[0]
            arrays = _scan(source, read_id, write=None)
        else:
            lines = cache_target(source.path, TEXT_SUFFIX)
            arrays = _unpack(source, read_id, lines)
        index = cls(source, kind, read_id, lines, arrays)._without_duplicates()
        if source.state(kind) != state:
            raise changed_while_read(source.path)
        try:
            stored = state if source.addressable else _with_copy(state, lines)
            write_cache(cache_target(source.path, INDEX_SUFFIX), _LAYOUT, arrays, stored)
        except (OSError, SpladeError) as error:
            logger.warning("%s: its line index cannot be kept, it is built each time (%s)", source.name, error)
        return index

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> str:
        if not 0 <= row < len(self):
            raise IndexError(f"{self.source.name}: row {row} of {len(self)}")
        start, stop = int(self._offsets[row]), int(self._offsets[row + 1])
        return _first_line(self._bytes(start, stop))

    def between(self, start: int, stop: int) -> Iterator[str]:
        """Yield the rows from `start` to before `stop`, which are read in large pieces."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"{self.source.name}: rows {start} to {stop} of {len(self)}")
        while start < stop:
            end = int(np.searchsorted(self._offsets, self._offsets[start] + _PIECE_BYTES))
            end = min(max(end, start + 1), stop)
            offsets = self._offsets[start : end + 1] - self._offsets[start]
            piece = self._bytes(int(self._offsets[start]), int(self._offsets[end]))
            for first, last in itertools.pairwise(offsets.tolist()):
                yield _first_line(piece[first:last])
            start = end

    def _bytes(self, start: int, stop: int) -> bytes:
        if isinstance(self._text, bytes):
            return self._text[start:stop]
        if _version(os.fstat(self._descriptor)) != self._opened:
            raise DataError(f"{self.source.name}: changed while it was in use; start again")
        return os.pread(self._descriptor, stop - start, start)

    def rows(self, record_ids: Sequence[str]) -> np.ndarray:
        """Return (n,) int64: the rows of many ids, -1 where there is none."""
        hashes = np.fromiter(map(_hash_id, record_ids), np.uint64, len(record_ids))
        places = np.searchsorted(self._hashes, hashes)
        found = np.full(len(record_ids), -1, np.int64)
        there = np.flatnonzero(places < len(self._hashes))
        there = there[self._hashes[places[there]] == hashes[there]]
        # In the order of the file: reading forwards is what disks are good at.
        for i in there[np.argsort(self._rows[places[there]])].tolist():
            found[i] = self._row_from(record_ids[i], int(places[i]))
        return found

    def _row_from(self, record_id: str, place: int) -> int:
        """Compare the records whose hash equals that at `place`, from there on; return the row, or -1."""
        hashed = self._hashes[place]
        while place < len(self._hashes) and self._hashes[place] == hashed:
            row = int(self._rows[place])
            if self._id_at(row) == record_id:
                return row
            place += 1
        return -1

    def _id_at(self, row: int) -> str | None:
        return self._read_id(self[row], self.source.path, 0)

    def _without_duplicates(self) -> "LineIndex":
        equal = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        seen: dict[str | None, int] = {}
        for row in np.unique(self._rows[np.union1d(equal, equal + 1)]).tolist():
            record_id = self._id_at(row)
            if record_id in seen:
                places = f"{self._place(seen[record_id])} and {self._place(row)}"
                raise DataError(f"{self.source.name}: the id '{record_id}' occurs twice: {places}; ids must be unique")
            seen[record_id] = row
        return self

    def _place(self, row: int) -> str:
        """Return the line of a row; found by counting, because only messages need it."""
        for seen, (file, line_number, _) in enumerate(self.source):
            if seen == row:
                return f"line {line_number}" if len(self.source.files) == 1 else f"{file.name} line {line_number}"
        raise DataError(f"{self.source.name}: changed while it was read")

    def __reduce__(self) -> tuple[object, ...]:
        return LineIndex.open, (self.source, self._kind, self._read_id)


def _first_line(record: bytes) -> str:
    """Return a record without what follows: up to the next record there may be empty lines."""
    return without_line_end(record[: record.find(b"\n") + 1 or None]).decode("utf-8")


def _version(status: os.stat_result) -> tuple[int, int]:
    """Return what changes when a file is written; unlike `stamp`, not when it is renamed or its rights are changed."""
    return status.st_size, status.st_mtime_ns


def _with_copy(state: dict[str, object], copy: Path) -> dict[str, object]:
    return state | {"copy": file_digest(copy)}


def _unpack(source: LineSource, read_id: ReadId, copy: Path) -> Arrays:
    """Write the records to a plain file, and scan them."""
    with replacing(copy) as temporary, open(temporary, "wb") as stream:
        return _scan(source, read_id, write=stream.write)


def _scan(source: LineSource, read_id: ReadId, write: Callable[[bytes], object] | None) -> Arrays:
    """Read every line once: check it, note where its record starts and hash its id.

    With `write`, the records are copied, one a line, and the offsets are those in the copy.
    """
    offsets, hashes, position = array("q"), array("Q"), 0
    with progress_bar(f"indexing {source.path.name}", unit="line") as bar:
        for count, (file, line_number, raw, line) in enumerate(source.records(), start=1):
            if count % _BAR_STEP == 0:
                bar.update(_BAR_STEP)
            if line:
                record_id = read_id(decode_line(line, file, line_number), file, line_number)
                if record_id is not None:
                    hashes.append(_hash_id(record_id))
                offsets.append(position + len(BOM) if write is None and raw.startswith(BOM) else position)
                if write is not None:
                    write(line + b"\n")
                    position += len(line) + 1
            if write is None:
                position += len(raw)
    offsets.append(position)
    unsorted = np.frombuffer(hashes, np.uint64)
    rows = np.argsort(unsorted, kind="stable")
    return {"offsets": np.frombuffer(offsets, np.int64), "hashes": unsorted[rows], "rows": rows}


def _hash_id(record_id: str) -> int:
    encoded = record_id.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")
