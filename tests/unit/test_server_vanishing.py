"""Whatever happens to the files under a running server: it goes on answering, and says what is wrong."""

import json
import logging
import shutil
import sys

import pytest
from test_server import TEXTS, Running

import splade
from splade.errors import ConfigError, DataError
from splade.inverted_index.layout import INDEX_FILE, SHARDS_FILE
from splade.server.app import Server
from splade.server.requests import ExplainRequest, SearchRequest
from splade.server.service import SearchService
from splade.tasks.serve import served_folders

ASKED = SearchRequest("why is the sky blue", explain=True)


@pytest.fixture
def service(tiny_model, tmp_path):
    """Serves an index in tmp_path of a model in tmp_path."""
    shutil.copytree(tiny_model(), tmp_path / "model")
    model = splade.load(str(tmp_path / "model"))
    splade.Index.build(tmp_path / "index", model, TEXTS.items())
    return SearchService(model, tmp_path / "index")


def hits(service):
    answer = service.search_many([ASKED])[0]
    return [(hit["doc_id"], hit["score"]) for hit in answer["hits"]]


def damage(path):
    with open(path, "r+b") as file:  # in place, as cp does
        file.truncate(100)


@pytest.mark.parametrize("how", [damage, lambda path: path.unlink(), lambda path: path.rename(path.with_name("other"))])
def test_a_model_that_changes_or_goes_was_loaded_as_a_whole(service, tmp_path, how):
    expected = hits(service)
    how(tmp_path / "model" / "model.safetensors")
    assert hits(service) == expected
    shutil.rmtree(tmp_path / "model")
    assert hits(service) == expected and service.health()["status"] == "ok"
    assert service.explain(ExplainRequest("the sky", "d1", None))["terms"] and service.document_vectors(["air"])
    splade.Index.open(tmp_path / "index", service.model).delete(["d1"])
    assert service.reload() and service.health()["documents"] == len(TEXTS) - 1


def test_a_folder_that_goes_and_comes_back(service, tmp_path):
    expected = hits(service)
    folder, elsewhere = tmp_path / "index", tmp_path / "elsewhere"
    folder.rename(elsewhere)
    assert not service.reload() and hits(service) == expected
    assert "No such file" in service.problem and "opened before" in service.problem
    folder.mkdir()
    (folder / SHARDS_FILE).write_text("{")
    assert not service.reload() and SHARDS_FILE in service.problem and hits(service) == expected
    shutil.rmtree(folder)
    elsewhere.rename(folder)
    assert not service.reload() and service.health()["status"] == "ok" and hits(service) == expected


def test_an_index_of_another_model_in_its_place_is_not_taken(service, tiny_model, tmp_path):
    expected = hits(service)
    splade.Index.build(tmp_path / "other", splade.load(str(tiny_model(seed=1))), TEXTS.items())
    (tmp_path / "other" / INDEX_FILE).replace(tmp_path / "index" / INDEX_FILE)
    assert not service.reload() and hits(service) == expected
    assert "not the same as" in service.problem and service.health()["status"] == "degraded"


@pytest.mark.parametrize("error", [DataError("raw.tsv: changed while it was in use"), OSError(5, "Input/output error")])
def test_texts_that_cannot_be_read_are_left_out(service, tmp_path, error):
    expected = hits(service)

    class Gone:
        def get(self, doc_id):
            raise error

    found = SearchService(service.model, tmp_path / "index", lambda _retriever: Gone())
    assert hits(found) == expected and str(error) in found.problem
    assert "text" not in found.search_many([ASKED])[0]["hits"][0]
    assert found.explain(ExplainRequest("the sky", "d1", None))["terms"]


def test_texts_are_those_of_the_index_that_is_searched(service, tmp_path):
    class Lengths:
        def __init__(self, retriever):
            self.n_docs = len(retriever.index)

        def get(self, doc_id):
            return f"{doc_id} of {self.n_docs}"

    found = SearchService(service.model, tmp_path / "index", Lengths)
    assert found.search_many([ASKED])[0]["hits"][0]["text"].endswith(f" of {len(TEXTS)}")
    splade.Index.open(tmp_path / "index", service.model).delete(["d1"])
    assert found.reload()
    assert found.search_many([ASKED])[0]["hits"][0]["text"].endswith(f" of {len(TEXTS) - 1}")


def test_a_full_disk_for_logs_does_no_harm(service, monkeypatch):
    running = Running(Server({"index": service}))
    monkeypatch.setattr(service, "explain", lambda _request: 1 / 0)
    with open("/dev/full", "w") as full:
        handler = logging.StreamHandler(full)
        logging.getLogger("splade").addHandler(handler)
        monkeypatch.setattr(sys, "stderr", full)
        try:
            assert running.post("/explain", query="air", text="air")[0] == 500
            assert running.post("/search", query="air")[0] == 200
        finally:
            monkeypatch.undo()
            logging.getLogger("splade").removeHandler(handler)
            running.stop()
            full.buffer.raw.close()  # what could not be written is not tried once more


def test_several_models_are_asked_by_name(service, tiny_model, tmp_path):
    other = splade.load(str(tiny_model(seed=1)))
    splade.Index.build(tmp_path / "other", other, list(TEXTS.items())[:30])
    second = SearchService(other, tmp_path / "other")
    running = Running(Server({"one": service, "two": second}))
    try:
        for name, asked in (("one", service), ("two", second)):
            _, found = running.post("/search", query=ASKED.query, explain=True, model=name)
            assert [(hit["doc_id"], hit["score"]) for hit in found["hits"]] == hits(asked)
            assert running.ask("GET", f"/search?q=air&model={name}")[1]["documents"] == len(asked.retriever.index)
            _, told = running.post("/explain", query="air", text="air", model=name)
            assert told["score"] == asked.explain(ExplainRequest("air", None, "air"))["score"]
            _, rows = running.post("/embed_sparse", inputs="air", model=name)
            assert [entry["index"] for entry in rows[0]] == asked.document_vectors(["air"])[0].term_ids.tolist()
        assert running.post("/search", query="air") != running.post("/search", query="air", model="two")
        for wrong in ("three", 1, None, []):
            status, answer = running.post("/search", query="air", model=wrong)
            assert status == 400 and "must be one of one, two" in answer["error"]
        (tmp_path / "other" / INDEX_FILE).unlink()
        second.reload()
        health = running.ask("GET", "/health")[1]
        assert health["status"] == "degraded" and health["problem"].startswith("two: ")
        assert [(model["name"], model["status"]) for model in health["models"]] == [("one", "ok"), ("two", "degraded")]
        assert b'splade_documents{model="two"} 30' in running.ask("GET", "/metrics")[1]
        schema = running.ask("GET", "/openapi.json")[1]["paths"]["/search"]["post"]["requestBody"]["content"]
        assert schema["application/json"]["schema"]["properties"]["model"]["enum"] == ["one", "two"]
    finally:
        running.stop()


def test_one_index_or_name_twice_is_told():
    assert served_folders("a/index", {"pruned": "b"}) == {"index": "a/index", "pruned": "b"}
    for others in (["a/index"], ["b/index", "b/../b/index"], {"index": "b"}, {"x": "a/./index"}):
        with pytest.raises(ConfigError, match="twice"):
            served_folders("a/index", others)


def test_queries_asked_again_are_not_encoded_again(service, tmp_path, monkeypatch):
    keeping = SearchService(service.model, tmp_path / "index", kept_queries=2)
    encoded = []
    encode = keeping.model.encode_queries
    monkeypatch.setattr(keeping.model, "encode_queries", lambda texts: encoded.append(texts) or encode(texts))
    expected = json.dumps([hits(service), hits(service)])
    encoded.clear()
    assert json.dumps([hits(keeping), hits(keeping)]) == expected and encoded == [ASKED.query]
    keeping.query_vectors(["air", "sky", "air", ASKED.query])
    assert encoded[1:] == [["air", "sky"]] and keeping.queries.n_found == 2
    keeping.query_vectors(["sky"])  # of four, the last two asked are kept
    keeping.query_vectors(["air"])
    assert len(encoded) == 4
