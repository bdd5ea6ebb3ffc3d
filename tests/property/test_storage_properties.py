"""What must hold for every file of arrays: it is read back as it was, by us and by h5py, and is always the same."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from splade.storage.arrays import Layout, array_writer, open_arrays

DTYPES = st.sampled_from(["|u1", "<u2", "<u4", "<u8", "<i4", "<i8", "<f4"])
ARRAYS = st.lists(st.tuples(DTYPES, st.lists(st.integers(0, 100), max_size=40)), max_size=5)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
ATTRIBUTES = st.dictionaries(
    TEXT.filter(bool).map("a{}".format), st.integers(-(1 << 63), (1 << 63) - 1) | TEXT, max_size=4
)


@given(ARRAYS, ATTRIBUTES)
def test_arrays_are_read_back(columns, attributes):
    arrays = {f"column {i}": np.array(values, dtype) for i, (dtype, values) in enumerate(columns)}
    layout = Layout("test", {name: array.dtype.str for name, array in arrays.items()})
    with tempfile.TemporaryDirectory() as folder:
        contents = []
        for name in ("one", "other"):
            with array_writer(Path(folder) / name, layout, attributes) as file:
                for key, array in arrays.items():
                    file.write(key, array)
            contents.append((Path(folder) / name).read_bytes())
        opened = open_arrays(Path(folder) / "one", layout)
        assert contents[0] == contents[1]
        assert {**opened.attributes} == {**attributes, "kind": "test"}
        with h5py.File(Path(folder) / "one") as file:
            assert set(file.attrs) == {*attributes, "kind"}
            for name, array in arrays.items():
                for read in (opened.arrays[name], file[name][:], opened.copy(name, 0, len(array))):
                    assert read.dtype == array.dtype and read.tolist() == array.tolist()
