"""Files of an object store are copied once, again when they have changed, and named when they are not there."""

import os

import pytest

from splade.datasets.collections import open_collection, open_queries
from splade.errors import DataError
from splade.storage import object_store

pytest.importorskip("pyarrow", reason="object stores need pyarrow: pip install 'splade[parquet]'")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "user_cache", lambda: tmp_path / "cache")
    (tmp_path / "bucket" / "docs").mkdir(parents=True)
    (tmp_path / "bucket" / "docs" / "raw.tsv").write_text("d1\tone\nd2\ttwo\n")
    return tmp_path / "bucket"


def copies(tmp_path):
    return {path.name: path.stat().st_ino for path in (tmp_path / "cache").rglob("*.*") if path.name != "copied.json"}


def test_a_folder_and_a_file(store, tmp_path):
    for uri in (f"file://{store}/docs", f"file://{store}/docs/raw.tsv"):
        assert list(open_collection(uri)) == [("d1", "one"), ("d2", "two")]
    before = copies(tmp_path)
    assert list(open_queries(f"file://{store}/docs/raw.tsv"))[1] == ("d2", "two")
    assert copies(tmp_path) == before  # not copied again


def test_what_has_changed_or_gone(store, tmp_path):
    file = store / "docs" / "raw.tsv"
    open_collection(f"file://{store}/docs")
    file.write_text("d1\tone\nd2\tTWO\n")
    os.utime(file, ns=(1, 1))
    assert open_collection(f"file://{store}/docs").text("d2") == "TWO"
    file.rename(store / "docs" / "corpus.jsonl")
    (store / "docs" / "corpus.jsonl").write_text('{"_id": "d3", "text": "three"}\n')
    assert list(open_collection(f"file://{store}/docs")) == [("d3", "three")]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///nowhere/at/all.tsv", "nothing is there"),
        ("ftp://host/file", "allowed are pkg://, s3://"),
        ("s3://", "cannot be read"),
    ],
)
def test_what_cannot_be_read(store, uri, message):
    with pytest.raises(DataError, match=message):
        open_collection(uri)
