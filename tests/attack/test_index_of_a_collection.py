"""An index and the collection it was made of: another content is another index, an older version is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import splade
from splade.errors import DataError, IndexFileError
from splade.inverted_index import IndexBuilder
from splade.retrieval import collection_index
from splade.vectors import SparseVectors


def test_an_index_of_an_earlier_version_is_refused_with_the_reason(tmp_path: Path) -> None:
    metadata = {"source": "/data/raw.tsv 0123456789abcdef", "fingerprint": {}, "max_length": 64, "model": "m"}
    builder = IndexBuilder(tmp_path, 2, metadata)
    builder.add(["d"], SparseVectors.from_dense(np.ones((1, 2))))
    builder.finish()
    wanted = metadata | {"source": "/data/raw.tsv sha256:" + "0" * 32}
    with pytest.raises(IndexFileError, match="an earlier version wrote it without reading the whole collection"):
        collection_index.finished_index(tmp_path, wanted, overwrite=False)
    assert collection_index.finished_index(tmp_path, wanted, overwrite=True) is False


def test_a_collection_edited_in_its_middle_is_another_one(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model = splade.load(tiny_model())
    path = tmp_path / "raw.tsv"
    path.write_text("d1\tone\nd2\ttwo\nd3\tsix\n")
    splade.Index.build(tmp_path / "index", model, path)
    splade.Index.build(tmp_path / "index", model, path)
    path.write_text("d1\tone\nd2\tten\nd3\tsix\n")
    with pytest.raises(IndexFileError, match="this is another one"):
        splade.Index.build(tmp_path / "index", model, path)


def test_a_collection_that_changes_while_it_is_indexed(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "raw.tsv"
    path.write_text("d1\tone\nd2\ttwo\n")
    encode = collection_index._encode_into

    def encode_and_change(*arguments: object) -> None:
        encode(*arguments)  # type: ignore[arg-type]
        path.write_text("d1\tone\nd2\tten\n")

    monkeypatch.setattr(collection_index, "_encode_into", encode_and_change)
    with pytest.raises(DataError, match="changed while it was indexed"):
        splade.Index.build(tmp_path / "index", splade.load(tiny_model()), path)
    assert not (tmp_path / "index" / "index.h5").exists()
