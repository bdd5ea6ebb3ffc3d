"""Task: evaluate a retriever on a BEIR data set; sweeps over data sets, models and settings; BM25 beside them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.config.schema import Affects
from splade.config.sweep import folder_name, swept_values
from splade.datasets.beir import open_beir
from splade.datasets.dataset import Dataset
from splade.datasets.runs import read_run
from splade.evaluation.beir_protocol import drop_identical_ids
from splade.evaluation.checks import Finding
from splade.evaluation.comparison import compare_runs
from splade.evaluation.protocols import BeirProtocol
from splade.reports.beir_report import write_beir_table, write_beir_tables
from splade.reports.comparison_report import differences_table, write_comparison
from splade.reports.summaries import cost_line, metric_line, warning_block
from splade.retrieval.evaluate_retriever import RUN_FILE, EvaluatedRun
from splade.retrieval.stored_results import store_average
from splade.tasks.evaluation_sets import check_depth_asked_for
from splade.tasks.systems import Bm25System, System, evaluate_system, open_system

PROTOCOL = BeirProtocol()


@dataclass(frozen=True)
class BeirResult:
    """Metrics and costs of a retriever on a data set, or on all sub-forums of one.

    Attributes:
        results: one per data set.
        average: mean metrics, of several results; empty for one.
        out_dir: the folder given as `config.out_dir`.
        comparison: with `beir.baseline`: the table of all systems, and the significance of the differences from BM25.
    """

    results: tuple[EvaluatedRun, ...]
    average: dict[str, float]
    out_dir: Path
    comparison: str = ""

    def summary(self) -> str:
        """Return effectiveness and cost, the comparison with BM25, then the warnings."""
        lines = [line for result in self.results for line in _lines(result)]
        if self.average:
            lines.append(f"average of {len(self.results)}: {metric_line(self.average)}")
        comparison = ["", self.comparison] if self.comparison else []
        return "\n".join([*lines, *comparison, *warning_block(self.findings)])

    @property
    def findings(self) -> list[Finding]:
        """What looks wrong, each thing once."""
        return list(dict.fromkeys(finding for result in self.results for finding in result.findings))


def beir_eval(experiment: Experiment) -> BeirResult:
    """Evaluate `retriever` on the BEIR data set beir.dataset."""
    require(experiment, "beir.dataset", "beir.dataset_path", "config.index_dir", "config.out_dir")
    beir, out_dir, swept = experiment.beir, Path(str(experiment.config.out_dir)), swept_values()
    datasets = open_beir_datasets(experiment)
    result = evaluate_datasets(experiment, open_system(experiment, swept), datasets)
    comparison = ""
    if beir.baseline:
        baseline = evaluate_datasets(experiment, Bm25System(experiment, swept), datasets)
        comparison = "\n\n".join(map(_compare, baseline.results, result.results))
    table = write_beir_table(out_dir, beir.reference)
    if comparison and not swept:
        comparison = f"{table.summary()}\n\n{comparison}"
    return replace(result, comparison=comparison)


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
    index_dir = Path(str(run.index_dir)) / folder_name(swept, Affects.INDEX)
    out_dir = Path(str(run.out_dir)) / (system.folder_name or folder_name(swept, Affects.INDEX | Affects.SEARCH))
    results = [
        evaluate_system(
            system, dataset, PROTOCOL, run.top_k, index_dir / "beir" / dataset.name, out_dir / "beir" / dataset.name
        )
        for dataset in datasets
    ]
    average = store_average(results, results[0].folder.parent) if len(results) > 1 else {}
    save_record(experiment, out_dir, "beir_eval")
    return BeirResult(tuple(results), average, Path(str(run.out_dir)))


def after_sweep(results: Iterable[BeirResult]) -> str:
    """Return the table that ends a sweep."""
    return write_beir_tables([result.out_dir for result in results])


def _lines(result: EvaluatedRun) -> list[str]:
    earlier = " (evaluated earlier with the same settings)" if result.reused else ""
    dataset = f"{result.dataset.name} ({result.dataset.split})"
    lines = [cost_line(result.costs), f"in {result.folder}"]
    first = f"{dataset}, {result.system}: {metric_line(result.metrics)}{earlier}"
    return [first, *(f"  {line}" for line in lines if line)]


def _compare(baseline: EvaluatedRun, result: EvaluatedRun) -> str:
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
    )
    write_comparison(compared, result.folder / "compare_bm25")
    table = differences_table(compared).to_text()
    return f"{dataset.name}: {table}\n  queries that differ most: {result.folder / 'compare_bm25.txt'}"
