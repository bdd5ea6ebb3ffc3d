"""Writing files so that a file which exists is whole."""

import errno
import itertools
import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from splade.errors import DataError, WriteError, shown

_ADVICE = {
    errno.ENOSPC: "make room and give the same command again: it goes on where it was",
    errno.EDQUOT: "make room and give the same command again: it goes on where it was",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) and give the same command again",
    errno.EACCES: "choose a place that you may write to",
    errno.EPERM: "choose a place that you may write to",
    errno.EROFS: "choose a place that can be written to",
    errno.EEXIST: "a file stands where a folder is needed; choose another place",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another place",
    errno.ENOENT: "its folder was removed meanwhile, or cannot be made; choose another place",
    errno.EISDIR: "a folder stands where a file is needed; choose another place",
    errno.ENAMETOOLONG: "choose a shorter one",
    errno.EIO: "the disk or its connection fails",
}
_LARGEST = sys.float_info.max
_numbers = itertools.count()

JsonObject = dict[str, Any]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` once the block has ended without an error.

    A process killed inside the block leaves `path` as it was. The temporary name carries host, process id and a number,
    so that no two writers ever write to the same file; what a process that is gone has left is removed.

    Raises:
        WriteError: the disk is full, or the file cannot be written there.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with replacing(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.{next(_numbers)}.part")
        try:
            yield temporary
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, shown: Path | None = None) -> Iterator[None]:
    """Turn what the operating system says against writing `path`, in the block, into one paragraph.

    Args:
        path: the file that is written.
        shown: what the message names in its stead.

    Raises:
        WriteError: the disk is full, or the file cannot be written there.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # HDF5 tells the number in its message only.
        told = re.search(r"errno = (\d+)", str(error))
        number = getattr(error, "errno", None) or (int(told[1]) if told else 0)
        named = getattr(error, "filename", None)  # perhaps of a file that is read meanwhile
        about = Path(named) if isinstance(named, str) else path
        if number not in _ADVICE or about.parent != path.parent and about not in path.parents:
            raise
        raise WriteError(f"{shown or path}: cannot be written ({os.strerror(number)}); {_ADVICE[number]}") from error


def process_is_gone(host: str, process_id: int) -> bool:
    """Return True for a process of this machine that has ended; of other machines nothing is known."""
    if host != platform.node() or os.name != "posix":
        return False
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it is there, and somebody else's
    return False


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of `path` whose processes are gone."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"(.*)\.(\d+)\.\d+\.part")
    try:
        names = os.listdir(path.parent)
    except PermissionError:
        return  # it can be written to all the same, perhaps
    for name in names:
        left = pattern.fullmatch(name)
        if left is not None and process_is_gone(left[1], int(left[2])):
            path.with_name(name).unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object, indent: int | None = 2) -> None:
    """Write `value` as JSON, whole or not at all. NaN and infinity are refused: JSON has no such numbers."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def read_json_object(path: str | Path) -> JsonObject:
    """Read a JSON file that must hold an object.

    Raises:
        DataError: the file is missing, not JSON, or holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: must be a JSON object ({{...}}), not {type(value).__name__}")
    return value


def read_numbers(path: str | Path) -> dict[str, float]:
    """Read a JSON file that must hold an object of names and finite numbers.

    Raises:
        DataError: the file is missing, not JSON, or holds something else.
    """
    values = read_json_object(path)
    for name, value in values.items():
        if type(value) not in (int, float) or not -_LARGEST <= value <= _LARGEST:
            raise DataError(f"{path}: '{name}' must be a finite number, got {shown(value)}")
    return values


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing, or not JSON (with the line and column of the fault), or too deep or long a one.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path.absolute()}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno}, column {error.colno}: not JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: {json_limit(error)}") from error


def json_limit(error: ValueError | RecursionError) -> str:
    """Say which limit a JSON text exceeds that Python's decoder refuses without calling it wrong."""
    return "JSON that is nested too deeply" if isinstance(error, RecursionError) else "a number of too many digits"
