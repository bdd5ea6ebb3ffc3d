"""The lexical baseline."""

import math
import sys

import pytest

from splade.config.schema import Bm25Config
from splade.errors import ConfigError, DataError
from splade.retrieval.bm25 import Bm25Retriever

CORPUS = [
    ("d1", "The cat sat."),
    ("d2", "Dogs bark at cats and cats"),
    ("d3", ""),
    ("d4", "Four kittens purr loudly"),
]


def ranking(bm25: Bm25Retriever, text: str, top_k: int = 10) -> dict[str, float]:
    return dict(bm25.retrieve({"q": text}, top_k))["q"]


def test_scores_follow_lucenes_formula() -> None:
    settings = Bm25Config(k1=0.9, b=0.4, stemmer=None)
    bm25 = Bm25Retriever([("a", "red red fish"), ("b", "blue fish"), ("c", "green")], settings)
    run = dict(bm25.retrieve({"q": "red fish"}, 10))

    def weight(tf: int, length: int, df: int) -> float:
        idf = math.log(1 + (3 - df + 0.5) / (df + 0.5))
        return idf * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * length / 2))

    assert run["q"] == pytest.approx({"a": weight(2, 3, 1) + weight(1, 3, 2), "b": weight(1, 2, 2)}, rel=1e-5)


def test_words_are_stemmed_and_stop_words_dropped() -> None:
    index = Bm25Retriever(CORPUS)
    assert list(ranking(index, "the CAT")) == ["d2", "d1"]
    unstemmed = Bm25Retriever(CORPUS, Bm25Config(stemmer=None))
    assert list(ranking(unstemmed, "the CAT")) == ["d1"]


def test_queries_that_match_nothing_are_there_and_empty() -> None:
    queries = {"stop": "the", "foreign": "zebra", "empty": "", "hit": "dog zebra"}
    run = dict(Bm25Retriever(CORPUS).retrieve(queries, top_k=100))
    assert {query_id: list(documents) for query_id, documents in run.items()} == {
        "stop": [],
        "foreign": [],
        "empty": [],
        "hit": ["d2"],
    }
    assert dict(Bm25Retriever(CORPUS).retrieve({}, top_k=10)) == {}


def test_top_k() -> None:
    assert len(ranking(Bm25Retriever(CORPUS), "cat dog purr", top_k=2)) == 2


def test_costs() -> None:
    bm25 = Bm25Retriever(CORPUS)
    assert list(dict(bm25.retrieve({"q1": "cat cat", "q2": "dog zebra"}, top_k=10))) == ["q1", "q2"]
    costs = bm25.costs()
    assert costs.L0_d == pytest.approx((2 + 3 + 0 + 4) / 4)
    assert costs.L0_q == 1.0 and costs.n_queries == 2 and costs.top_k == 10
    assert costs.flops == pytest.approx(0.5 * 2 / 4 + 0.5 * 1 / 4)
    assert costs.index_bytes is not None and costs.index_bytes > 0


def test_wrong_input(monkeypatch) -> None:
    with pytest.raises(DataError, match="none of the 2 documents"):
        Bm25Retriever([("a", ""), ("b", "the")])
    with pytest.raises(DataError, match="none of the 0"):
        Bm25Retriever([])
    with pytest.raises(ConfigError, match="no stemmer for 'klingon'"):
        Bm25Retriever(CORPUS, Bm25Config(stemmer="klingon"))
    with pytest.raises(ConfigError, match="cannot analyse"):
        Bm25Retriever(CORPUS, Bm25Config(stopwords="klingon"))
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(ConfigError, match="pip install bm25s PyStemmer"):
        Bm25Retriever(CORPUS)
