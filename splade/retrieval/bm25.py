"""BM25 through the bm25s library: the lexical baseline, evaluated like everything else.

The settings are those of Anserini's "flat" baseline as closely as bm25s allows: Lucene's variant of BM25, k1 = 0.9,
b = 0.4, Lucene's 33 English stop words, the Snowball stemmer for English, title and text in one field. On SciFact this
gives nDCG@10 0.676 (Anserini publishes 0.679).
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from splade.errors import ConfigError, DataError
from splade.evaluation.expected_flops import flops, term_probabilities


@dataclass(frozen=True)
class Bm25Settings:
    """How texts become words and words become scores.

    Attributes:
        k1: how slowly repeated words saturate.
        b: how much long documents are penalised, 0 to 1.
        method: variant of the formula.
        stemmer: language of the Snowball stemmer, None for no stemming.
        stopwords: language whose stop words are dropped, None keeps all words.
    """

    k1: float = 0.9
    b: float = 0.4
    method: Literal["lucene", "robertson", "atire", "bm25l", "bm25+"] = "lucene"
    stemmer: str | None = "english"
    stopwords: str | None = "en"


class Bm25:
    """A BM25 index in memory.

    Example:
        >>> index = Bm25.build([("d1", "A cat sat down."), ("d2", "Dogs bark."), ("d3", "Cats purr.")])
        >>> sorted(index.search({"q": "the cats"}, top_k=10)["q"])
        ['d1', 'd3']
    """

    def __init__(self, doc_ids: Sequence[str], index: Any, analyse: "_Analyser") -> None:
        self._doc_ids = doc_ids
        self._index = index
        self._analyse = analyse

    @classmethod
    def build(cls, corpus: Iterable[tuple[str, str]], settings: Bm25Settings | None = None) -> "Bm25":
        """Index a collection.

        Args:
            corpus: (doc_id, text).
            settings: None takes the defaults.

        Raises:
            ConfigError: bm25s is not installed, or a setting is wrong.
            DataError: there is no document with a word in it.
        """
        settings = settings or Bm25Settings()
        analyse = _Analyser(settings)
        doc_ids, texts = [], []
        for doc_id, text in corpus:
            doc_ids.append(doc_id)
            texts.append(text)
        words = analyse(texts)
        if not any(words):
            raise DataError(f"BM25: none of the {len(doc_ids)} documents has a word in it that is not a stop word")
        index = _bm25s().BM25(k1=settings.k1, b=settings.b, method=settings.method)
        index.index(words, create_empty_token=False, show_progress=False)
        return cls(doc_ids, index, analyse)

    def search(self, queries: Mapping[str, str], top_k: int = 1000) -> dict[str, dict[str, float]]:
        """Return a run: for each query the `top_k` best documents with a positive score, best first."""
        words = dict(zip(queries, self._known_words(queries), strict=True))
        run: dict[str, dict[str, float]] = {query_id: {} for query_id in queries}
        asked = [query_id for query_id in queries if words[query_id]]
        if not asked:
            return run
        found, scores = self._index.retrieve(
            [words[query_id] for query_id in asked], k=min(top_k, len(self._doc_ids)), show_progress=False
        )
        for query_id, doc_idxs, of_query in zip(asked, found, scores, strict=True):
            kept = of_query > 0
            ids = (self._doc_ids[i] for i in doc_idxs[kept].tolist())
            run[query_id] = dict(zip(ids, of_query[kept].tolist(), strict=True))
        return run

    def costs(self, queries: Mapping[str, str]) -> dict[str, float]:
        """Return `L0_d`, `L0_q` (mean distinct words), `flops` and `index_bytes`, as for a learned index."""
        postings, vocabulary = self._index.scores, self._index.vocab_dict
        counts = np.diff(postings["indptr"])
        in_queries = np.zeros(len(counts))
        distinct = [set(words) for words in self._known_words(queries)]
        for word, n in Counter(word for words in distinct for word in words).items():
            in_queries[vocabulary[word]] = n
        p_query = term_probabilities(in_queries, len(distinct))
        return {
            "L0_d": float(counts.sum() / len(self._doc_ids)),
            "L0_q": float(np.mean([len(words) for words in distinct])),
            "flops": flops(p_query, term_probabilities(counts, len(self._doc_ids))),
            "index_bytes": float(sum(postings[name].nbytes for name in ("data", "indices", "indptr"))),
        }

    def _known_words(self, queries: Mapping[str, str]) -> list[list[str]]:
        """Words of each query that occur in the collection."""
        vocabulary = self._index.vocab_dict
        return [[word for word in words if word in vocabulary] for words in self._analyse(list(queries.values()))]


class _Analyser:
    """Texts to lists of stemmed words."""

    def __init__(self, settings: Bm25Settings) -> None:
        bm25s = _bm25s()
        self._tokenize = bm25s.tokenize
        self._stopwords = settings.stopwords if settings.stopwords is not None else []
        self._stemmer = None if settings.stemmer is None else _stemmer(settings.stemmer)
        try:
            self(["check"])
        except ValueError as error:
            raise ConfigError(f"BM25 cannot analyse texts with {settings}: {error}") from error

    def __call__(self, texts: Sequence[str]) -> list[list[str]]:
        if not texts:
            return []
        return self._tokenize(
            list(texts), stopwords=self._stopwords, stemmer=self._stemmer, return_ids=False, show_progress=False
        )


def library_version() -> str:
    """Return the version of bm25s.

    Raises:
        ConfigError: it is not installed.
    """
    return str(_bm25s().__version__)


def _bm25s() -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise ConfigError("BM25 needs the library bm25s: pip install bm25s PyStemmer") from error
    # It logs every step at level DEBUG and sets that level itself.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return bm25s


def _stemmer(language: str) -> Any:
    try:
        import Stemmer
    except ImportError as error:
        raise ConfigError("BM25 with stemming needs the library PyStemmer: pip install PyStemmer") from error
    if language not in Stemmer.algorithms():
        raise ConfigError(f"no stemmer for {language!r}; there are {', '.join(Stemmer.algorithms())}")
    return Stemmer.Stemmer(language)
