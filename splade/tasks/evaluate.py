"""Task: evaluate runs that exist; needs no model."""

from pathlib import Path

from splade.config import Experiment
from splade.config.inputs import require_all
from splade.config.record import save_record
from splade.retrieval.evaluate_retriever import evaluate_stored_run
from splade.tasks.evaluation_sets import all_findings, open_evaluation_sets, write_all_metrics
from splade.tasks.retrieve import RetrieveResult


def evaluate(experiment: Experiment) -> RetrieveResult:
    """Compare the runs in config.out_dir with the qrels data.EVAL_QREL_PATH."""
    require_all(experiment, "evaluate")
    out_dir = Path(str(experiment.config.out_dir))
    sets = open_evaluation_sets(experiment, with_queries=False)
    runs = [
        evaluate_stored_run(out_dir / dataset.name, dataset, protocol)
        for dataset, protocol in sets
        if protocol is not None
    ]
    save_record(experiment, out_dir, "evaluate")
    text = "\n".join(write_all_metrics(runs, out_dir))
    return RetrieveResult(text=text, findings=all_findings(runs), runs=tuple(runs))
