"""Comparing runs: every metric, whether the differences could be chance, and the queries that make them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np

from splade.datasets.qrels import Qrels
from splade.datasets.runs import Run
from splade.errors import ConfigError, DataError, nearest
from splade.evaluation.metrics import Metrics, evaluate_run
from splade.evaluation.significance import Correction, Test, correct, paired_p_value

# Values per query come out of sums of floats; closer than this they are a tie.
_TIE = 1e-9
_WORD = re.compile(r"\w+")
# Those of Lucene: that two texts share them says nothing.
_STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with".split()
)

TermScores = Callable[[str, str], Sequence[tuple[str, float]]]
"""From the texts of a query and of a document to the terms that they share, and what each adds to the score."""


class TextLookup(Protocol):
    """Texts by id: a `TextCollection`, or a dictionary."""

    def get(self, text_id: str, /) -> str | None:
        """Return the text of an id, or None."""


@dataclass(frozen=True)
class PairedDifference:
    """Two systems under one metric.

    Attributes:
        first: the system compared against.
        second: the system whose gain is reported.
        difference: mean over the queries of second minus first.
        p_value: of the paired test, as it is.
        p_corrected: adjusted for all pairs compared under this metric.
        wins, ties, losses: number of queries where `second` is better, equal, worse.
    """

    metric: str
    first: str
    second: str
    difference: float
    p_value: float
    p_corrected: float
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Retrieved:
    """One document of a ranking.

    Attributes:
        rank: from 1, in trec_eval's order.
        relevance: None where the qrels hold none.
        text: the document's text, None without texts.
        matched: words that query and document share, lower case, without stop words; empty without texts.
        terms: learned terms that they share, each with what it adds to the score, largest first; empty without a model.
    """

    rank: int
    doc_id: str
    score: float
    relevance: int | None
    text: str | None
    matched: tuple[str, ...]
    terms: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class QueryDifference:
    """A query on which the systems differ, with what each of them retrieved.

    Attributes:
        text: None without texts.
        values: system to its value of the leading metric.
        relevant: number of relevant documents.
        retrieved: system to its first documents.
    """

    query_id: str
    text: str | None
    values: dict[str, float]
    relevant: int
    retrieved: dict[str, tuple[Retrieved, ...]]


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found.

    Attributes:
        means: system to {metric: value over all judged queries}.
        pairs: the differences, by metric, then by pair.
        widest: the queries with the largest spread in the first metric, widest first.
        n_queries: number of judged queries.
        missing: system to the number of judged queries without any document, each counted as zero.
        correction: how p-values were adjusted, per metric over its pairs.
        alpha: the level below which a corrected p-value is called significant.
    """

    means: dict[str, dict[str, float]]
    pairs: tuple[PairedDifference, ...]
    widest: tuple[QueryDifference, ...]
    n_queries: int
    missing: dict[str, int]
    test: Test
    correction: Correction
    alpha: float

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, families expanded."""
        return tuple(next(iter(self.means.values())))


def compare_runs(
    runs: Mapping[str, Run],
    qrels: Qrels,
    metrics: Sequence[str],
    *,
    baseline: str | None = None,
    texts: TextLookup | None = None,
    query_texts: TextLookup | None = None,
    test: Test = "t",
    correction: Correction = "holm",
    alpha: float = 0.05,
    n_queries_shown: int = 5,
    n_documents_shown: int = 5,
    term_scores: TermScores | None = None,
) -> Comparison:
    """Compare two or more runs over the same qrels.

    Args:
        runs: name of the system to its run.
        qrels: all judged queries count for every system.
        metrics: names of `splade.evaluation.measures`; the first one chooses the queries that are shown.
        baseline: compare each other system with this one; None compares all pairs.
        texts: texts of documents, as far as they are at hand.
        query_texts: texts of queries.
        test: `t` (paired t-test) or `randomisation`.
        correction: `holm`, `bonferroni` or `none`.
        alpha: significance level, between 0 and 1.
        n_queries_shown: number of queries in `widest`.
        n_documents_shown: documents shown per query and system.
        term_scores: a model's view of why the documents shown were found; None: words in common are shown.

    Raises:
        ConfigError: fewer than two runs, an unknown metric, baseline, test or correction.
        DataError: a run does not fit the qrels; the message names the run.
    """
    if len(runs) < 2:
        raise ConfigError(f"a comparison needs two runs or more, but got {len(runs)}")
    if baseline is not None and baseline not in runs:
        known = ", ".join(runs)
        raise ConfigError(f"baseline {baseline!r} is none of the runs{nearest(baseline, runs)}; there are {known}")
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is a probability between 0 and 1, but got {alpha}")
    correct([], correction)
    found = {system: _evaluate(system, run, qrels, metrics) for system, run in runs.items()}
    first = next(iter(found.values()))
    baseline_first = sorted(runs, key=lambda system: system != baseline)
    compared = [(a, b) for a, b in combinations(baseline_first, 2) if baseline in (None, a)]
    pairs = [pair for metric in first.means for pair in _compare(metric, compared, found, test, correction)]
    nothing: dict[str, str] = {}
    texts, query_texts = nothing if texts is None else texts, nothing if query_texts is None else query_texts
    leading = next(iter(first.means))
    values = {system: metrics_found.per_query[leading] for system, metrics_found in found.items()}

    def shown(query_id: str) -> QueryDifference:
        text, judged = query_texts.get(query_id), qrels[query_id]
        return QueryDifference(
            query_id,
            text,
            {system: of_system[query_id] for system, of_system in values.items()},
            sum(relevance > 0 for relevance in judged.values()),
            {
                name: _retrieved(run.get(query_id, {}), judged, text, texts, n_documents_shown, term_scores)
                for name, run in runs.items()
            },
        )

    return Comparison(
        means={system: metrics_found.means for system, metrics_found in found.items()},
        pairs=tuple(pairs),
        widest=tuple(map(shown, _widest(values, n_queries_shown))),
        n_queries=first.n_queries,
        missing={system: len(metrics_found.missing_queries) for system, metrics_found in found.items()},
        test=test,
        correction=correction,
        alpha=alpha,
    )


def trec_ranking(documents: Mapping[str, float], top_k: int) -> list[str]:
    """Return the first `top_k` document ids in trec_eval's order: score as float32, then id, both descending."""
    return sorted(documents, key=lambda doc_id: (np.float32(documents[doc_id]), doc_id), reverse=True)[:top_k]


def _evaluate(system: str, run: Run, qrels: Qrels, metrics: Sequence[str]) -> Metrics:
    try:
        return evaluate_run(run, qrels, metrics)
    except DataError as error:
        raise DataError(f"{system}: {error}") from error


def _compare(
    metric: str,
    compared: Sequence[tuple[str, str]],
    found: Mapping[str, Metrics],
    test: Test,
    correction: Correction,
) -> list[PairedDifference]:
    """Test all pairs under one metric, which is the family that the correction covers."""
    differences = []
    for first, second in compared:
        a, b = (np.array(list(found[system].per_query[metric].values())) for system in (first, second))
        differences.append(np.where(np.abs(b - a) <= _TIE, 0.0, b - a))
    p_values = [paired_p_value(difference, test) for difference in differences]
    return [
        PairedDifference(
            metric,
            first,
            second,
            float(difference.mean()),
            p_value,
            p_corrected,
            wins=int((difference > 0).sum()),
            ties=int((difference == 0).sum()),
            losses=int((difference < 0).sum()),
        )
        for (first, second), difference, p_value, p_corrected in zip(
            compared, differences, p_values, correct(p_values, correction), strict=True
        )
    ]


def _widest(values: Mapping[str, Mapping[str, float]], count: int) -> list[str]:
    """Return the queries with the largest spread over the systems, those without any spread left out."""
    queries = list(next(iter(values.values())))
    table = np.array([[of_system[query_id] for query_id in queries] for of_system in values.values()])
    spread = table.max(axis=0) - table.min(axis=0)
    order = np.argsort(-spread, kind="stable")[:count]
    return [queries[i] for i in order if spread[i] > _TIE]


def _retrieved(
    documents: Mapping[str, float],
    judged: Mapping[str, int],
    query: str | None,
    texts: TextLookup,
    count: int,
    term_scores: TermScores | None,
) -> tuple[Retrieved, ...]:
    """Return the first documents of a ranking, with what is known of them."""
    retrieved = []
    for rank, doc_id in enumerate(trec_ranking(documents, count), 1):
        text = texts.get(doc_id)
        words = set(_words(text))
        matched = tuple(word for word in _words(query) if word in words and word not in _STOP_WORDS)
        terms: tuple[tuple[str, float], ...] = ()
        if term_scores is not None and query is not None and text is not None:
            terms = tuple(term_scores(query, text))
        retrieved.append(Retrieved(rank, doc_id, float(documents[doc_id]), judged.get(doc_id), text, matched, terms))
    return tuple(retrieved)


def _words(text: str | None) -> list[str]:
    """Distinct lower-case words, in order."""
    return [] if text is None else list(dict.fromkeys(_WORD.findall(text.lower())))
