"""Text files as the field writes them: UTF-8, one record a line, plain or gzip-compressed.

A line ends at LF or CRLF and nowhere else. U+2028, U+0085, a lone CR and the other characters at which
`str.splitlines` breaks occur inside real passages and stay there.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from splade.errors import DataError
from splade.storage.paths import folder_content, resolve_path

BOM = b"\xef\xbb\xbf"
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
    with open(path, "rb") as stream:
        return stream.read(2) == _GZIP_MAGIC


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
        yield from stream


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
    """Refuse an empty id and one with whitespace around it, which would match nothing in the other files.

    Args:
        some_id: the id of a query or document.
        place: where it stands, for the message.
    """
    if some_id and some_id == some_id.strip():
        return
    if not some_id.strip():
        raise DataError(f"{place}: the id is empty")
    raise DataError(f"{place}: whitespace around the id {some_id!r}; it would match no id of another file, remove them")
