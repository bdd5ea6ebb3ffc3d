"""Task: evaluate runs that exist; needs no model."""

from dataclasses import dataclass
from pathlib import Path

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.evaluation.checks import Finding
from splade.reports.summaries import metric_line, warning_block
from splade.retrieval.evaluate_retriever import EvaluatedRun, evaluate_stored_run
from splade.tasks.evaluation_sets import ALL_METRICS_FILE, open_evaluation_sets, write_all_metrics


@dataclass(frozen=True)
class EvaluateResult:
    """Metrics per data set.

    Attributes:
        runs: one per data set.
        folder: where the runs are.
    """

    runs: tuple[EvaluatedRun, ...]
    folder: Path

    def summary(self) -> str:
        """Return one line per data set, where the file is, then the warnings."""
        width = max((len(run.dataset.name) for run in self.runs), default=0)
        lines = [f"{run.dataset.name:{width}}  {metric_line(run.metrics)}" for run in self.runs]
        return "\n".join([*lines, f"  in {self.folder / ALL_METRICS_FILE}", *warning_block(self.findings)])

    @property
    def findings(self) -> list[Finding]:
        """What looks wrong."""
        return [finding for run in self.runs for finding in run.findings]


def evaluate(experiment: Experiment) -> EvaluateResult:
    """Compare the runs in config.out_dir with the qrels data.EVAL_QREL_PATH."""
    require(experiment, "config.out_dir", "config.retrieval_name", "data.EVAL_QREL_PATH", "config.eval_metric")
    out_dir = Path(str(experiment.config.out_dir))
    sets = open_evaluation_sets(experiment, with_queries=False)
    runs = [
        evaluate_stored_run(out_dir / dataset.name, dataset, protocol)
        for dataset, protocol in sets
        if protocol is not None
    ]
    save_record(experiment, out_dir, "evaluate")
    write_all_metrics(runs, out_dir)
    return EvaluateResult(tuple(runs), out_dir)
