"""Weights of a fusion, learned from judged queries: a grid over all convex combinations, cross-validated.

Few judgements are enough for two or three weights, and easily too few: so the gain is measured on queries that had no
part in choosing the weights, and without a gain there the weights stay equal.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np

from splade.datasets.qrels import Qrels
from splade.datasets.runs import Run
from splade.errors import DataError
from splade.evaluation.measures import largest_cut
from splade.evaluation.metrics import evaluate_run
from splade.progress import progress
from splade.retrieval.fusion import Fusion, Weights, equal_weights

FOLDS = 5
_MOST_POINTS = 200


@dataclass(frozen=True)
class LearnedWeights:
    """What `learn_weights` found.

    Attributes:
        weights: one per run, adding up to 1; best over all judged queries, or equal where learning did not help.
        by_query: the weights for each judged query, chosen without it and its fold.
        metric: what was maximised.
        learned: mean of the metric where each query has the weights of `by_query`.
        equal: the same with equal weights.
        n_queries: judged queries.
    """

    weights: Weights
    by_query: dict[str, Weights]
    metric: str
    learned: float
    equal: float
    n_queries: int

    def __str__(self) -> str:
        shown = ", ".join(f"{weight:.2f}" for weight in self.weights)
        outcome = "" if self.learned > self.equal else ": no gain, so the weights stay equal"
        return (
            f"weights {shown}, learned from {self.n_queries} queries; {self.metric} on queries left out "
            f"{self.learned:.4f}, with equal weights {self.equal:.4f}{outcome}"
        )


def learn_weights(
    runs: Sequence[Run], qrels: Qrels, fusion: Fusion, metric: str = "nDCG@10", seed: int = 0
) -> LearnedWeights:
    """Choose the weights of a fusion by the mean of a metric over judged queries.

    Args:
        runs: rankings of the judged queries, of each system.
        qrels: judgements.
        fusion: how rankings are fused.
        metric: what is maximised.
        seed: of the division into five folds.

    Raises:
        DataError: fewer than two judged queries are in a run.
    """
    query_ids = [query_id for query_id, judged in qrels.items() if judged and any(query_id in run for run in runs)]
    if len(query_ids) < 2:
        raise DataError(
            f"fusion weights cannot be learned from {len(query_ids)} queries that are judged and in the runs: give "
            "fuse.qrels whose queries the runs have, or numbers as fuse.weights"
        )
    judged = {query_id: qrels[query_id] for query_id in query_ids}
    rankings = {query_id: [run.get(query_id, {}) for run in runs] for query_id in query_ids}
    doc_ids = {query_id: list(dict.fromkeys(chain(*found))) for query_id, found in rankings.items()}
    parts = {query_id: fusion.parts(rankings[query_id], doc_ids[query_id]) for query_id in query_ids}

    depth = largest_cut([metric]) or None  # None: the metric sees all

    def per_query(weights: Weights) -> list[float]:
        fused = {}
        for query_id in query_ids:
            scores = parts[query_id] @ np.array(weights)
            best = np.argsort(-scores, kind="stable")[:depth].tolist()
            fused[query_id] = {doc_ids[query_id][i]: float(scores[i]) for i in best}
        found: Mapping[str, float] = next(iter(evaluate_run(fused, judged, [metric]).per_query.values()))
        return [found[query_id] for query_id in query_ids]

    grid = [equal_weights(len(runs)), *_simplex(len(runs))]
    values = np.array([per_query(weights) for weights in progress(grid, "learning weights", unit="weights")])
    fold_of = np.random.default_rng(seed).permutation(len(query_ids)) % min(FOLDS, len(query_ids))
    chosen = {fold: int(values[:, fold_of != fold].mean(1).argmax()) for fold in set(fold_of.tolist())}
    rows = np.array([chosen[fold] for fold in fold_of.tolist()])
    learned, equal = float(values[rows, np.arange(len(rows))].mean()), float(values[0].mean())
    helped = learned > equal
    best = int(values.mean(1).argmax()) if helped else 0
    by_query = {query_id: grid[row if helped else 0] for query_id, row in zip(query_ids, rows.tolist(), strict=True)}
    return LearnedWeights(grid[best], by_query, metric, learned, equal, len(query_ids))


def _simplex(n: int) -> Iterator[Weights]:
    """Yield the points of a regular grid of n weights that add up to 1: 21 for two, 66 or more for three."""
    steps = next(steps for steps in range(20, 0, -1) if steps == 1 or _n_points(n, steps) <= _MOST_POINTS)
    for bars in combinations(range(steps + n - 1), n - 1):
        ends = (-1, *bars, steps + n - 1)
        yield tuple((after - before - 1) / steps for before, after in zip(ends, ends[1:], strict=False))


def _n_points(n: int, steps: int) -> int:
    return math.comb(steps + n - 1, n - 1)
