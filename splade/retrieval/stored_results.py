"""Results that may be used again: one system on one data set, in a folder that says what everything came from.

Besides what `evaluate_retriever` writes, the folder holds `stats.json`: label, costs, warnings, and the settings and
digests that the result depends on. It is written last and removed first, so a folder that has it is complete. A result
whose settings are already there is not made again: an interrupted sweep goes on where it stopped.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from splade.datasets.dataset import Dataset
from splade.errors import DataError
from splade.evaluation.checks import Finding, warning_messages
from splade.evaluation.costs import Costs
from splade.evaluation.metrics import mean_metrics
from splade.retrieval.evaluate_retriever import PERF_FILE, RUN_FILE, STATS_FILE, EvaluatedRun
from splade.storage.atomic import read_json_object, read_numbers, write_json


def finished_result(
    system: str, dataset: Dataset, folder: Path, settings: Mapping[str, object] | None
) -> EvaluatedRun | None:
    """Return the result in a folder if it came from the very same settings, else None.

    `settings` are all that the result depends on; None: nobody knows, it is always made anew.
    """
    try:
        stats, metrics = read_json_object(folder / STATS_FILE), read_numbers(folder / PERF_FILE)
        costs = Costs.from_json(stats, str(folder / STATS_FILE))
    except DataError:
        return None
    warnings = stats.get("warnings")
    if settings is None or stats.get("settings") != settings or not isinstance(warnings, list):
        return None
    if not (folder / RUN_FILE).is_file():
        return None
    findings = tuple(Finding("warning", "earlier", str(message)) for message in warnings)
    return EvaluatedRun(system, dataset, metrics, costs, findings, folder, reused=True)


def store_result(system: str, result: EvaluatedRun, settings: Mapping[str, object] | None) -> EvaluatedRun:
    """Write `stats.json` and return the result under the system's label."""
    stats: dict[str, object] = {"label": system, "dataset": result.dataset.name, "split": result.dataset.split}
    stats |= result.costs.to_json() | {"warnings": warning_messages(result.findings), "settings": settings}
    write_json(result.folder / STATS_FILE, stats)
    return replace(result, system=system)


def store_average(results: list[EvaluatedRun], folder: Path) -> dict[str, float]:
    """Write the mean of several results, as published for CQADupStack, to `folder/perf.json`."""
    average = mean_metrics([result.metrics for result in results])
    write_json(folder / PERF_FILE, average)
    return average
