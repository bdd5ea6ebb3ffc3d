"""`ir_datasets:<id>` in place of files, with the real library and a data set registered for the test."""

import pytest

from splade.datasets.collections import open_collection, open_queries
from splade.datasets.qrels import read_qrels
from splade.datasets.triplets import open_triplets
from splade.errors import DataError
from splade.storage import line_index

ir_datasets = pytest.importorskip("ir_datasets")
formats = ir_datasets.formats


class Docs(formats.BaseDocs):
    def docs_iter(self):
        yield formats.TitleUrlTextDoc("d1", "Title", "http://x", "body\nsecond line")
        yield formats.TitleUrlTextDoc("d2", "Other", "http://y", "text\u2028more")

    def docs_cls(self):
        return formats.TitleUrlTextDoc


class Queries(formats.BaseQueries):
    def queries_iter(self):
        yield formats.GenericQuery("q1", "what")

    def queries_cls(self):
        return formats.GenericQuery


class Qrels(formats.BaseQrels):
    def qrels_iter(self):
        yield formats.TrecQrel("q1", "d2", 2, "0")

    def qrels_cls(self):
        return formats.TrecQrel

    def qrels_defs(self):
        return {2: "relevant"}


class DocPairs(formats.BaseDocPairs):
    def docpairs_iter(self):
        yield formats.GenericDocPair("q1", "d2", "d1")

    def docpairs_cls(self):
        return formats.GenericDocPair


@pytest.fixture(autouse=True)
def registered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    datasets = {
        "splade-test": ir_datasets.Dataset(Docs(), Queries(), Qrels(), DocPairs()),
        "splade-test/docs": ir_datasets.Dataset(Docs()),
    }
    registry = ir_datasets.registry
    monkeypatch.setattr(registry, "_registered", registry._registered | datasets)


def test_collection_and_queries(tmp_path):
    collection = open_collection("ir_datasets:splade-test")
    texts = [text for _, text in collection]
    assert [doc_id for doc_id, _ in collection] == ["d1", "d2"]
    assert "Title" in texts[0] and "body\nsecond line" in texts[0] and "text\u2028more" in texts[1]
    assert list((tmp_path / "splade" / "ir_datasets").iterdir()) == []
    assert collection.text("d2") == texts[1] and collection[0] == ("d1", texts[0]) and len(collection) == 2
    assert list(open_queries("ir_datasets:splade-test")) == [("q1", "what")]


def test_records_are_copied_once(monkeypatch):
    text = open_collection("ir_datasets:splade-test").text("d1")
    monkeypatch.setattr(line_index, "_scan", None)
    assert open_collection("ir_datasets:splade-test").text("d1") == text


def test_qrels_and_pairs():
    assert read_qrels("ir_datasets:splade-test") == {"q1": {"d2": 2}}
    triplets = open_triplets("ir_datasets:splade-test")
    collection = open_collection("ir_datasets:splade-test")
    assert len(triplets) == triplets.report.n_examples == 1
    example = triplets.example(0)
    assert example.query == "what"
    assert (example.positive, example.negatives) == (collection.text("d2"), [collection.text("d1")])


def test_unknown_data_set_and_missing_part():
    with pytest.raises(DataError, match="no data set of this id"):
        open_collection("ir_datasets:no-such-data-set")
    with pytest.raises(DataError, match="has no queries; it has docs"):
        open_queries("ir_datasets:splade-test/docs")


def test_library_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ir_datasets", None)
    with pytest.raises(DataError, match="pip install ir_datasets"):
        open_collection("ir_datasets:splade-test")
