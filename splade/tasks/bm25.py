"""Task: BM25 through the same runs, metrics and tables as a learned model."""

from dataclasses import replace
from pathlib import Path

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.config.sweep import swept_values
from splade.datasets.collections import open_collection
from splade.datasets.runs import read_run
from splade.evaluation.comparison import compare_runs
from splade.evaluation.protocols import EvaluationProtocol
from splade.reports.beir_report import write_beir_table
from splade.reports.comparison_report import differences_table, means_table
from splade.reports.summaries import costs_table
from splade.retrieval.evaluate_retriever import RUN_FILE, EvaluatedRun, evaluate_retriever, stored_costs
from splade.tasks.beir_eval import (
    BeirResult,
    after_sweep,
    evaluate_datasets,
    open_beir_datasets,
    result_lines,
    write_values_by_query,
)
from splade.tasks.evaluation_sets import all_findings, open_evaluation_sets, write_all_metrics
from splade.tasks.systems import Bm25System

__all__ = ["after_sweep", "bm25"]


def bm25(experiment: Experiment) -> BeirResult:
    """Retrieve with BM25 and evaluate, on a BEIR data set or on one's own data."""
    system = Bm25System(experiment, swept_values())
    if experiment.beir.dataset is None:
        return _on_own_data(experiment, system)
    require(experiment, "beir.dataset_path", "config.out_dir")
    out_dir = Path(str(experiment.config.out_dir))
    result = evaluate_datasets(experiment, system, open_beir_datasets(experiment))
    for one in result.results:
        write_values_by_query(one)
    write_beir_table(out_dir, experiment.beir.reference)
    return result


def _on_own_data(experiment: Experiment, system: Bm25System) -> BeirResult:
    """Retrieve for one's own queries; compare with the model's runs in the same `out_dir`, where there are some."""
    inputs = ("data.COLLECTION_PATH", "data.Q_COLLECTION_PATH", "config.retrieval_name")
    require(experiment, "config.out_dir", *inputs)
    out_dir, run = Path(str(experiment.config.out_dir)), experiment.config
    corpus = open_collection(str(experiment.data.COLLECTION_PATH))
    sets = [(replace(dataset, corpus=corpus), protocol) for dataset, protocol in open_evaluation_sets(experiment)]
    root = out_dir / system.folder_name
    retriever, findings = system.build(sets[0][0], root)
    results, comparisons = [], []
    for dataset, protocol in sets:
        result = evaluate_retriever(retriever, dataset, protocol, run.top_k, root / dataset.name, findings)
        results.append(replace(result, system=system.label))
        if protocol is not None and (out_dir / dataset.name / RUN_FILE).is_file():
            comparisons.append(_compare_with_model(results[-1], protocol, out_dir / dataset.name))
    save_record(experiment, root, "bm25")
    write_all_metrics(results, root)
    lines = "\n".join(result_lines(result, result.dataset.name) for result in results)
    text = "\n\n".join([lines, *comparisons])
    return BeirResult(text=text, findings=all_findings(results), results=tuple(results), out_dir=None)


def _compare_with_model(result: EvaluatedRun, protocol: EvaluationProtocol, model_dir: Path) -> str:
    """Return effectiveness, differences and costs of BM25 and of the model's run for one data set."""
    folders = {result.system: result.folder, "splade": model_dir}
    runs = {system: read_run(folder / RUN_FILE) for system, folder in folders.items()}
    costs = {result.system: result.costs, "splade": stored_costs(model_dir)}
    tables = []
    for qrels, metrics in protocol.judged(result.dataset.qrels or {}):
        compared = compare_runs(runs, qrels, metrics, baseline=result.system)
        tables += [means_table(compared), differences_table(compared)]
    tables.append(costs_table(costs))
    return "\n\n".join([result.dataset.name, *(table.to_text() for table in tables)])
