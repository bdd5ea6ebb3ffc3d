"""Effectiveness of a run, computed by pytrec_eval.

Every number, MRR@k included, comes from one ranking: trec_eval's own. It orders by score (as a 32-bit float), highest
first, and equal scores by document id, the greater one first; the order in which a run lists its documents means
nothing. Every query of the qrels counts: one that the run lacks, or for which it retrieves nothing, counts as zero.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytrec_eval

from splade.datasets.nested_json import LARGEST_SCORE
from splade.datasets.qrels import Qrels, checked_grade
from splade.datasets.runs import Run
from splade.errors import DataError
from splade.evaluation.measures import Measure, parse_metrics

_NO_DOCUMENT = " "  # no id is whitespace


@dataclass(frozen=True)
class Metrics:
    """What `evaluate_run` found.

    Attributes:
        means: metric name to its value over all judged queries: the mean, but the sum for counts (`num_ret`) and the
            geometric mean for `gm_map` and `gm_bpref`, as trec_eval reports them.
        per_query: metric name to {query_id: value}; the queries are the judged ones, in the order of the qrels.
        missing_queries: judged queries for which the run has no document; each counted as zero.
    """

    means: dict[str, float]
    per_query: dict[str, dict[str, float]]
    missing_queries: tuple[str, ...]

    @property
    def n_queries(self) -> int:
        """Number of judged queries, the denominator of every mean."""
        return len(next(iter(self.per_query.values())))


def evaluate_run(run: Run, qrels: Qrels, metrics: Sequence[str]) -> Metrics:
    """Evaluate a run.

    Args:
        run: {query_id: {doc_id: score}}, higher is better.
        qrels: {query_id: {doc_id: relevance}}; a query with an empty entry counts as not judged.
        metrics: names of `splade.evaluation.measures`.

    Raises:
        ConfigError: a metric is unknown.
        DataError: run or qrels are empty, share no query, or hold something that is not a number.

    Example:
        >>> found = evaluate_run({"q1": {"d1": 2.0, "d2": 1.0}}, {"q1": {"d2": 1}, "q2": {"d9": 1}}, ["mrr_10"])
        >>> found.means, found.missing_queries
        ({'mrr_10': 0.25}, ('q2',))
    """
    measures = parse_metrics(metrics)
    judged = judged_queries(qrels)
    scored = scored_queries(run, judged)
    answers = _ask_pytrec_eval(scored, judged, measures)
    per_query = {
        measure.name: {query_id: _value(measure, answers[measure][query_id]) for query_id in judged}
        for measure in measures
    }
    means = {measure.name: _aggregate(measure, per_query[measure.name]) for measure in measures}
    missing = tuple(query_id for query_id, documents in scored.items() if not documents)
    return Metrics(means, per_query, missing)


def mean_metrics(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over data sets of each metric of the first, as for BEIR and CQADupStack's forums."""
    return {name: sum(values[name] for values in metrics) / len(metrics) for name in metrics[0]}


def judged_queries(qrels: Qrels) -> Qrels:
    """Return the queries with at least one judged document, relevances as plain integers.

    Raises:
        DataError: nothing is judged at all, or a relevance is not a whole number within the bounds of grades.
    """
    judged = {query_id: _relevances(query_id, documents) for query_id, documents in qrels.items() if documents}
    if not judged:
        raise DataError("the qrels are empty: no query has a judged document")
    return judged


def scored_queries(run: Run, judged: Qrels) -> Run:
    """Return an entry for every judged query, empty where the run has none, scores as plain floats.

    Raises:
        DataError: the run is empty, shares no query with the qrels, or has a score that is not a finite number.
    """
    if not any(run.values()):
        raise DataError(f"the run is empty: {len(run)} queries, no document retrieved for any of them")
    if not any(query_id in run for query_id in judged):
        raise DataError(
            f"the run and the qrels share no query: the run has {example_ids(run)}, the qrels have "
            f"{example_ids(judged)}. Are they of the same data set and split, and are the ids spelt alike (stray "
            "whitespace, a prefix)?"
        )
    return {query_id: _scores(query_id, run.get(query_id, {})) for query_id in judged}


def _scores(query_id: str, documents: Mapping[str, float]) -> dict[str, float]:
    try:
        scores = {doc_id: float(score) for doc_id, score in documents.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"run, query {query_id!r}: a score is not a number ({error})") from error
    wrong = next((doc_id for doc_id, score in scores.items() if not abs(score) <= LARGEST_SCORE), None)
    if wrong is not None:
        raise DataError(
            f"run, query {query_id!r}, document {wrong!r}: the score is {scores[wrong]}, which cannot be ranked"
        )
    return scores


def _relevances(query_id: str, documents: Mapping[str, int]) -> dict[str, int]:
    grades = {
        doc_id: checked_grade(relevance, f"qrels, query {query_id!r}, document {doc_id!r}")
        for doc_id, relevance in documents.items()
    }
    # trec_eval writes beyond its arrays, and dies or not, when the highest grade of a query is negative.
    return grades if max(grades.values()) >= 0 else grades | {_NO_DOCUMENT: 0}


def _ask_pytrec_eval(scored: Run, judged: Qrels, measures: Sequence[Measure]) -> dict[Measure, dict[str, float]]:
    """Compute the measures with as few passes over the run as pytrec_eval allows."""
    answers: dict[Measure, dict[str, float]] = {}
    for level in dict.fromkeys(measure.relevance_level for measure in measures):
        group = [measure for measure in measures if measure.relevance_level == level]
        evaluator = pytrec_eval.RelevanceEvaluator(judged, {measure.trec_name for measure in group}, level)
        found = evaluator.evaluate(scored)
        for measure in group:
            answers[measure] = {query_id: found[query_id][measure.trec_key] for query_id in judged}
    return answers


def _value(measure: Measure, value: float) -> float:
    if math.isnan(value):
        # trec_eval divides by the number of retrieved documents in a few measures; nothing retrieved is worth nothing.
        return 0.0
    if measure.rank_cut is not None and value > 0.0 and round(1.0 / value) > measure.rank_cut:
        return 0.0
    return value


def _aggregate(measure: Measure, per_query: Mapping[str, float]) -> float:
    values = np.fromiter(per_query.values(), dtype=np.float64, count=len(per_query))
    if measure.trec_key.startswith("num_"):
        return float(values.sum())
    if measure.trec_key.startswith("gm_"):
        return float(np.exp(values.mean()))
    return float(values.mean())


def example_ids(ids: Collection[str]) -> str:
    """Return the first few ids as text, for messages."""
    shown = ", ".join(repr(one) for one in islice(ids, 3))
    return (shown or "none") + (", ..." if len(ids) > 3 else "")
