"""Text files as the field writes them: UTF-8, one record a line, plain or gzip-compressed.

A line ends at LF or CRLF and nowhere else. U+2028, U+0085, a lone CR and the other characters at which
`str.splitlines` breaks occur inside real passages and stay there. A BOM at the beginning of a line is left by joining
files and no part of the record.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from splade.errors import DataError, shown
from splade.storage.atomic import json_limit
from splade.storage.paths import folder_content, resolve_path

BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 1 << 26
"""Bytes. No record is as long: what seems to be is no text, or a small file that unpacks to a disk full of zeros."""

_IMPOSSIBLE_IN_IDS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\ufeff]")
_GZIP_MAGIC = b"\x1f\x8b"


def find_text_file(path: str | Path) -> Path:
    """Return the file itself, or `raw.tsv` (perhaps with `.gz`) in the given folder.

    Raises:
        DataError: there is no such file; the message gives the absolute path and what the folder holds.
    """
    found = resolve_path(path)
    if found.is_file():
        return found
    for candidate in (found / "raw.tsv", found / "raw.tsv.gz"):
        if candidate.is_file():
            return candidate
    raise DataError(f"{found.absolute()}: the folder {folder_content(found)}; expected raw.tsv[.gz] in it, or a file")


def is_gzip(path: Path) -> bool:
    """Tell by the first two bytes, not by the name, whether a file is gzip-compressed."""
    try:
        with open(path, "rb") as stream:
            return stream.read(2) == _GZIP_MAGIC
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a plain or gzip-compressed file for reading its (decompressed) bytes.

    Raises:
        DataError: inside the block, when the gzip file cannot be unpacked.
    """
    with cast(BinaryIO, gzip.open(path, "rb") if is_gzip(path) else open(path, "rb")) as stream:
        try:
            yield stream
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path}: damaged or truncated gzip file ({error})") from error


def head(path: Path, size: int = 4096) -> str:
    """Return the beginning of a file without BOM and leading whitespace, for telling its format."""
    with open_bytes(path) as stream:
        return stream.read(size).removeprefix(BOM).lstrip().decode("utf-8", "replace")


def begins_json_object(beginning: str) -> bool:
    """Tell from `head` whether a file is one JSON object, or one a line."""
    return re.match(r'\{\s*("|\}|$)', beginning) is not None


def raw_lines(path: Path) -> Iterator[bytes]:
    """Yield every line with its line end, as bytes, a BOM included; a damaged gzip file is a `DataError`."""
    with open_bytes(path) as stream:
        for line_number, line in enumerate(iter(partial(stream.readline, LONGEST_LINE), b""), start=1):
            if len(line) == LONGEST_LINE:
                raise DataError(
                    f"{path}: line {line_number} is longer than {LONGEST_LINE >> 20} MiB; expected a text file with "
                    "one record a line"
                )
            yield line


def without_line_end(line: bytes) -> bytes:
    r"""Strip the line's own LF or CRLF, never another CR.

    Example:
        >>> without_line_end(b"a\r\r\n"), without_line_end(b"a\r")
        (b'a\r', b'a\r')
    """
    if line.endswith(b"\r\n"):
        return line[:-2]
    return line[:-1] if line.endswith(b"\n") else line


def decode_line(line: bytes, path: Path, line_number: int) -> str:
    """Decode one line; bytes that are not UTF-8 are a `DataError` with file and line."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: line {line_number}: byte {error.start + 1} (0x{line[error.start]:02x}) is not UTF-8; convert the "
            "file, for example with iconv"
        ) from error


def iterate_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without line end) for every line that is not empty.

    Raises:
        DataError: bytes that are not UTF-8, with file and line; a damaged gzip file.
    """
    for line_number, raw in enumerate(raw_lines(path), start=1):
        line = without_line_end(raw.removeprefix(BOM))
        if line:
            yield line_number, decode_line(line, path, line_number)


def check_id(some_id: str, place: str) -> None:
    """Refuse an id that would match nothing in the other files, or that a later file could not hold.

    Every run is also written in TREC's six columns, which whitespace separates; no file holds half of a surrogate pair.

    Args:
        some_id: the id of a query or document.
        place: where it stands, for the message.
    """
    if some_id.isprintable() and some_id and " " not in some_id:
        return
    if not some_id.strip():
        raise DataError(f"{place}: the id is empty")
    if some_id != some_id.strip():
        raise DataError(
            f"{place}: whitespace around the id {shown(some_id)}; it would match no id of another file, remove it"
        )
    if len(some_id.split()) > 1:
        raise DataError(
            f"{place}: whitespace inside the id {shown(some_id)}, which separates the columns of a TREC run; replace "
            "it in all files, for example by '_'"
        )
    if _IMPOSSIBLE_IN_IDS.search(some_id):
        raise DataError(
            f"{place}: the id {shown(some_id)} holds a control character, a byte-order mark or half of a surrogate "
            "pair; remove it from all files"
        )


def id_text(value: object, place: str) -> str:
    """Return an id as text; whole numbers (of up to 1024 bits) are allowed.

    Raises:
        DataError: it is neither, or no possible id.
    """
    if isinstance(value, bool) or not isinstance(value, str | int) or isinstance(value, int) and abs(value) >> 1024:
        raise DataError(f"{place}: an id must be text or an integer, got {shown(value)}")
    check_id(str(value), place)
    return str(value)


def decode_json(text: str, file: Path, line_number: int) -> Any:
    """Decode a line of JSON; anything else is a `DataError` with file and line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: line {line_number}: not JSON ({error.msg}, column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: line {line_number}: {json_limit(error)}") from error


def check_keys(text: str, place: str) -> None:
    """Refuse JSON in which an object holds a key twice: Python keeps the last value without a word."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{place}: the key {shown(twice)} occurs twice")
        return found

    json.loads(text, object_pairs_hook=unique)
