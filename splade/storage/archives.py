"""Unpacking zip files of strangers."""

import lzma
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from splade.errors import DataError, shown

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_LARGEST_RATIO = 100
"""Text becomes three to ten times smaller; a hundred times is a trap."""

_ALLOWANCE = 1 << 24


def unzip(archive: Path, target: Path, folder: str) -> None:
    """Unpack one folder of an archive.

    Args:
        archive: the zip file.
        target: where the folder is put.
        folder: its name in the archive; what else there is stays packed.

    Raises:
        DataError: damaged, encrypted, compressed in an unknown way, far larger than packed or than the disk, without
            the folder, or with members that lie outside or take each other's place.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            inside = [member for member in members if member.filename.startswith(f"{folder}/")]
            if not inside:
                names = shown(", ".join(member.filename for member in members[:5]))
                raise DataError(f"the archive has no folder '{folder}'; it holds {names}")
            _check_names(members)
            for member in inside:
                _check_member(member)
            _check_size(inside, archive)
            for member in inside:
                path = target / member.filename
                (path if member.is_dir() else path.parent).mkdir(parents=True, exist_ok=True)
                if not member.is_dir():
                    with opened.open(member) as packed, open(path, "wb") as file:
                        shutil.copyfileobj(packed, file, 1 << 20)
    except DataError:
        raise
    except (
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
        *(NotImplementedError, RuntimeError, OSError, ValueError, UnicodeError, MemoryError),
    ) as error:
        raise DataError(f"what arrived is not a whole zip file ({error}); try again") from error


def _check_names(members: Iterable[zipfile.ZipInfo]) -> None:
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for member in members:
        name = member.filename
        path = PurePosixPath(name.casefold())  # on some systems a name in capitals is the same
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise DataError(f"refused, the archive writes outside its folder: {shown(name)}")
        if "\\" in name or not name.isprintable() or any(len(part.encode()) > 200 for part in parts):
            raise DataError(f"refused, the archive has a member of an impossible name: {shown(name)}")
        if path in files or (not member.is_dir() and path in folders) or not files.isdisjoint(path.parents):
            raise DataError(f"refused, two members of the archive take the same place: {shown(name)}")
        (folders if member.is_dir() else files).add(path)
        folders.update(path.parents)


def _check_member(member: zipfile.ZipInfo) -> None:
    if member.flag_bits & 1:
        raise DataError(f"{shown(member.filename)} in the archive is encrypted; unpack it yourself")
    if member.compress_type not in _METHODS:
        raise DataError(f"{shown(member.filename)} in the archive is packed by an unknown method; unpack it yourself")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(f"refused, {shown(member.filename)} in the archive is a link or device")


def _check_size(members: Iterable[zipfile.ZipInfo], archive: Path) -> None:
    size, packed = sum(member.file_size for member in members), archive.stat().st_size
    if size > _LARGEST_RATIO * packed + _ALLOWANCE:
        raise DataError(f"refused, {packed} bytes would unpack to {size}: no text is as repetitive")
    free = shutil.disk_usage(archive.parent).free
    if size > free:
        raise DataError(f"unpacked it takes {size / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free; make room")
