"""The lexical baseline."""

import math
import sys

import pytest

from splade.errors import ConfigError, DataError
from splade.retrieval.bm25 import Bm25, Bm25Settings

CORPUS = [
    ("d1", "The cat sat."),
    ("d2", "Dogs bark at cats and cats"),
    ("d3", ""),
    ("d4", "Four kittens purr loudly"),
]


def test_scores_follow_lucenes_formula() -> None:
    settings = Bm25Settings(k1=0.9, b=0.4, stemmer=None)
    run = Bm25.build([("a", "red red fish"), ("b", "blue fish"), ("c", "green")], settings).search({"q": "red fish"})

    def weight(tf: int, length: int, df: int) -> float:
        idf = math.log(1 + (3 - df + 0.5) / (df + 0.5))
        return idf * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * length / 2))

    assert run["q"] == pytest.approx({"a": weight(2, 3, 1) + weight(1, 3, 2), "b": weight(1, 2, 2)}, rel=1e-5)


def test_words_are_stemmed_and_stop_words_dropped() -> None:
    index = Bm25.build(CORPUS)
    assert list(index.search({"q": "the CAT"})["q"]) == ["d2", "d1"]
    unstemmed = Bm25.build(CORPUS, Bm25Settings(stemmer=None))
    assert list(unstemmed.search({"q": "the CAT"})["q"]) == ["d1"]


def test_queries_that_match_nothing_are_there_and_empty() -> None:
    run = Bm25.build(CORPUS).search({"stop": "the", "foreign": "zebra", "empty": "", "hit": "dog zebra"}, top_k=100)
    assert {query_id: list(documents) for query_id, documents in run.items()} == {
        "stop": [],
        "foreign": [],
        "empty": [],
        "hit": ["d2"],
    }
    assert Bm25.build(CORPUS).search({}) == {}


def test_top_k() -> None:
    assert len(Bm25.build(CORPUS).search({"q": "cat dog purr"}, top_k=2)["q"]) == 2


def test_costs() -> None:
    costs = Bm25.build(CORPUS).costs({"q1": "cat cat", "q2": "dog zebra"})
    assert costs["L0_d"] == pytest.approx((2 + 3 + 0 + 4) / 4)
    assert costs["L0_q"] == 1.0
    assert costs["flops"] == pytest.approx(0.5 * 2 / 4 + 0.5 * 1 / 4)
    assert costs["index_bytes"] > 0


def test_wrong_input(monkeypatch) -> None:
    with pytest.raises(DataError, match="none of the 2 documents"):
        Bm25.build([("a", ""), ("b", "the")])
    with pytest.raises(DataError, match="none of the 0"):
        Bm25.build([])
    with pytest.raises(ConfigError, match="no stemmer for 'klingon'"):
        Bm25.build(CORPUS, Bm25Settings(stemmer="klingon"))
    with pytest.raises(ConfigError, match="cannot analyse"):
        Bm25.build(CORPUS, Bm25Settings(stopwords="klingon"))
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(ConfigError, match="pip install bm25s PyStemmer"):
        Bm25.build(CORPUS)
