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

    def judged(self, qrels: Qrels) -> Sequence[tuple[Qrels, Sequence[str]]]:
        """Return all qrels that judge a run of a data set with `qrels`, and the metrics of each."""


@dataclass(frozen=True)
class TrecProtocol:
    """Metrics of `splade.evaluation.measures`, computed by pytrec_eval."""

    metrics: Sequence[str]

    def evaluate(self, run: Run, qrels: Qrels) -> dict[str, float]:
        """Return metric name to value over all judged queries."""
        return evaluate_run(run, qrels, self.metrics).means

    def judged(self, qrels: Qrels) -> Sequence[tuple[Qrels, Sequence[str]]]:
        """Return the data set's qrels and all metrics."""
        return [(qrels, self.metrics)]


@dataclass(frozen=True)
class SeveralQrels:
    """One run judged several times, such as by graded and by binary qrels: each has metrics of its own.

    Attributes:
        first: by the data set's own qrels.
        others: by other qrels of the same queries.
    """

    first: TrecProtocol
    others: Sequence[tuple[Qrels, TrecProtocol]]

    @property
    def metrics(self) -> Sequence[str]:
        """All names."""
        return [name for protocol in (self.first, *(other for _, other in self.others)) for name in protocol.metrics]

    def evaluate(self, run: Run, qrels: Qrels) -> dict[str, float]:
        """Return metric name to value, each over the queries that its qrels judge."""
        values = self.first.evaluate(run, qrels)
        for other_qrels, protocol in self.others:
            values |= protocol.evaluate(run, other_qrels)
        return values

    def judged(self, qrels: Qrels) -> Sequence[tuple[Qrels, Sequence[str]]]:
        """Return the data set's qrels, then the others, each with its metrics."""
        return [(qrels, self.first.metrics), *((other, protocol.metrics) for other, protocol in self.others)]


@dataclass(frozen=True)
class BeirProtocol:
    """NDCG@10, Recall@100 and R_cap@100 as BEIR computes them, after dropping the documents with the query's own id."""

    metrics: Sequence[str] = ("nDCG@10", "R@100")

    def evaluate(self, run: Run, qrels: Qrels) -> dict[str, float]:
        """Return metric name to value over all judged queries."""
        return evaluate_beir(run, qrels)

    def judged(self, qrels: Qrels) -> Sequence[tuple[Qrels, Sequence[str]]]:
        """Return the data set's qrels and all metrics."""
        return [(qrels, self.metrics)]
