"""Files of vectors that are damaged, foreign or made to do harm: refused with the file's name, and no code runs."""

import gzip
import io
import json
import os
import zipfile
from itertools import chain

import numpy as np
import pytest

from splade.errors import DataError
from splade.interop.vector_files import FORMS, Manifest, VectorFiles, begin
from splade.vectors import SparseVectors

TOKENS = ["[PAD]", "cat", "dog", "a b", "bird", "bird"]
VECTORS = SparseVectors.from_rows([([4, 1], [0.5, 1.25]), ([], []), ([2, 3, 5], [3, 0.1, 7])], len(TOKENS))
IDS = ["d1", "7", "é"]
MANIFEST = {"form": "jsonl", "model": "m", "fingerprint": {}, "max_length": 5, "source": "s", "n_docs": 1}
MANIFEST["part_size"] = 1


def read(path):
    """Return ids and rows of all vectors."""
    groups = list(VectorFiles(path, TOKENS))
    return list(chain(*(ids for ids, _ in groups))), [
        row for _, vectors in groups for row in vectors.to_dense().tolist()
    ]


def refused(path, message):
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert path.name in str(caught.value)


def npz(path, **changes):
    whole = {"indptr": VECTORS.indptr, "indices": VECTORS.term_ids, "data": VECTORS.weights, "doc_ids": np.array(IDS)}
    whole |= {"shape": np.array([3, 6]), "format": np.array(b"csr")} | changes
    np.savez(path, **{name: array for name, array in whole.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indptr": np.array([0, 4, 2, 5], np.uint64)}, "indptr must ascend"),
        ({"indptr": np.array([0, 4, 2, 5], np.uint8)}, "indptr must ascend"),
        ({"indptr": np.array([0, 1, 2, 2**64 - 1], np.uint64)}, "indptr must ascend"),
        ({"indptr": np.array([], np.int64), "shape": np.array([-1, 6])}, r"shape \(-1, 6\)"),
        ({"indptr": np.array([], np.int64), "shape": np.array([2**64 - 1, 6], np.uint64)}, "do not fit"),
        ({"shape": np.array([2**62, 6])}, "do not fit together"),
        ({"shape": np.array([3.0, 6.0])}, "not a CSR matrix"),
        ({"shape": None}, "not a CSR matrix"),
        ({"data": np.array([1j] * 5)}, "not a CSR matrix"),
        ({"data": np.full(5, np.nan)}, "not finite"),
        ({"data": np.full(5, np.inf, np.float16)}, "not finite"),
        ({"data": np.full(5, 1e300)}, "not finite"),
        ({"data": -VECTORS.weights}, "not finite and positive"),
        ({"indices": np.full(5, 2**63 + 5, np.uint64)}, "outside the vocabulary"),
        ({"indices": np.full(5, -1)}, "outside the vocabulary"),
        ({"indices": np.full(5, 1)}, "not ascending and unique"),
        ({"format": np.array([], "S3")}, "not a CSR matrix"),
        ({"doc_ids": np.array([1.5, 2, 3])}, "an id must be text"),
        ({"doc_ids": np.array([b"a", b"b", b"c"])}, "an id must be text"),
        ({"doc_ids": np.array(["a", "", "c"])}, "the id is empty"),
        ({"doc_ids": np.array(["a", "b\x07x", "c"])}, "control character"),
        ({"doc_ids": np.array(["2020-01-01"] * 3, "datetime64[D]")}, "an id must be text"),
        ({"doc_ids": np.zeros(3, [("a", "i4"), ("b", "f4")])}, "an id must be text"),
        ({"doc_ids": np.array(["a", {}, "c"], object)}, "not a whole .npz file"),
    ],
)
def test_arrays_that_cannot_be(tmp_path, changes, message):
    refused(npz(tmp_path / "v.npz", **changes), message)


def test_numbers_of_any_kind_mean_the_same(tmp_path):
    expected = read(npz(tmp_path / "v.npz"))
    for kinds in (("<u8", "<u4", "<f8"), (">i8", ">i4", ">f4"), ("<i4", "<i2", "<f4")):
        arrays = {
            name: getattr(VECTORS, own).astype(kind)
            for name, own, kind in zip(
                ("indptr", "indices", "data"), ("indptr", "term_ids", "weights"), kinds, strict=True
            )
        }
        assert read(npz(tmp_path / "w.npz", **arrays)) == expected


def header(shape, descr="<f4"):
    """An array's header without the array."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}".encode()
    text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "member",
    [
        header((10**15,)),
        header((-5,)),
        header((2**63, 2**63)),
        header((5,), "zzz"),
        header((5,), "__import__('os').abort()"),
        b"\x93NUMPY\x02\x00" + (9000).to_bytes(4, "little") + b"(" * 9000,
        b"\x93NUMPY\x09\x00",
        b"no array",
        b"",
    ],
)
def test_members_of_an_archive_that_are_no_arrays(tmp_path, member):
    npz(tmp_path / "v.npz", data=None)
    with zipfile.ZipFile(tmp_path / "v.npz", "a") as archive:
        archive.writestr("data.npy", member)
    refused(tmp_path / "v.npz", "not a whole .npz file")


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_a_flipped_byte_is_found_or_means_nothing(tmp_path, form):
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra: pip install .[parquet]")
    path = tmp_path / f"v.{form}"
    FORMS[form].write(path, IDS, VECTORS, TOKENS)
    content, expected = path.read_bytes(), read(path)
    random, n_refused = np.random.default_rng(0), 0
    for place in random.integers(len(content), size=150).tolist():
        path.write_bytes(
            content[:place] + bytes([content[place] ^ int(random.integers(1, 256))]) + content[place + 1 :]
        )
        try:
            assert read(path) == expected
        except DataError:
            n_refused += 1
    assert n_refused > 50


def test_an_array_alone_and_files_that_are_cut(tmp_path):
    with open(tmp_path / "v.npz", "wb") as file:
        np.save(file, np.arange(3))
    refused(tmp_path / "v.npz", "not a whole .npz file")
    content = npz(tmp_path / "w.npz").read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 5):
        (tmp_path / "v.npz").write_bytes(content[:size])
        refused(tmp_path / "v.npz", "not a whole .npz file")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "vector": {"cat": 1%s}}' % ("0" * 400), "a weight must be a number that float32 can hold"),
        ('{"id": "a", "vector": {"cat": 1%s}}' % ("0" * 5000), "too many digits"),
        ('{"id": "a", "vector": {"cat": 1e39}}', "a weight must be a number that float32 can hold"),
        ('{"id": "a", "vector": {"cat": NaN}}', "a weight must be a number"),
        ('{"id": "a", "vector": {"cat": -1}}', "not finite and positive"),
        ('{"id": "a", "vector": {"cat": [1]}}', "a weight must be a number"),
        ('{"id": "a", "vector": {"cat": 1, "cat": 2}}', "the key 'cat' occurs twice"),
        ('{"id": "a", "id": "b", "vector": {"cat": 1}}', "the key 'id' occurs twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"id": null, "vector": {"cat": 1}}', "an id must be text|a vector is"),
        ('{"id": 1.0, "vector": {"cat": 1}}', "an id must be text"),
        ('{"id": "\\ud800", "vector": {"cat": 1}}', "surrogate"),
        ('{"id": "a", "vector": {"\\ud800": 1}}', "not in the vocabulary"),
        ('{"id": "a", "vector": [1]}', "a vector is"),
        (b'{"id": "\xe9", "vector": {"cat": 1}}', "not UTF-8"),
        (b"\x00" * 50, "not JSON"),
    ],
)
def test_lines_that_cannot_be(tmp_path, line, message):
    path = tmp_path / "v.jsonl"
    path.write_bytes(line if isinstance(line, bytes) else line.encode())
    refused(path, message)


def test_compressed_lines(tmp_path):
    path, content = tmp_path / "v.jsonl.gz", b'{"id": "a", "vector": {"cat": 1}}\n'
    path.write_bytes(gzip.compress(content)[:-5])
    refused(path, "damaged or truncated gzip")
    path.write_bytes(content)  # by its name only
    assert read(path)[0] == ["a"]
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + content))
    assert read(path)[0] == ["a"]


def test_columns_that_cannot_be(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs the extra: pip install .[parquet]")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {"doc_id": pa.array(["a"]), "term_ids": pa.array([[1]], pa.list_(pa.int32()))}
    columns["weights"] = pa.array([[1.0]], pa.list_(pa.float32()))
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff"))
    twice = pa.Table.from_arrays([*columns.values(), columns["weights"]], [*columns, "weights"])
    big = pa.array([[2**63 + 1]], pa.list_(pa.uint64()))
    for changes, message in (
        (twice, "not a whole Parquet file|columns"),
        ({"doc_id": broken}, "not a whole Parquet file"),
        ({"doc_id": pa.array([b"\xff"], pa.binary())}, "vectors have the columns"),
        ({"term_ids": big}, "outside the vocabulary"),
        ({"weights": pa.array([[float("nan")]], pa.list_(pa.float64()))}, "not finite"),
        ({"weights": pa.array([{"x": 1}])}, "vectors have the columns"),
        ({"weights": pa.array([None], pa.list_(pa.float32()))}, "no value"),
    ):
        table = changes if isinstance(changes, pa.Table) else pa.table(columns | changes)
        pq.write_table(table, tmp_path / "v.parquet")
        refused(tmp_path / "v.parquet", message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_docs": 10**9}, "parts are missing, such as part-00001.jsonl of 1000000000"),
        ({"n_docs": 10**400}, "not what splade.encode writes"),
        ({"n_docs": True}, "not what splade.encode writes"),
        ({"part_size": 0}, "not what splade.encode writes"),
        ({"max_length": "x"}, "not what splade.encode writes"),
        ({"form": ["jsonl"]}, "not what splade.encode writes"),
        ({"form": "../x"}, "not what splade.encode writes"),
        ({"fingerprint": []}, "not what splade.encode writes"),
        ({"more": 1}, "not what splade.encode writes"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "must be a JSON object"),
        ('{"n_docs": 1%s}' % ("0" * 6000), "too many digits"),
    ],
)
def test_manifests_that_cannot_be(tmp_path, changes, message):
    (tmp_path / "part-00000.jsonl").write_text('{"id": "a", "vector": {"cat": 1}}\n')
    text = changes if isinstance(changes, str) else json.dumps(MANIFEST | changes)
    (tmp_path / "vectors.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_other_vectors_are_replaced_however_many_parts_are_claimed(tmp_path):
    (tmp_path / "vectors.json").write_text(json.dumps(MANIFEST | {"n_docs": 10**9}))
    (tmp_path / "part-00000.jsonl").write_text("{}")
    (tmp_path / "mine.txt").write_text("stays")
    begin(tmp_path, Manifest(**MANIFEST), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "vectors.json"]


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="a pipe"):
        read(tmp_path)
    (tmp_path / "a.jsonl").unlink()
    os.symlink("/nowhere", tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path)
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(DataError):
        read(tmp_path)


def test_an_encrypted_archive_is_told(tmp_path):
    content = bytearray(npz(tmp_path / "v.npz").read_bytes())
    for mark, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + flag] |= 1
    (tmp_path / "v.npz").write_bytes(content)
    refused(tmp_path / "v.npz", "encrypted")
    assert io.BytesIO(content).read(2) == b"PK"
