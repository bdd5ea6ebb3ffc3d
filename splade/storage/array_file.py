"""One HDF5 file of named arrays that opens in milliseconds and knows when it has been damaged.

The file is ordinary HDF5 (`h5py.File(path)` shows its datasets), preceded by a "user block", a region that HDF5
leaves to the application. Ours holds a table of contents: format, version, attributes, and for every dataset its
type, length, position and CRC-32. Readers use that table and map the datasets; the HDF5 library never parses a file
that may be damaged.

Every byte of the file is covered by one checksum: the user block by its own, each dataset by its own, and what HDF5
keeps between them by a last one. Computing them all takes about 0.25 s per GB, too long for each opening, so a file
that was found whole is remembered: `<name>.verified` records its size, inode, and times of last modification and
change. The time of change cannot be set by a program, so whatever touches the file afterwards causes it to be
verified again.
"""

import json
import logging
import mmap
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from splade.errors import IndexFileError
from splade.storage.atomic import replacing

FORMAT_VERSION = 1
_MAGIC = b"SPLADE arrays\n"
_PREFIX = (
    len(_MAGIC) + 9 + 9
)  # magic, CRC-32 of the block as 8 hex digits + newline, its length as 8 hex digits + newline
_CHUNK = 1 << 24
_CLOCK_TICK = 0.02  # seconds; file times advance in ticks of up to 10 ms, so a younger file could change unseen
_TYPES = {"|u1", "<u2", "<u4", "<i4", "<i8", "<f4"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArrayFile:
    """An opened file: attributes, and read-only arrays that the operating system loads when they are touched."""

    path: Path
    attributes: dict[str, Any]
    arrays: dict[str, np.ndarray]
    offsets: dict[str, int]
    n_bytes: int

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return a copy of `arrays[name][start:stop]` without mapping it, so that it does not stay in memory."""
        dtype = self.arrays[name].dtype
        return np.fromfile(self.path, dtype, stop - start, offset=self.offsets[name] + start * dtype.itemsize)


class ArrayFileWriter:
    """Writes the datasets of one file, each from start to end. Made by `writing`."""

    def __init__(self, path: Path, block_size: int):
        self._file = h5py.File(path, "w", libver="latest", userblock_size=block_size, alignment_interval=64)
        self._written: dict[str, int] = {}
        self._checksums: dict[str, int] = {}

    def create(self, name: str, dtype: str, length: int) -> None:
        """Reserve a contiguous dataset of `length` elements."""
        assert dtype in _TYPES
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.CONTIGUOUS)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        layout.set_obj_track_times(False)
        space = h5py.h5s.create_simple((length,))
        h5py.h5d.create(self._file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, layout)
        self._written[name] = 0
        self._checksums[name] = 0

    def append(self, name: str, values: np.ndarray) -> None:
        """Write the next elements of a dataset."""
        dataset = self._file[name]
        values = np.ascontiguousarray(values, dtype=dataset.dtype)
        start = self._written[name]
        if len(values):
            dataset[start : start + len(values)] = values
        self._written[name] = start + len(values)
        self._checksums[name] = zlib.crc32(values.view(np.uint8).data, self._checksums[name])

    def add(self, name: str, values: np.ndarray) -> None:
        """Create a dataset and write all of it."""
        self.create(name, values.dtype.newbyteorder("<").str, len(values))
        self.append(name, values)

    def close(self, kind: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Close the file and return its table of contents."""
        for key, value in attributes.items():
            self._file.attrs[key] = value if isinstance(value, int | float | str) else json.dumps(value, sort_keys=True)
        arrays = {}
        for name, written in self._written.items():
            dataset = self._file[name]
            assert written == len(dataset), f"{name}: {written} of {len(dataset)} elements written"
            offset = dataset.id.get_offset() if written else 0
            arrays[name] = {
                "dtype": dataset.dtype.newbyteorder("<").str,
                "length": written,
                "offset": offset,
                "crc32": self._checksums[name],
            }
        self._file.close()
        return {"version": FORMAT_VERSION, "kind": kind, "attributes": dict(attributes), "arrays": arrays}

    def abandon(self) -> None:
        """Close the file without a table of contents."""
        self._file.close()


@contextmanager
def writing(path: Path, kind: str, attributes: dict[str, Any]) -> Iterator[ArrayFileWriter]:
    """Yield a writer of `path`; the file appears, whole, when the block ends without an error.

    `attributes` are read at the end of the block, so that it may complete them: integers, floats and strings, or
    containers of them.
    """
    block_size = _block_size(attributes)
    with replacing(path) as temporary:
        writer = ArrayFileWriter(temporary, block_size)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise
        contents = writer.close(kind, attributes)
        with open(temporary, "rb+") as file:
            contents["size"] = os.fstat(file.fileno()).st_size
            contents["hdf5_crc32"] = _checksum_between(file, block_size, contents)
            file.seek(0)
            file.write(_encode_block(contents, block_size))
    status = os.stat(path)
    _wait_for_clock(status)
    _remember(path, status)


def open_arrays(path: Path, kind: str) -> ArrayFile:
    """Map the arrays of a file written by `writing`.

    The first opening of a file that has changed or moved reads it once to verify its checksums; later ones take
    milliseconds at any size.

    Raises:
        IndexFileError: the file is missing, foreign, of another version or kind, truncated or damaged.
    """
    try:
        file = open(path, "rb")
    except OSError as error:
        raise IndexFileError(f"{path}: cannot be opened ({error.strerror})") from error
    with file:
        contents = _read_contents(file, path, kind)
        status = os.fstat(file.fileno())
        if _remembered(path) != _stamp(status):
            _wait_for_clock(status)
            _verify(file, path, contents)
            _remember(path, status)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays = {
        name: np.frombuffer(data, dtype=entry["dtype"], count=entry["length"], offset=entry["offset"])
        for name, entry in contents["arrays"].items()
    }
    offsets = {name: entry["offset"] for name, entry in contents["arrays"].items()}
    return ArrayFile(path, contents["attributes"], arrays, offsets, contents["size"])


def verify_arrays(path: Path, kind: str) -> None:
    """Read the whole file and compare every checksum.

    Raises:
        IndexFileError: as for `open_arrays`.
    """
    if not path.is_file():
        raise IndexFileError(f"{path}: no such file")
    with open(path, "rb") as file:
        _verify(file, path, _read_contents(file, path, kind))


def _block_size(attributes: Mapping[str, Any]) -> int:
    """HDF5 wants a power of two; leave room for the table of contents and for attributes completed later."""
    return 1 << (len(json.dumps(attributes)) + 8192).bit_length()


def _encode_block(contents: dict[str, Any], size: int) -> bytes:
    text = json.dumps(contents, sort_keys=True).encode()
    if len(text) > size - _PREFIX:
        raise ValueError(f"the table of contents needs {len(text)} bytes, {size - _PREFIX} were reserved")
    text = text.ljust(size - _PREFIX)
    return _MAGIC + b"%08x\n%08x\n" % (zlib.crc32(text), size) + text


def _read_contents(file: BinaryIO, path: Path, kind: str) -> dict[str, Any]:
    """Read and check the user block."""
    prefix = file.read(_PREFIX)
    if not prefix.startswith(_MAGIC):
        raise IndexFileError(
            f"{path}: not written by this toolkit, or its first bytes are damaged; build the index again"
        )
    damaged = IndexFileError(f"{path}: its table of contents is damaged; build the index again")
    try:
        checksum, size = int(prefix[-18:-10], 16), int(prefix[-9:-1], 16)
    except ValueError as error:
        raise damaged from error
    text = file.read(max(0, size - _PREFIX)) if size <= os.fstat(file.fileno()).st_size else b""
    # The prefix is compared byte by byte: int() accepts several spellings of one number.
    if prefix[-18:] != b"%08x\n%08x\n" % (zlib.crc32(text), size) or zlib.crc32(text) != checksum:
        raise damaged
    contents = json.loads(text)
    if contents["version"] != FORMAT_VERSION:
        raise IndexFileError(
            f"{path}: format version {contents['version']}, this toolkit reads {FORMAT_VERSION}; build the index again"
        )
    if contents["kind"] != kind:
        raise IndexFileError(f"{path}: holds a {contents['kind']}, not a {kind}")
    actual = os.fstat(file.fileno()).st_size
    if actual != contents["size"]:
        raise IndexFileError(
            f"{path}: truncated or overwritten ({actual} bytes instead of {contents['size']}); build the index again"
        )
    contents["block_size"] = size
    return contents


def _verify(file: BinaryIO, path: Path, contents: dict[str, Any]) -> None:
    for name, entry in contents["arrays"].items():
        n_bytes = entry["length"] * np.dtype(entry["dtype"]).itemsize
        if _checksum(file, entry["offset"], n_bytes) != entry["crc32"]:
            raise IndexFileError(f"{path}: dataset '{name}' is damaged (wrong checksum); build the index again")
    if _checksum_between(file, contents["block_size"], contents) != contents["hdf5_crc32"]:
        raise IndexFileError(f"{path}: its HDF5 structure is damaged (wrong checksum); build the index again")


def _checksum(file: BinaryIO, offset: int, n_bytes: int, start: int = 0) -> int:
    """CRC-32 of a region of the file, continuing from the checksum `start`."""
    file.seek(offset)
    checksum = start
    while n_bytes > 0:
        chunk = file.read(min(_CHUNK, n_bytes))
        if not chunk:
            return -1
        checksum = zlib.crc32(chunk, checksum)
        n_bytes -= len(chunk)
    return checksum


def _checksum_between(file: BinaryIO, block_size: int, contents: dict[str, Any]) -> int:
    """CRC-32 of all that follows the user block and belongs to no dataset."""
    regions = sorted(
        (entry["offset"], entry["length"] * np.dtype(entry["dtype"]).itemsize)
        for entry in contents["arrays"].values()
        if entry["length"]
    )
    checksum, position = 0, block_size
    for offset, n_bytes in [*regions, (contents["size"], 0)]:
        checksum = _checksum(file, position, offset - position, checksum)
        position = offset + n_bytes
    return checksum


def _stamp(status: os.stat_result) -> dict[str, int]:
    return {
        "size": status.st_size,
        "inode": status.st_ino,
        "modified_ns": status.st_mtime_ns,
        "changed_ns": status.st_ctime_ns,
    }


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def _remembered(path: Path) -> Any:
    try:
        return json.loads(_sidecar(path).read_text())
    except (OSError, ValueError):
        return None


def _wait_for_clock(status: os.stat_result) -> None:
    """Wait until a change of the file would be seen in its times."""
    age = time.time() - status.st_ctime
    if age < _CLOCK_TICK:
        time.sleep(_CLOCK_TICK - max(0.0, age))


def _remember(path: Path, status: os.stat_result) -> None:
    """Record that the file is whole. A folder that cannot be written only costs time at the next opening."""
    try:
        _sidecar(path).write_text(json.dumps(_stamp(status)))
    except OSError as error:
        logger.debug("%s: cannot remember that it was verified (%s)", path, error)
