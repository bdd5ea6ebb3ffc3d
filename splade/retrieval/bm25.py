"""BM25 through the bm25s library: the lexical baseline, evaluated like everything else.

The settings are those of Anserini's "flat" baseline as closely as bm25s allows: Lucene's variant of BM25, k1 = 0.9,
b = 0.4, Lucene's 33 English stop words, the Snowball stemmer for English, title and text in one field. On SciFact this
gives nDCG@10 0.676 (Anserini publishes 0.679).
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Protocol

import numpy as np

from splade.config.schema import Bm25Config
from splade.errors import ConfigError, DataError
from splade.evaluation.costs import Costs
from splade.evaluation.expected_flops import flops, term_probabilities
from splade.retrieval.protocol import Ranking, Retriever


class Bm25Retriever(Retriever):
    """BM25 over an index in memory of a corpus (doc_id, text).

    The settings say how texts become words and words become scores; None takes the defaults.

    Raises:
        ConfigError: bm25s is not installed, or a setting is wrong.
        DataError: there is no document with a word in it.

    Example:
        >>> bm25 = Bm25Retriever([("d1", "A cat sat down."), ("d2", "Dogs bark."), ("d3", "Cats purr.")])
        >>> sorted(dict(bm25.retrieve({"q": "the cats"}, top_k=10))["q"])
        ['d1', 'd3']
    """

    name = "bm25"

    def __init__(self, corpus: Iterable[tuple[str, str]], settings: Bm25Config | None = None) -> None:
        settings = settings or Bm25Config()
        self._stopwords = settings.stopwords if settings.stopwords is not None else []
        self._stemmer = None if settings.stemmer is None else _stemmer(settings.stemmer)
        try:
            self._analyse(["check"])
        except ValueError as error:
            raise ConfigError(f"BM25 cannot analyse texts with {settings}: {error}") from error
        pairs = list(corpus)
        self._doc_ids = [doc_id for doc_id, _ in pairs]
        words = self._analyse([text for _, text in pairs])
        if not any(words):
            raise DataError(f"BM25: none of the {len(pairs)} documents has a word in it that is not a stop word")
        self._index: _Bm25sIndex = bm25s_library().BM25(k1=settings.k1, b=settings.b, method=settings.method)
        self._index.index(words, create_empty_token=False, show_progress=False)
        self._costs = Costs(model=self.name, n_docs=len(pairs))

    def retrieve(self, queries: Mapping[str, str], top_k: int) -> Iterator[tuple[str, Ranking]]:
        """Yield (query_id, {doc_id: score}) for every query: the best documents with a positive score, best first."""
        words = dict(zip(queries, self._known_words(queries.values()), strict=True))
        for some in list(words.values())[:1]:
            self._search([some], top_k)  # first allocations are in no measured query
        start = time.perf_counter()
        asked = [query_id for query_id in queries if words[query_id]]
        found = dict(zip(asked, self._search([words[query_id] for query_id in asked], top_k), strict=True))
        seconds = time.perf_counter() - start
        rankings = {query_id: found.get(query_id, {}) for query_id in queries}
        self._costs = self._measured(list(words.values()), rankings, seconds, top_k)
        yield from rankings.items()

    def costs(self) -> Costs:
        """Return the costs of the last `retrieve`: mean distinct words stand for terms."""
        return self._costs

    def known_doc_ids(self, wanted: Iterable[str]) -> list[str]:
        """Return a few of the indexed ids, for messages, then those of the wanted ids that are indexed."""
        return [*self._doc_ids[:3], *sorted(set(self._doc_ids).intersection(wanted))]

    def _search(self, words: Sequence[list[str]], top_k: int) -> list[Ranking]:
        if not any(words):
            return [{} for _ in words]
        found, scores = self._index.retrieve(words, k=min(top_k, len(self._doc_ids)), show_progress=False)
        rankings = []
        for doc_idxs, of_query in zip(found, scores, strict=True):
            kept = of_query > 0
            ids = (self._doc_ids[i] for i in doc_idxs[kept].tolist())
            rankings.append(dict(zip(ids, of_query[kept].tolist(), strict=True)))
        return rankings

    def _measured(
        self, words: Sequence[list[str]], rankings: Mapping[str, Ranking], seconds: float, top_k: int
    ) -> Costs:
        postings, vocabulary = self._index.scores, self._index.vocab_dict
        counts, n_docs, n_queries = np.diff(postings["indptr"]), len(self._doc_ids), max(1, len(words))
        in_queries = np.zeros(len(counts))
        distinct = [set(of_query) for of_query in words]
        for word, n in Counter(word for of_query in distinct for word in of_query).items():
            in_queries[vocabulary[word]] = n
        return Costs(
            model=self.name,
            n_docs=n_docs,
            L0_d=float(counts.sum() / n_docs),
            index_bytes=sum(postings[name].nbytes for name in ("data", "indices", "indptr")),
            n_queries=len(words),
            L0_q=sum(map(len, distinct)) / n_queries,
            flops=flops(term_probabilities(in_queries, n_queries), term_probabilities(counts, n_docs)),
            search_ms_per_query=1e3 * seconds / n_queries,
            n_threads=1,
            top_k=top_k,
            n_empty_queries=sum(not of_query for of_query in distinct),
            n_empty_results=sum(not ranking for ranking in rankings.values()),
        )

    def _analyse(self, texts: Sequence[str]) -> list[list[str]]:
        """Stemmed words of each text."""
        if not texts:
            return []
        how = {"stopwords": self._stopwords, "stemmer": self._stemmer, "return_ids": False, "show_progress": False}
        return bm25s_library().tokenize(list(texts), **how)

    def _known_words(self, texts: Iterable[str]) -> list[list[str]]:
        """Words of each text that occur in the collection."""
        vocabulary = self._index.vocab_dict
        return [[word for word in words if word in vocabulary] for words in self._analyse(list(texts))]


class _Bm25sIndex(Protocol):
    """What is used of `bm25s.BM25`."""

    scores: dict[str, np.ndarray]
    vocab_dict: dict[str, int]

    def index(self, corpus: list[list[str]], create_empty_token: bool, show_progress: bool) -> None: ...
    def retrieve(
        self, query_tokens: Sequence[list[str]], k: int, show_progress: bool
    ) -> tuple[np.ndarray, np.ndarray]: ...


def bm25s_library() -> ModuleType:
    """Import bm25s; a ConfigError where it is not installed."""
    try:
        import bm25s
    except ImportError as error:
        raise ConfigError("BM25 needs the library bm25s: pip install bm25s PyStemmer") from error
    # It logs every step at level DEBUG and sets that level itself.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return bm25s


def _stemmer(language: str) -> object:
    try:
        import Stemmer
    except ImportError as error:
        raise ConfigError("BM25 with stemming needs the library PyStemmer: pip install PyStemmer") from error
    if language not in Stemmer.algorithms():
        raise ConfigError(f"no stemmer for {language!r}; there are {', '.join(Stemmer.algorithms())}")
    return Stemmer.Stemmer(language)
