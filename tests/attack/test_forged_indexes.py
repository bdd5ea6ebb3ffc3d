"""Indexes and segments whose content is impossible under a right checksum: refused, never followed, never searched."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from splade.errors import DataError, IndexFileError
from splade.inverted_index import IndexBuilder, InvertedIndex, delete_documents
from splade.inverted_index.layout import WINDOW_BITS
from splade.storage import arrays
from splade.vectors import SparseVectors

VOCAB, N_DOCS = 6, (1 << WINDOW_BITS) + 40  # two windows
Change = Callable[[h5py.File], object]


def vectors() -> SparseVectors:
    """Few documents with terms, at the ends of the windows."""
    dense = np.zeros((N_DOCS, VOCAB), np.float32)
    rng = np.random.default_rng(0)
    for doc in [*range(5), *range((1 << WINDOW_BITS) - 3, (1 << WINDOW_BITS) + 5), N_DOCS - 1]:
        dense[doc] = rng.random(VOCAB) * (rng.random(VOCAB) < 0.7)
    dense[:, VOCAB - 1] = 0  # a term without postings
    dense[0] = 0
    return SparseVectors.from_dense(dense)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("made")
    builder = IndexBuilder(folder, VOCAB, {"model": "m"})
    builder.add([f"é{i}" for i in range(N_DOCS)], vectors())
    builder.finish()
    return (folder / "index.h5").read_bytes()


def forge(path: Path, change: Change) -> None:
    """Change a file of arrays and give it the right checksum."""
    with h5py.File(path, "r+") as file:
        change(file)
    with open(path, "rb+", buffering=0) as stream:
        right = arrays._seal(stream)
        stream.seek(0)
        stream.write(right)


def put(name: str, position: int | slice, value: object) -> Change:
    return lambda file: file[name].__setitem__(position, value)


def add(name: str, position: int, value: int) -> Change:
    return lambda file: file[name].__setitem__(position, file[name][position] + value)


def swap(name: str, one: int, other: int) -> Change:
    def change(file: h5py.File) -> None:
        values = file[name][:]
        values[[one, other]] = values[[other, one]]
        file[name][:] = values

    return change


def more(file: h5py.File, name: str, value: int) -> None:
    replaced(name, np.append(file[name], value))(file)


def attribute(name: str, value: object) -> Change:
    return lambda file: file.attrs.pop(name) if value is None else file.attrs.__setitem__(name, value)


def both(*changes: Change) -> Change:
    return lambda file: [change(file) for change in changes]


def replaced(name: str, values: np.ndarray) -> Change:
    return lambda file: (file.pop(name), file.create_dataset(name, data=values))


FORGERIES: dict[str, Change] = {
    "a block begins beyond the file": put("block_postings", 1, 1 << 50),
    "the last block ends beyond the file": put("block_postings", -1, 1 << 50),
    "a block begins before the file": put("block_postings", 0, -1),
    "an empty block": lambda file: file["block_postings"].__setitem__(1, file["block_postings"][2]),
    "blocks overlap": swap("block_postings", 1, 2),
    "a term's blocks begin beyond": put("term_blocks", 1, 1 << 50),
    "a term's blocks descend": swap("term_blocks", 1, 3),
    "the terms' blocks begin late": put("term_blocks", 0, 1),
    "a window beyond the documents": put("block_windows", -1, 2),
    "the greatest window": put("block_windows", -1, 65535),
    "windows descend": swap("block_windows", 0, 1),
    "the same window twice": put("block_windows", 1, 0),
    "an offset beyond the window": put("offsets", 1, 1 << WINDOW_BITS),
    "the greatest offset": put("offsets", 0, 65535),
    "an offset beyond the last document": put("offsets", -1, 40),
    "offsets descend": swap("offsets", 0, 1),
    "the same document twice": lambda file: file["offsets"].__setitem__(1, file["offsets"][0]),
    "impact 0": put("impacts", 2, 0.0),
    "impact -0": put("impacts", 2, -0.0),
    "a negative impact": put("impacts", 2, -1.0),
    "impact NaN": put("impacts", 2, np.nan),
    "impact -NaN": put("impacts", 2, -np.nan),
    "impact infinity": put("impacts", 2, np.inf),
    "an impact above its block's largest": put("impacts", 2, 9.0),
    "a largest impact of a block too small": put("block_max", 0, 1e-9),
    "a largest impact of a block too great": put("block_max", 0, 1e9),
    "a largest impact of a block NaN": put("block_max", 0, np.nan),
    "a largest impact of a term too small": put("term_max", 0, 1e-9),
    "a largest impact of a term negative": put("term_max", 0, -1),
    "a largest impact without postings": put("term_max", VOCAB - 1, 1.0),
    "infinity everywhere": both(*(put(name, 0, np.inf) for name in ("impacts", "block_max", "term_max"))),
    "NaN everywhere": both(*(put(name, 0, np.nan) for name in ("impacts", "block_max", "term_max"))),
    "an id ends beyond": put("id_ends", -1, 1 << 50),
    "an id ends before it begins": put("id_ends", 5, 0),
    "an id ends before the file": put("id_ends", 0, -1),
    "an id ends within a character": add("id_ends", 3, -1 - len("é3".encode()) + 2),
    "ids that are no text": put("id_text", 0, 0xFF),
    "a cut character": put("id_text", -1, 0xC3),
    "more terms of documents than postings": add("doc_lengths", 1, 1),
    "a negative number of terms": both(add("doc_lengths", 1, -100), add("doc_lengths", 2, 100)),
    "another number of empty documents": attribute("n_empty", 0),
    "no number of empty documents": attribute("n_empty", None),
    "no documents": attribute("n_docs", 0),
    "fewer documents": attribute("n_docs", N_DOCS - 1),
    "more documents": attribute("n_docs", N_DOCS + 1),
    "too many documents": attribute("n_docs", 1 << 40),
    "a negative number of documents": attribute("n_docs", -1),
    "no attribute n_docs": attribute("n_docs", None),
    "documents as text": attribute("n_docs", str(N_DOCS)),
    "documents as a fraction": attribute("n_docs", N_DOCS + 0.0),
    "fewer terms": attribute("vocab_size", VOCAB - 1),
    "more terms": attribute("vocab_size", VOCAB + 1),
    "no terms": attribute("vocab_size", 0),
    "no attribute vocab_size": attribute("vocab_size", None),
    "fewer postings": attribute("n_postings", 1),
    "no attribute n_postings": attribute("n_postings", None),
    "other windows": attribute("window_bits", 16),
    "no attribute window_bits": attribute("window_bits", None),
    "no metadata": attribute("metadata", None),
    "metadata that are no JSON": attribute("metadata", "{"),
    "metadata that are a list": attribute("metadata", "[]"),
    "metadata that are a number": attribute("metadata", 3),
    "metadata nested too deep": attribute("metadata", "[" * 50_000),
    "metadata with a huge number": attribute("metadata", '{"a": ' + "9" * 5000 + "}"),
    "no kind": attribute("kind", None),
    "another kind": attribute("kind", "segment"),
    "a missing array": lambda file: file.pop("term_max"),
    "an array of another type": replaced("term_max", np.ones(VOCAB)),
    "an empty array": replaced("block_windows", np.zeros(0, "<u2")),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_impossible_content_under_a_right_checksum(tmp_path: Path, made: bytes, forgery: str) -> None:
    path = tmp_path / "index.h5"
    path.write_bytes(made)
    assert InvertedIndex.open(tmp_path).n_docs == N_DOCS
    forge(path, FORGERIES[forgery])
    with pytest.raises(IndexFileError, match=str(path)):
        InvertedIndex.open(tmp_path)
    with pytest.raises(IndexFileError):
        delete_documents(tmp_path, ["é1"])


def test_whatever_one_value_is_changed_to_the_file_is_refused_or_harmless(tmp_path: Path, made: bytes) -> None:
    """Every position that search follows is checked, so what is accepted gives results, none of them of nowhere."""
    path, rng = tmp_path / "index.h5", np.random.default_rng(0)
    queries, accepted = SparseVectors.from_dense(np.ones((1, VOCAB), np.float32)), 0
    path.write_bytes(made)
    with h5py.File(path) as file:
        shapes = {name: (len(file[name]), file[name].dtype) for name in file if file[name].size}
    for name in rng.choice(sorted(shapes), 300):
        length, dtype = shapes[name]
        value = np.frombuffer(rng.bytes(8), dtype)[0] if rng.random() < 0.5 else dtype.type(rng.integers(0, 40))
        path.write_bytes(made)
        forge(path, put(name, int(rng.integers(length)), value))
        try:
            index = InvertedIndex.open(tmp_path)
        except IndexFileError:
            continue
        accepted += 1
        doc_idx, scores = index.search(queries, N_DOCS).row(0)
        assert len(index.doc_ids(doc_idx)) == len(set(doc_idx.tolist())) and np.isfinite(scores).all()
        assert name in ("id_text", "id_ends", "offsets", "impacts", "doc_lengths") or path.read_bytes() == made
    assert accepted < 100


SEGMENT_FORGERIES: dict[str, Change] = {
    "a term begins beyond the file": put("starts", 1, 1 << 50),
    "a term begins before the file": put("starts", 0, -1),
    "terms descend": put("starts", 2, 0),
    "the last term ends early": add("starts", -1, -1),
    "a document beyond the segment": put("pairs", 0, 1 << 20),
    "documents descend": lambda file: file["pairs"].__setitem__(2, 0),
    "impact NaN": put("pairs", 1, 0x7FC00000),
    "a negative impact": put("pairs", 1, 0xBF800000),
    "impact 0": put("pairs", 1, 0),
    "an odd number": replaced("pairs", np.zeros(3, "<u4")),
    "more terms than the model has": lambda file: more(file, "starts", file["pairs"].size // 2),
    "no terms": replaced("starts", np.zeros(0, "<i8")),
    "fewer documents": replaced("doc_lengths", np.zeros(1, "<i4")),
    "an id ends beyond": put("id_ends", -1, 1 << 50),
    "an id ends before it begins": put("id_ends", 1, 0),
    "no documents": both(replaced("id_ends", np.zeros(0, "<i8")), replaced("doc_lengths", np.zeros(0, "<i4"))),
    "ids that are no text": put("id_text", 0, 0xFF),
    "more terms of documents than postings": add("doc_lengths", 0, 1),
}  # fmt: skip


@pytest.mark.parametrize("forgery", SEGMENT_FORGERIES)
def test_an_impossible_segment_is_made_again(tmp_path: Path, forgery: str) -> None:
    rng = np.random.default_rng(1)
    some = SparseVectors.from_dense(rng.random((12, 4)).astype(np.float32))
    ids = [f"d{i}" for i in range(12)]

    def build(folder: Path) -> IndexBuilder:
        builder = IndexBuilder(folder, 4, segment_postings=16)
        for i in range(builder.documents_done, 12):
            builder.add([ids[i]], some.rows(i, i + 1))
        return builder

    whole = build(tmp_path / "whole").finish().path.read_bytes()
    build(tmp_path / "forged")
    segment = sorted(tmp_path.glob("forged/.build-*/*.h5"))[1]
    forge(segment, SEGMENT_FORGERIES[forgery])
    assert IndexBuilder(tmp_path / "forged", 4, segment_postings=16).documents_done == 4
    assert build(tmp_path / "forged").finish().path.read_bytes() == whole


def test_a_pipe_is_no_index(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "index.h5")
    for path in (tmp_path, tmp_path / "index.h5"):
        with pytest.raises(IndexFileError, match="no ordinary file"):
            InvertedIndex.open(path)


@pytest.mark.parametrize("name", ["index.h5", "/dev/null", "/dev/zero", "missing", "x" * 300])
def test_places_that_hold_no_index(tmp_path: Path, name: str) -> None:
    (tmp_path / "index.h5").mkdir()
    for read in (InvertedIndex.open, lambda path: delete_documents(path, ["a"])):
        with pytest.raises((IndexFileError, DataError)):
            read(tmp_path / name)
