"""Files of arrays that are damaged, foreign or forged: all are refused, none is followed."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from splade.errors import IndexFileError
from splade.storage import arrays
from splade.storage.arrays import Layout, array_writer, open_arrays
from splade.storage.cache import open_cache, write_cache

LAYOUT = Layout("test", {"a": "<i8", "b": "<f4", "empty": "<u2"})


def write(path: Path) -> Path:
    with array_writer(path, LAYOUT, {"n": 7, "name": "x"}) as file:
        file.create("a", 5)
        file.append("a", np.arange(2))
        file.append("a", np.arange(2, 5))
        file.write("b", np.ones(3, np.float32))
        file.write("empty", np.zeros(0, np.uint16))
    return path


def seal(path: Path) -> None:
    """Give a file that was changed the right checksum."""
    with open(path, "rb+", buffering=0) as stream:
        right = arrays._seal(stream)
        stream.seek(0)
        stream.write(right)


@pytest.fixture
def path(tmp_path) -> Path:
    return write(tmp_path / "x.h5")


@pytest.fixture
def always_remember(monkeypatch):
    monkeypatch.setattr(arrays, "REMEMBER_FROM_BYTES", 0)


def put(path: Path, position: int, value: int) -> None:
    """Change one byte in place: much quicker than writing the file anew."""
    with open(path, "rb+", buffering=0) as stream:
        stream.seek(position)
        stream.write(bytes([value]))


def test_any_flipped_byte_is_found(path):
    for position, byte in enumerate(path.read_bytes()):
        put(path, position, byte ^ (1 << position % 8))
        with pytest.raises(IndexFileError, match="damaged|format version"):
            open_arrays(path, LAYOUT)
        put(path, position, byte)


def test_any_missing_or_added_byte_is_found(path):
    whole = path.read_bytes()
    cut = [whole[:n] for n in range(0, len(whole), 7)]
    for damaged in [*cut, *(whole[:n] + whole[n + 1 :] for n in range(0, len(whole), 7)), whole + b"\0"]:
        path.write_bytes(damaged)
        with pytest.raises(IndexFileError):
            open_arrays(path, LAYOUT)


def test_hdf5_is_not_given_a_damaged_file(path, monkeypatch):
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setattr(arrays.h5py, "File", lambda *_: pytest.fail("parsed"))
    with pytest.raises(IndexFileError, match="damaged"):
        open_arrays(path, LAYOUT)


def test_damage_under_a_right_checksum_does_not_end_the_process(path):
    """The checksum forged, HDF5 parses the damaged file: it must find the fault itself, or there is none."""
    rng = np.random.default_rng(0)
    for position, byte in enumerate(path.read_bytes()[512:], start=512):
        put(path, position, rng.integers(256))
        seal(path)
        try:
            assert len(open_arrays(path, LAYOUT).arrays["a"]) == 5
        except IndexFileError:
            pass
        put(path, position, byte)


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (lambda file: file.pop("b"), "'b' is missing"),
        (lambda file: (file.pop("b"), file.create_dataset("b", data=np.ones(3))), "'b' is missing or not <f4"),
        (lambda file: (file.pop("b"), file.create_group("b")), "'b' is missing or not <f4"),
        (lambda file: (file.pop("b"), file.create_dataset("b", (3,), "<f4", chunks=(1,))), "'b' is missing or not"),
        (lambda file: (file.pop("b"), file.create_dataset("b", (3, 1), "<f4")), "'b' is missing or not <f4"),
        (lambda file: (file.pop("b"), file.create_dataset("b", (3,), "<f4", external=[("/dev/zero", 0, 12)])), "'b'"),
        (lambda file: file.attrs.pop("kind"), "holds a None, not a test"),
    ],
)
def test_forged_structure(path, forge, message):
    with h5py.File(path, "r+") as file:
        forge(file)
    seal(path)
    with pytest.raises(IndexFileError, match=message):
        open_arrays(path, LAYOUT)


def test_a_dataset_that_begins_beyond_the_file(path, monkeypatch):
    monkeypatch.setattr(arrays, "_place", lambda dataset: (dataset.dtype.str, path.stat().st_size, 1))
    with pytest.raises(IndexFileError, match="'a' does not lie inside the file"):
        open_arrays(path, LAYOUT)


def test_attributes_that_are_missing_or_of_another_type(path):
    file = open_arrays(path, LAYOUT)
    assert (file.integer("n"), file.text("name")) == (7, "x")
    for read, name in ((file.integer, "name"), (file.integer, "m"), (file.text, "n"), (file.json_object, "name")):
        with pytest.raises(IndexFileError, match=f"its attribute '{name}' is"):
            read(name)


def test_another_version(path):
    whole = path.read_bytes()
    for old in (b"SPLADE arrays\n", b"SPLADE arrays 1\n"):
        path.write_bytes(old + whole[len(old) :])
        with pytest.raises(IndexFileError, match="format version 1, this toolkit reads 2; build it again"):
            open_arrays(path, LAYOUT)


def test_an_error_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), array_writer(tmp_path / "x", LAYOUT, {}) as file:
        file.write("a", np.arange(3))
        raise RuntimeError
    with pytest.raises(AssertionError, match="'b'"), array_writer(tmp_path / "x", LAYOUT, {}) as file:
        file.create("a", 3)
    assert list(tmp_path.iterdir()) == []


def test_a_file_found_whole_is_not_read_again(path, always_remember, monkeypatch):
    open_arrays(path, LAYOUT)
    monkeypatch.setattr(arrays, "_check_seal", lambda *_: pytest.fail("read again"))
    assert open_arrays(path, LAYOUT).arrays["a"].tolist() == list(range(5))
    with pytest.raises(pytest.fail.Exception):
        open_arrays(path, LAYOUT, verify=True)


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_remembered_file_that_changed_is_read_again(path, always_remember, keep_times):
    for _ in range(20):
        write(path)
        open_arrays(path, LAYOUT)
        status = os.stat(path)
        damaged = bytearray(path.read_bytes())
        damaged[-1] ^= 1
        path.write_bytes(damaged)
        if keep_times:
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(IndexFileError, match="damaged"):
            open_arrays(path, LAYOUT)


def test_an_opened_file_outlives_its_replacement(path):
    opened = open_arrays(path, LAYOUT)
    with array_writer(path, LAYOUT, {}) as file:
        for name in LAYOUT.dtypes:
            file.write(name, np.zeros(0, np.int64))
    assert opened.arrays["a"].tolist() == list(range(5))


def test_cached_arrays_are_those_of_their_source(tmp_path):
    layout, state = Layout("cache", {"a": "<i8"}), {"files": ["x" * 100_000, "\udcff"]}
    write_cache(tmp_path / "c", layout, {"a": np.arange(3)}, state)
    cached = open_cache(tmp_path / "c", layout, state)
    assert cached is not None and cached["a"].tolist() == [0, 1, 2]
    assert open_cache(tmp_path / "c", layout, {"files": []}) is None
    assert open_cache(tmp_path / "c", Layout("other", {"a": "<i8"}), state) is None
    assert open_cache(tmp_path / "missing", layout, state) is None


def test_opening_does_not_need_the_compiler():
    code = (
        "import sys, splade.storage.arrays, splade.vectors; sys.exit('numba' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
