"""Task: encode queries, search the index, evaluate."""

from dataclasses import dataclass
from pathlib import Path

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.evaluation.checks import Finding
from splade.reports.summaries import cost_line, metric_line, warning_block
from splade.retrieval.collection_index import Index
from splade.retrieval.evaluate_retriever import EvaluatedRun, evaluate_retriever
from splade.retrieval.sparse import SparseRetriever
from splade.tasks.evaluation_sets import ALL_METRICS_FILE, open_evaluation_sets, write_all_metrics
from splade.tasks.model_loading import load_model


@dataclass(frozen=True)
class RetrieveResult:
    """Runs with their costs, and their metrics where there are qrels.

    Attributes:
        runs: one per data set.
        folder: where the runs are.
        findings: what looks wrong, in searching and in evaluating.
    """

    runs: tuple[EvaluatedRun, ...]
    folder: Path
    findings: tuple[Finding, ...] = ()

    def summary(self) -> str:
        """Return effectiveness and cost of every data set, then the warnings."""
        lines = [f"{run.dataset.name}: {cost_line(run.costs)}" for run in self.runs]
        lines.append(f"  runs in {self.folder}")
        evaluated = [run for run in self.runs if run.metrics]
        width = max((len(run.dataset.name) for run in evaluated), default=0)
        lines += [f"{run.dataset.name:{width}}  {metric_line(run.metrics)}" for run in evaluated]
        lines += [f"  in {self.folder / ALL_METRICS_FILE}"] if evaluated else []
        return "\n".join([*lines, *warning_block(self.findings)])


def retrieve(experiment: Experiment) -> RetrieveResult:
    """Search config.index_dir for every query of data.Q_COLLECTION_PATH, then evaluate."""
    require(experiment, "config.index_dir", "config.out_dir", "data.Q_COLLECTION_PATH", "config.retrieval_name")
    run, out_dir = experiment.config, Path(str(experiment.config.out_dir))
    sets = open_evaluation_sets(experiment)
    model, findings = load_model(experiment)
    index = Index.open(str(run.index_dir), model)
    retriever = SparseRetriever(model, index, run.threshold, run.search_effort, run.n_threads)
    runs = [
        evaluate_retriever(retriever, dataset, protocol, run.top_k, out_dir / dataset.name)
        for dataset, protocol in sets
    ]
    save_record(experiment, out_dir, "retrieve")
    write_all_metrics(runs, out_dir)
    found = [*findings, *(finding for one in runs for finding in one.findings)]
    return RetrieveResult(tuple(runs), out_dir, tuple(dict.fromkeys(found)))
