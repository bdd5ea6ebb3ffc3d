"""Which numbers a run is judged by: trec_eval's metrics by name, or BEIR's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from splade.datasets.qrels import Qrels
from splade.datasets.runs import Run
from splade.evaluation.beir_protocol import evaluate_beir
from splade.evaluation.metrics import evaluate_run


class EvaluationProtocol(Protocol):
    """Metrics of a run."""

    @property
    def metrics(self) -> Sequence[str]:
        """Their names, as users write them."""

    def evaluate(self, run: Run, qrels: Qrels) -> dict[str, float]:
        """Return metric name to value over all judged queries; a DataError where run and qrels do not fit."""


@dataclass(frozen=True)
class TrecProtocol:
    """Metrics of `splade.evaluation.measures`, computed by pytrec_eval."""

    metrics: Sequence[str]

    def evaluate(self, run: Run, qrels: Qrels) -> dict[str, float]:
        """Return metric name to value over all judged queries."""
        return evaluate_run(run, qrels, self.metrics).means


@dataclass(frozen=True)
class BeirProtocol:
    """NDCG@10, Recall@100 and R_cap@100 as BEIR computes them, after dropping the documents with the query's own id."""

    metrics: Sequence[str] = ("nDCG@10", "R@100")

    def evaluate(self, run: Run, qrels: Qrels) -> dict[str, float]:
        """Return metric name to value over all judged queries."""
        return evaluate_beir(run, qrels)
