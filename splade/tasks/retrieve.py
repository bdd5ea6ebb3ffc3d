"""Task: encode queries, search the index, evaluate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splade.config import Experiment
from splade.config.inputs import require_all
from splade.config.jobs import Figures
from splade.config.processes import processes_to_start
from splade.config.record import save_record
from splade.datasets.collections import open_queries
from splade.distributed import first_process_first, on_first_process, working_together
from splade.encoding.batching import WINDOW
from splade.evaluation.checks import Finding
from splade.reports.summaries import TaskResult, cost_line
from splade.retrieval.collection_index import Index
from splade.retrieval.dense import DenseRetriever
from splade.retrieval.dense_index import DenseIndex
from splade.retrieval.evaluate_retriever import EvaluatedRun, evaluate_shared
from splade.retrieval.protocol import Retriever
from splade.retrieval.sparse import SparseRetriever
from splade.retrieval.vector_search import VectorRetriever
from splade.tasks.dense_indexing import load_dense_model
from splade.tasks.evaluation_sets import all_findings, open_evaluation_sets, write_all_metrics
from splade.tasks.launching import open_built_index
from splade.tasks.model_loading import load_model_of_index, own_terms


@dataclass(frozen=True, kw_only=True)
class RetrieveResult(TaskResult):
    """Runs with their costs, one per data set, and their metrics where there are qrels."""

    runs: tuple[EvaluatedRun, ...]

    def figures(self) -> list[Figures]:
        """Return metrics and costs of each data set."""
        return [run.figures() for run in self.runs]


def retrieve(experiment: Experiment) -> RetrieveResult:
    """Search config.index_dir for every query of data.Q_COLLECTION_PATH, then evaluate.

    Several processes encode the queries; the rest is the first one's.
    """
    require_all(experiment, "retrieve")
    run, out_dir = experiment.config, Path(str(experiment.config.out_dir))
    with working_together():
        terms = own_terms(experiment)
        sets = first_process_first(lambda: open_evaluation_sets(experiment, own_terms=terms))
        retriever, findings = open_retriever(experiment)
        runs = [
            evaluate_shared(retriever, dataset, protocol, run.top_k, out_dir / dataset.name)
            for dataset, protocol in sets
        ]
        return on_first_process(lambda: _result(experiment, runs, findings))


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the encoding of the queries: no more than there are groups to encode."""
    run, paths = experiment.config, experiment.data.Q_COLLECTION_PATH
    if run.matching_type == "dense" or experiment.launcher == "ray" or own_terms(experiment) is not None:
        return 1
    wanted = processes_to_start(experiment, trains=False)
    if wanted == 1 or run.n_processes is not None:
        return wanted
    return min(wanted, max(-(-len(open_queries(path)) // WINDOW) for path in paths))


def _result(experiment: Experiment, runs: Sequence[EvaluatedRun], findings: Sequence[Finding]) -> RetrieveResult:
    out_dir = Path(str(experiment.config.out_dir))
    save_record(experiment, out_dir, "retrieve")
    lines = [f"{one.dataset.name}: {cost_line(one.costs)}" for one in runs]
    lines += [f"  runs in {out_dir}", *write_all_metrics(runs, out_dir)]
    return RetrieveResult(text="\n".join(lines), findings=all_findings(runs, findings), runs=tuple(runs))


def open_retriever(experiment: Experiment) -> tuple[Retriever, list[Finding]]:
    """Open what searches config.index_dir, by sparse or dense vectors; return also what looks wrong."""
    run = experiment.config
    if own_terms(experiment) is not None:
        return VectorRetriever(Index.open(str(run.index_dir)), run), []
    if run.matching_type == "dense":
        dense = load_dense_model(experiment)
        found = DenseIndex.open(str(run.index_dir), dense)
        return DenseRetriever(dense, found, experiment.dense.engine, run.n_threads), list(dense.findings)
    model, findings = load_model_of_index(experiment)
    index = open_built_index(experiment, str(run.index_dir), model)
    return SparseRetriever.configured(model, index, run), findings
