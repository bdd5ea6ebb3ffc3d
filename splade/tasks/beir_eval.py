"""Task: evaluate a retriever on a BEIR data set; sweeps over data sets, models and settings; BM25 beside them."""

from dataclasses import dataclass, replace
from pathlib import Path

from splade.config import Experiment
from splade.config.inputs import require_all
from splade.config.jobs import Figures, Sweep
from splade.config.processes import processes_to_start
from splade.config.record import save_record
from splade.config.schema import Affects
from splade.config.sweep import folder_name, index_affects, swept_values
from splade.datasets.beir import open_beir
from splade.datasets.dataset import Dataset
from splade.datasets.runs import read_run
from splade.distributed import first_process_first, on_first_process
from splade.errors import DataError
from splade.evaluation.beir_protocol import drop_identical_ids
from splade.evaluation.comparison import TermScores, compare_runs
from splade.evaluation.metrics import evaluate_run
from splade.evaluation.protocols import BeirProtocol
from splade.reports.beir_report import write_beir_table
from splade.reports.comparison_report import differences_table, write_comparison
from splade.reports.summaries import TaskResult, cost_line, metric_line
from splade.reports.sweep_report import after_sweep as all_jobs
from splade.retrieval.evaluate_retriever import BY_QUERY_FILE, RUN_FILE, EvaluatedRun
from splade.retrieval.stored_results import store_average
from splade.storage.atomic import write_json
from splade.tasks.combined_systems import open_system
from splade.tasks.evaluation_sets import all_findings, check_depth_asked_for
from splade.tasks.systems import Bm25System, System, evaluate_system

PROTOCOL = BeirProtocol()


@dataclass(frozen=True, kw_only=True)
class BeirResult(TaskResult):
    """Metrics and costs of a retriever on a data set, or on all sub-forums of one.

    Attributes:
        results: one per data set.
        out_dir: the folder given as `config.out_dir`; None: the data are not BEIR's, so there is no table of all.
    """

    results: tuple[EvaluatedRun, ...]
    out_dir: Path | None

    def figures(self) -> list[Figures]:
        """Return metrics and costs of each data set."""
        return [result.figures() for result in self.results]


def beir_eval(experiment: Experiment) -> BeirResult:
    """Evaluate `retriever` on the BEIR data set beir.dataset; with `beir.baseline`, beside BM25."""
    require_all(experiment, "beir_eval")
    datasets = first_process_first(lambda: open_beir_datasets(experiment))
    system = open_system(experiment, swept_values())
    result = evaluate_datasets(experiment, system, datasets)
    return on_first_process(lambda: _with_table(experiment, system, result, datasets))


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the encoding, or the scoring of a second stage."""
    first = experiment.rerank.first_stage if experiment.retriever == "rerank" else None
    shared = experiment.retriever == "sparse" or first in ("sparse", "bm25")
    return processes_to_start(experiment, trains=False) if shared else 1


def _with_table(experiment: Experiment, system: System, result: BeirResult, datasets: list[Dataset]) -> BeirResult:
    """Add BM25, where it was asked for, and the table of all data sets."""
    beir, out_dir, swept = experiment.beir, Path(str(experiment.config.out_dir)), swept_values()
    blocks, evaluated = [result.text], result.results
    if beir.baseline:
        baseline = evaluate_datasets(experiment, Bm25System(experiment, swept), datasets)
        evaluated += baseline.results
        blocks += [_compare(*pair, system.term_scores()) for pair in zip(baseline.results, result.results, strict=True)]
    for one in evaluated:
        write_values_by_query(one)
    table = write_beir_table(out_dir, beir.reference)
    if beir.baseline and not swept:
        blocks.insert(1, table.summary())
    return replace(result, text="\n\n".join(blocks))


def open_beir_datasets(experiment: Experiment) -> list[Dataset]:
    """Open the data set that `beir` names, or all sub-forums of one.

    Raises:
        ConfigError: BEIR's metrics look deeper than `config.top_k`.
        DataError: it is not there and cannot be downloaded.
    """
    check_depth_asked_for(experiment.config.top_k, PROTOCOL.metrics)
    beir = experiment.beir
    return open_beir(str(beir.dataset), str(beir.dataset_path), beir.split or "test", beir.url)


def evaluate_datasets(experiment: Experiment, system: System, datasets: list[Dataset]) -> BeirResult:
    """Return the results of a system on data sets.

    Each model and setting of a sweep has a folder of its own; jobs that differ in nothing that affects the index
    share one.
    """
    run, swept = experiment.config, swept_values()
    affects = index_affects(experiment)
    index_dir = Path(str(run.index_dir)) / folder_name(swept, affects)
    out_dir = Path(str(run.out_dir)) / (system.folder_name or folder_name(swept, affects | Affects.SEARCH))
    results = [
        evaluate_system(
            system, dataset, PROTOCOL, run.top_k, index_dir / "beir" / dataset.name, out_dir / "beir" / dataset.name
        )
        for dataset in datasets
    ]
    lines = [result_lines(result, f"{result.dataset.name} ({result.dataset.split})") for result in results]
    if len(results) > 1:
        average = on_first_process(lambda: store_average(results, results[0].folder.parent))
        lines.append(f"average of {len(results)}: {metric_line(average)}")
    on_first_process(lambda: save_record(experiment, out_dir, "beir_eval"))
    return BeirResult(
        text="\n".join(lines), findings=all_findings(results), results=tuple(results), out_dir=Path(str(run.out_dir))
    )


def write_values_by_query(result: EvaluatedRun) -> None:
    """Write the values per query, from which the table of all results tests differences."""
    path = result.folder / BY_QUERY_FILE
    if not (result.reused and path.is_file()):
        run = drop_identical_ids(read_run(result.folder / RUN_FILE))
        write_json(path, evaluate_run(run, result.dataset.qrels or {}, PROTOCOL.metrics).per_query, indent=None)


def after_sweep(sweep: Sweep) -> str:
    """Return the table that ends a sweep; that of all jobs, where the data are not BEIR's."""
    assert sweep.folder is not None
    reference = next((record.reference for record in sweep.records()), None)
    try:
        return write_beir_table(sweep.folder, reference).summary()
    except DataError:
        return all_jobs(sweep)


def result_lines(result: EvaluatedRun, dataset: str) -> str:
    """Return effectiveness, cost and place of a system's result on a data set, a line each."""
    metrics = f": {metric_line(result.metrics)}" if result.metrics else ""
    earlier = " (evaluated earlier with the same settings)" if result.reused else ""
    lines = [f"{dataset}, {result.system}{metrics}{earlier}", cost_line(result.costs), f"in {result.folder}"]
    return "\n  ".join(line for line in lines if line)


def _compare(baseline: EvaluatedRun, result: EvaluatedRun, term_scores: TermScores | None) -> str:
    """Test the differences from BM25, and write all of the comparison beside the model's run."""
    both = {found.system: drop_identical_ids(read_run(found.folder / RUN_FILE)) for found in (baseline, result)}
    dataset = result.dataset
    compared = compare_runs(
        both,
        dataset.qrels or {},
        PROTOCOL.metrics,
        baseline=baseline.system,
        texts=dataset.documents,
        query_texts=dataset.queries,
        term_scores=term_scores,
    )
    write_comparison(compared, result.folder / "compare_bm25")
    table = differences_table(compared).to_text()
    return f"{dataset.name}: {table}\n  queries that differ most: {result.folder / 'compare_bm25.txt'}"
