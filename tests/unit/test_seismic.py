"""Seismic as the place of the vectors: it finds much of what the index finds, with its scores; it is built once."""

import sys

import pytest

import splade
from splade.config import compose_experiment
from splade.config.retrievers import SeismicConfig
from splade.errors import ConfigError
from splade.retrieval import seismic_search
from splade.retrieval.collection_index import Index
from splade.retrieval.seismic_search import SeismicRetriever
from splade.tasks.combined_systems import open_system

WORDS = "cat dog bird fish sits runs flies swims on the a red green house tree lake".split()
TEXTS = {f"d{i}": " ".join(WORDS[i * k % 16] for k in range(1, 4 + i % 5)) for i in range(40)} | {"empty": ""}
QUERIES = {"q1": "cat", "q2": "a red fish swims", "q3": TEXTS["d7"]}
ALL = SeismicConfig(query_cut=1000, heap_factor=1.0)


@pytest.fixture(scope="module")
def model(tiny_model):
    return splade.load(tiny_model(), max_length=16)


@pytest.fixture(scope="module")
def index(model, tmp_path_factory):
    return Index.build(tmp_path_factory.mktemp("index"), model, list(TEXTS.items()))


def test_it_finds_most_of_what_the_index_finds_and_is_built_once(model, index, tmp_path, monkeypatch):
    library = pytest.importorskip("seismic", reason="pip install 'splade[seismic]'")
    retriever = SeismicRetriever(model, index, ALL, tmp_path)
    found = dict(retriever.retrieve(QUERIES, top_k=10))
    exact = dict(splade.Retriever(model, index).retrieve(QUERIES, top_k=10))
    whole = dict(splade.Retriever(model, index).retrieve(QUERIES, top_k=50))
    for query_id, ranking in found.items():  # it may miss documents, and keeps 16 bits of a weight
        assert ranking == pytest.approx({doc_id: whole[query_id][doc_id] for doc_id in ranking}, rel=1e-2)
        assert len(ranking) == 10 and len(ranking.keys() & exact[query_id].keys()) >= 5
    costs = retriever.costs()
    assert costs.model.endswith("in Seismic") and retriever.kind_of_search == "approximate"

    with monkeypatch.context() as patch:
        patch.setattr(library.SeismicIndex, "build_from_dataset", None)
        again = dict(SeismicRetriever(model, index, ALL, tmp_path).retrieve(QUERIES, top_k=10))
    assert again == found
    (tmp_path / "seismic" / "built_from.json").write_text("{")  # killed before it was whole
    assert dict(SeismicRetriever(model, index, ALL, tmp_path).retrieve(QUERIES, top_k=10)).keys() == found.keys()
    other = Index.build(tmp_path / "other", model, list(TEXTS.items())[:5])
    few = dict(SeismicRetriever(model, other, ALL, tmp_path).retrieve(QUERIES, top_k=10))
    assert set().union(*few.values()) <= set(list(TEXTS)[:5])  # not what was built of the first index


def test_seismic_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "seismic", None)
    with pytest.raises(ConfigError, match=r"needs pyseismic-lsr: pip install 'splade\[seismic\]'"):
        seismic_search.seismic_library()
    with pytest.raises(ConfigError, match="pyseismic-lsr"):
        open_system(compose_experiment("config_default", ["retriever=seismic"]), {})
