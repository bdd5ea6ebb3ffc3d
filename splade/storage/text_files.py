"""Text files as the field writes them: UTF-8, one record a line, plain or gzip-compressed.

A line ends at LF or CRLF and nowhere else. U+2028, U+0085, a lone CR and the other characters at which
`str.splitlines` breaks occur inside real passages and stay there.
"""

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from splade.errors import DataError
from splade.storage.atomic import replacing
from splade.storage.paths import folder_content, resolve_path

BOM = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"


def find_text_file(path: str | Path, names: tuple[str, ...] = ("raw.tsv",)) -> Path:
    """Return the file itself, or the file of one of the given names (perhaps with `.gz`) in the given folder.

    Raises:
        DataError: there is no such file; the message gives the absolute path and what the folder holds.
    """
    found = resolve_path(path)
    if found.is_file():
        return found
    for name in names:
        for candidate in (found / name, found / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    expected = " or ".join(f"{name}[.gz]" for name in names)
    raise DataError(f"{found.absolute()}: the folder {folder_content(found)}; expected {expected} in it, or a file")


def is_gzip(path: Path) -> bool:
    """Tell by the first two bytes, not by the name, whether a file is gzip-compressed."""
    with open(path, "rb") as stream:
        return stream.read(2) == _GZIP_MAGIC


def open_bytes(path: Path) -> BinaryIO:
    """Open a plain or gzip-compressed file for reading its (decompressed) bytes."""
    return cast(BinaryIO, gzip.open(path, "rb")) if is_gzip(path) else open(path, "rb")


def head(path: Path, size: int = 4096) -> str:
    """Return the beginning of a file without BOM and leading whitespace, for telling its format."""
    try:
        with open_bytes(path) as stream:
            return stream.read(size).removeprefix(BOM).lstrip().decode("utf-8", "replace")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged_gzip(path, error) from error


def begins_json_object(beginning: str) -> bool:
    """Tell from `head` whether a file is one JSON object, or one a line."""
    return re.match(r'\{\s*("|\}|$)', beginning) is not None


def damaged_gzip(path: Path, error: Exception) -> DataError:
    """Return the error for a gzip file that cannot be unpacked."""
    return DataError(f"{path}: damaged or truncated gzip file ({error})")


def raw_lines(path: Path) -> Iterator[bytes]:
    """Yield every line with its line end, as bytes, a BOM included; a damaged gzip file is a `DataError`."""
    with open_bytes(path) as stream:
        try:
            yield from stream
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise damaged_gzip(path, error) from error


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


def write_tsv(path: str | Path, rows: Iterable[tuple[str, ...]]) -> None:
    """Write one record a line, whole or not at all; `.gz` in the name compresses.

    Raises:
        DataError: a field holds a tab or LF, or the last one ends with CR: it would not be read back as it was.
    """
    with replacing(path) as temporary:
        with _open_for_writing(temporary, compress=Path(path).suffix == ".gz") as stream:
            for row_number, row in enumerate(rows, start=1):
                line = "\t".join(row)
                if line.count("\t") != len(row) - 1 or "\n" in line or line.endswith("\r") or not line:
                    raise DataError(f"{path}: record {row_number} {row!r} cannot be one line of {len(row)} columns")
                stream.write(line.encode("utf-8") + b"\n")


def _open_for_writing(path: Path, compress: bool) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "wb", compresslevel=6)) if compress else open(path, "wb")
