"""Named arrays in one HDF5 file that opens in milliseconds at any size and knows when it has been damaged.

The file is ordinary HDF5: `h5py.File(path)` shows its datasets and attributes. It begins with a "user block", a region
that HDF5 leaves to the application. Ours is the seal: format version, length of the file and CRC-32 of all that
follows. The seal is compared before HDF5 parses anything: so every damaged byte is found, whatever it would have meant
(`test_any_flipped_byte_is_found`), and the library, which reads some damaged files for ever, never sees one
(`test_hdf5_is_not_given_a_damaged_file`).

Computing the checksum takes 0.15 s per GB, too long for each opening of a large file, so one that was found whole is
remembered: `<name>.verified` records its size, inode, and times of last modification and change. No program can set
the time of change, so whatever touches the file afterwards causes it to be verified again.
"""

import io
import json
import logging
import mmap
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
from typing_extensions import Buffer

from splade.errors import IndexFileError
from splade.storage.atomic import replacing

FORMAT_VERSION = 2
REMEMBER_FROM_BYTES = 1 << 24
"""Smaller files are verified each time they are opened, in 3 ms, and leave no `.verified` behind."""

_SEAL_BYTES = 512  # the smallest user block of HDF5
_READ_BYTES = 1 << 20
_KIND = "kind"

logger = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class ArrayFile:
    """An opened file: attributes, and read-only arrays that the operating system loads when they are touched.

    Its `seal`, length and checksum, tells it from a file of any other content.
    """

    path: Path
    seal: str
    attributes: Mapping[str, object]
    arrays: Arrays
    begins: dict[str, int]
    n_bytes: int

    def integer(self, name: str) -> int:
        """Return an attribute that must be there and be an integer."""
        value = self.attributes.get(name)
        return value if isinstance(value, int) else self.refuse(f"its attribute '{name}' is {value!r}, not an integer")

    def text(self, name: str) -> str:
        """Return an attribute that must be there and be a string."""
        value = self.attributes.get(name)
        return value if isinstance(value, str) else self.refuse(f"its attribute '{name}' is {value!r}, not a string")

    def json_object(self, name: str) -> dict[str, Any]:
        """Return an attribute that must be there and be the text of a JSON object."""
        try:
            value = json.loads(self.text(name))
        except (ValueError, RecursionError):
            value = None
        return value if isinstance(value, dict) else self.refuse(f"its attribute '{name}' is not a JSON object")

    def copy(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return a copy of `arrays[name][start:stop]` without mapping it, so that it does not stay in memory."""
        dtype = self.arrays[name].dtype
        return np.fromfile(self.path, dtype, stop - start, offset=self.begins[name] + start * dtype.itemsize)

    def refuse(self, fault: str) -> NoReturn:
        """Raise the error for content that cannot be."""
        raise IndexFileError(f"{self.path}: {fault}; build it again")


@dataclass(frozen=True)
class Layout:
    """What a kind of file holds.

    Attributes:
        kind: names it, in the file and in messages.
        dtypes: little-endian type of each of its one-dimensional arrays, as `np.dtype(...).str`.
        check: raises `IndexFileError` when the content is impossible; runs whenever the checksum is computed.
    """

    kind: str
    dtypes: Mapping[str, str]
    check: Callable[[ArrayFile], None] = lambda file: None


class ArrayWriter:
    """Writes the arrays of one file, each from start to end. Made by `array_writer`."""

    def __init__(self, file: h5py.File, layout: Layout, stream: "_WrittenFile"):
        self._file, self._layout, self._stream = file, layout, stream
        self._written: dict[str, int] = {}

    def create(self, name: str, length: int) -> None:
        """Reserve a contiguous dataset of `length` elements."""
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.CONTIGUOUS)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        properties.set_obj_track_times(False)  # the same arrays give the same bytes
        dtype = h5py.h5t.py_create(np.dtype(self._layout.dtypes[name]))
        h5py.h5d.create(self._file.id, name.encode(), dtype, h5py.h5s.create_simple((length,)), properties)
        self._written[name] = 0

    def append(self, name: str, values: np.ndarray) -> None:
        """Write the next elements of a dataset."""
        start = self._written[name]
        self._written[name] = stop = start + len(values)
        if len(values):
            self._file[name][start:stop] = np.ascontiguousarray(values, self._layout.dtypes[name])
            self._stream.check()

    def write(self, name: str, values: np.ndarray) -> None:
        """Create a dataset and write all of it."""
        self.create(name, len(values))
        self.append(name, values)

    def finish(self, attributes: Mapping[str, int | str]) -> None:
        """Add the attributes, once all datasets of the layout are complete."""
        lengths = {name: len(self._file[name]) if name in self._file else -1 for name in self._layout.dtypes}
        assert self._written == lengths, f"{self._written} elements were written of {lengths}"
        for name, value in {**attributes, _KIND: self._layout.kind}.items():
            if isinstance(value, str):
                # Of fixed length: HDF5 keeps others in a heap without checksums, and a wrong one is read for ever.
                text = value.encode()
                self._file.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))
            else:
                self._file.attrs[name] = value


class _WrittenFile(io.FileIO):
    """A file that HDF5 writes to. What is wrong with the disk is noted, and raised by `check`.

    HDF5 itself does not get over it: it complains of each object that is open, and the process ends in a segmentation
    fault.
    """

    _errno: int | None = None

    def write(self, data: Buffer) -> int:
        """Write all of the data."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while self._errno is None and done < len(view):
                done += super().write(view[done:])
        except OSError as error:
            self._errno = error.errno
        return len(view)

    def readinto(self, buffer: Buffer) -> int:
        """Read; where nothing could be written stand zeros."""
        n_bytes = super().readinto(buffer)
        if self._errno is not None:
            memoryview(buffer).cast("B")[n_bytes:] = bytes(len(memoryview(buffer).cast("B")) - n_bytes)
        return n_bytes

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._errno = self._errno or error.errno
            return size or 0

    def check(self) -> None:
        """Raise the OSError of what could not be written."""
        if self._errno is not None:
            raise OSError(self._errno, os.strerror(self._errno), self.name)


@contextmanager
def array_writer(path: Path, layout: Layout, attributes: Mapping[str, int | str]) -> Iterator[ArrayWriter]:
    """Yield a writer of `path`; the file appears, whole, when the block ends without an error."""
    with replacing(path) as temporary, _WrittenFile(temporary, "wb+") as stream:
        options = {"libver": "latest", "userblock_size": _SEAL_BYTES, "alignment_interval": 64}
        with h5py.File(stream, "w", **options) as file:
            writer = ArrayWriter(file, layout, stream)
            yield writer
            writer.finish(attributes)
        seal = _seal(stream)
        stream.seek(0)
        stream.write(seal)
        stream.check()
    _remember(path, os.stat(path))


def open_arrays(path: Path, layout: Layout, verify: bool = False) -> ArrayFile:
    """Map the arrays of a file that `array_writer` wrote.

    The first opening of a large file that has changed or moved reads it once to verify its checksum; later ones take
    milliseconds. With `verify`, the checksum is computed in any case.

    Raises:
        IndexFileError: the file is missing, foreign, of another version or kind, truncated or damaged.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would wait for ever
            raise IndexFileError(f"{path}: no ordinary file; give the folder of an index")
        stream = open(path, "rb", buffering=0)
    except OSError as error:
        raise IndexFileError(f"{path}: cannot be opened ({error.strerror})") from error
    with stream:
        status = os.fstat(stream.fileno())
        if remembered := not verify and _remembered(path, status):
            return _map_arrays(stream, path, layout)
        _check_seal(stream, path)
        file = _map_arrays(stream, path, layout)
        layout.check(file)
    if not remembered:
        _remember(path, status)
    return file


def _seal(stream: io.FileIO) -> bytes:
    """Return what must stand in the user block: any other bytes there are a damage, too."""
    stream.seek(_SEAL_BYTES)
    buffer, size, checksum = memoryview(bytearray(_READ_BYTES)), _SEAL_BYTES, 0
    while n_bytes := stream.readinto(buffer):
        checksum = zlib.crc32(buffer[:n_bytes], checksum)
        size += n_bytes
    return f"SPLADE arrays {FORMAT_VERSION}\n{size} bytes, CRC-32 {checksum:08x}\n".encode().ljust(_SEAL_BYTES, b"\0")


def _check_seal(stream: io.FileIO, path: Path) -> None:
    seal = stream.read(_SEAL_BYTES)
    # Version 1 did not write its number.
    begin = re.match(rb"SPLADE arrays(?: (\d+))?\n", seal)
    if begin is None:
        raise IndexFileError(f"{path}: not written by this toolkit, or its first bytes are damaged; build it again")
    version = int(begin[1] or 1)
    if version != FORMAT_VERSION:
        raise IndexFileError(f"{path}: format version {version}, this toolkit reads {FORMAT_VERSION}; build it again")
    if seal != _seal(stream):
        raise IndexFileError(f"{path}: truncated or damaged (its checksum is wrong); build it again")


def _map_arrays(stream: io.FileIO, path: Path, layout: Layout) -> ArrayFile:
    """Let HDF5 say where the arrays lie, and map them."""
    try:
        with h5py.File(stream, "r") as hdf5:
            attributes = {name: _attribute(value) for name, value in hdf5.attrs.items()}
            places = {name: _place(hdf5[name]) for name in layout.dtypes if name in hdf5}
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise IndexFileError(f"{path}: its HDF5 structure cannot be read ({error}); build it again") from error
    data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    seal = data[:_SEAL_BYTES].rstrip(b"\0").decode("ascii", "replace").splitlines()[-1]
    file = ArrayFile(path, seal, attributes, {}, {}, len(data))
    if attributes.get(_KIND) != layout.kind:
        raise IndexFileError(f"{path}: holds a {attributes.get(_KIND)}, not a {layout.kind}")
    for name, expected in layout.dtypes.items():
        dtype, begin, length = places.get(name, ("", 0, 0))
        if dtype != expected:
            file.refuse(f"its array '{name}' is missing or not {expected}")
        if begin % 8 or begin + length * np.dtype(dtype).itemsize > len(data):
            file.refuse(f"its array '{name}' does not lie inside the file")
        file.arrays[name] = np.frombuffer(data, dtype, length, begin)
        file.begins[name] = begin
    return file


def _place(entry: h5py.Dataset | h5py.Group) -> tuple[str, int, int]:
    """Return type, first byte and length of a contiguous one-dimensional dataset; type "" for anything else."""
    if not isinstance(entry, h5py.Dataset) or entry.ndim != 1:
        return "", 0, 0
    begin = entry.id.get_offset() if entry.size else 0  # None unless contiguous
    return (entry.dtype.str, begin, entry.size) if begin is not None else ("", 0, 0)


def _attribute(value: object) -> object:
    return int(value) if isinstance(value, np.integer) else value.decode() if isinstance(value, bytes) else value


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def stamp(status: os.stat_result) -> str:
    """Return what changes whenever anything touches a file."""
    return f"{status.st_size} bytes, inode {status.st_ino}, ns {status.st_mtime_ns} {status.st_ctime_ns}\n"


def _remembered(path: Path, status: os.stat_result) -> bool:
    try:
        return status.st_size >= REMEMBER_FROM_BYTES and _sidecar(path).read_text() == stamp(status)
    except (OSError, ValueError):
        return False


def _remember(path: Path, status: os.stat_result) -> None:
    """Record that the file is whole. A folder that cannot be written only costs time at the next opening."""
    if status.st_size < REMEMBER_FROM_BYTES:
        return
    try:
        _sidecar(path).write_text(stamp(status))
    except OSError as error:
        logger.debug("%s: cannot remember that it was verified (%s)", path, error)
