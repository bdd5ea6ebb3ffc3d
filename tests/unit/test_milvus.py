"""Milvus as the place of the vectors: what it finds is what the index finds; mistakes show within seconds."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

import splade
from splade.config.cluster import MilvusConfig
from splade.errors import ConfigError, IndexFileError
from splade.inverted_index import ShardedIndex, open_index
from splade.retrieval import milvus
from splade.retrieval.collection_index import Index
from splade.retrieval.milvus import MilvusCollection, MilvusRetriever

needs_milvus = pytest.mark.skipif(
    not (find_spec("pymilvus") and find_spec("milvus_lite")),
    reason="Milvus is not installed: pip install 'splade[milvus]'",
)
WORDS = "cat dog bird fish sits runs flies swims on the a red green house tree lake".split()
TEXTS = {f"d{i}": " ".join(WORDS[i * k % 16] for k in range(1, 4 + i % 5)) for i in range(40)} | {"empty": ""}


@pytest.fixture(scope="module")
def model(tiny_model):
    return splade.load(tiny_model(), max_length=16)


@pytest.fixture(scope="module")
def index(model, tmp_path_factory):
    return Index.build(tmp_path_factory.mktemp("index"), model, list(TEXTS.items()))


@needs_milvus
def test_milvus(model, index, tmp_path, monkeypatch):
    keys, sent = MilvusConfig(batch_size=15), []
    upsert = milvus_client().upsert

    def counted(self, name, data, **more):
        if len(sent) == 1 and sent[0] is not None:
            sent.append(None)
            raise ConnectionError("the connection is lost")
        sent.append([row["doc_id"] for row in data])
        return upsert(self, name, data, **more)

    monkeypatch.setattr(milvus_client(), "upsert", counted)
    with pytest.raises(ConfigError, match="the connection is lost.*the same command goes on where it was"):
        MilvusCollection.filled(index.postings, keys, tmp_path, overwrite=False)
    collection = MilvusCollection.filled(index.postings, keys, tmp_path, overwrite=False)
    ids = index.postings.doc_ids()[:-1]  # the last one is empty
    assert sent == [ids[:15], None, ids[:15], ids[15:30], ids[30:]]
    again = MilvusCollection.filled(index.postings, keys, tmp_path, overwrite=False)
    assert len(sent) == 5  # nothing was sent

    retriever = MilvusRetriever(model, index, again)
    queries = {"q1": "cat", "q2": "a red fish swims", "q3": TEXTS["d7"]}
    found = dict(retriever.retrieve(queries, top_k=10))
    exact = dict(splade.Retriever(model, index).retrieve(queries, top_k=10))
    for query_id, ranking in exact.items():
        np.testing.assert_allclose(list(found[query_id].values()), list(ranking.values()), rtol=1e-5)
    assert retriever.costs().search == "approximate" and retriever.costs().overlap_at_10 > 0.9

    other = Index.build(tmp_path / "other", model, [("x", "one other document")])
    with pytest.raises(IndexFileError, match=r"the collection 'splade' of .* holds vectors of .*overwrite=true"):
        MilvusCollection.filled(other.postings, keys, tmp_path, overwrite=False)
    replaced = MilvusCollection.filled(other.postings, keys, tmp_path, overwrite=True)
    assert [ids for ids, _ in replaced.search(model.encode_queries(["one"]), 5)] == [["x"]]
    collection._client.drop_collection("splade")
    with pytest.raises(ConfigError, match="does not do what was asked"):
        list(replaced.search(model.encode_queries(["one"]), 5))


def milvus_client():
    return milvus.milvus_library().MilvusClient


def test_documents_of_shards_are_sent_once_and_in_order(model, tmp_path):
    files = []
    for number, (start, stop) in enumerate([(0, 17), (17, 19), (19, 41)]):
        part = Index.build(tmp_path / str(number), model, list(TEXTS.items())[start:stop])
        files.append(part.postings.path)
    sharded = ShardedIndex(tmp_path, [open_index(file) for file in files], {})
    there = [number for number in range(41) if len(sharded.vector(number)[0])]
    for skip in (0, 5, 17, 18, 30, len(there)):
        groups = list(milvus._batches(sharded, skip, size=6))
        assert [doc_id for ids, _ in groups for doc_id in ids] == [list(TEXTS)[number] for number in there[skip:]]
        vectors = [row[0].tolist() for _, some in groups for row in some]
        assert vectors == [sharded.vector(number)[0].tolist() for number in there[skip:]]


@needs_milvus
@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "nonsense"])
def test_nothing_answers(index, tmp_path, uri):
    with pytest.raises(ConfigError, match=f"milvus.uri={uri}: Milvus at {uri} cannot be reached"):
        MilvusCollection.filled(index.postings, MilvusConfig(uri=uri, timeout=3), tmp_path, overwrite=False)


def test_milvus_is_not_installed(index, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ConfigError, match=r"retriever=milvus needs pymilvus: pip install 'splade\[milvus\]'"):
        MilvusCollection.filled(index.postings, MilvusConfig(), tmp_path, overwrite=False)
