"""Checksums of a folder's files, to be written down when the folder is complete and compared before it is used."""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

_READ_BYTES = 1 << 20


def checksums(folder: Path, *parts: str) -> dict[str, str]:
    """Return size and CRC-32 of each file of a folder, by its path inside the folder.

    Args:
        folder: the folder.
        parts: subfolders; none: the whole folder.

    Raises:
        OSError: a file cannot be read.
    """
    files = sorted(path for part in parts or ("",) for path in (folder / part).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in files}


def damage(folder: Path, recorded: Mapping[str, str]) -> str | None:
    """Return what is wrong with the first file that is not what `checksums` found, or None; more files do not matter.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.txt").write_text("whole")
        >>> found = checksums(folder)
        >>> _ = (folder / "a.txt").write_text("whale")
        >>> damage(folder, found), damage(folder, checksums(folder)), damage(folder, {"b.txt": ""})
        ('a.txt is damaged', None, 'b.txt is missing')
    """
    for name, expected in recorded.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        try:
            if str(path.stat().st_size) != str(expected).partition(" ")[0]:
                return f"{name} has {path.stat().st_size} bytes instead of {str(expected).partition(' ')[0]}"
            if _checksum(path) != expected:
                return f"{name} is damaged"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def _checksum(path: Path) -> str:
    checksum = 0
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while block := file.read(_READ_BYTES):
            checksum = zlib.crc32(block, checksum)
    return f"{size} bytes, CRC-32 {checksum:08x}"
