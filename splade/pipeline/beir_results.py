"""One system on one BEIR data set: the files of a result, and whether they are still what would come out.

A result is three files in `out_dir/beir/<dataset>/`: `run.json`, `perf.json`, and `stats.json` with the costs and the
settings that everything came from. `stats.json` is written last and removed first, so a folder that has it is whole.
An evaluation whose settings are already there is not done again: an interrupted sweep goes on where it stopped.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splade.datasets.beir import CQADUPSTACK_FORUMS, URL, BeirDataset, find_or_download
from splade.datasets.runs import read_run
from splade.errors import DataError
from splade.evaluation.beir_protocol import evaluate_beir
from splade.evaluation.checks import Finding, check_run, check_scores, raise_errors, warning_messages
from splade.storage.atomic import read_json, write_json

PERF_FILE, STATS_FILE, RUN_FILE = "perf.json", "stats.json", "run.json"
CQADUPSTACK = "cqadupstack"


@dataclass(frozen=True)
class DatasetResult:
    """A system on a data set.

    Attributes:
        system: label of the system in tables.
        dataset: name of the data set.
        split: of the judgements.
        metrics: `NDCG@10`, `Recall@100`, `R_cap@100`.
        stats: costs, as in `stats.json`.
        folder: where the files are.
        warnings: what looks wrong.
        reused: whether an earlier evaluation had already been through.
    """

    system: str
    dataset: str
    split: str
    metrics: dict[str, float]
    stats: dict[str, Any]
    folder: Path
    warnings: tuple[Finding, ...]
    reused: bool

    def lines(self) -> list[str]:
        """Return effectiveness and cost."""
        effectiveness = "  ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        costs = self.stats
        earlier = " (evaluated earlier with the same settings)" if self.reused else ""
        return [
            f"{self.dataset} ({self.split}), {self.system}: {effectiveness}{earlier}",
            f"  {costs['L0_d']:.1f} terms per document, {costs['L0_q']:.1f} per query, flops {costs['flops']:.3f}, "
            f"index {costs['index_bytes'] / 1e6:.1f} MB, {costs['search_ms_per_query']:.2f} ms search per query "
            f"({costs['n_threads']} thread{'s' if costs['n_threads'] > 1 else ''})",
            f"  in {self.folder}",
        ]


def open_datasets(name: str, folder: Path, split: str, url: str | None) -> list[tuple[str, BeirDataset]]:
    """Open a data set by its name; `cqadupstack` stands for its twelve sub-forums.

    Raises:
        DataError: it is not there and cannot be downloaded, or something is missing in it.
    """
    found = find_or_download(name, folder, url=url or URL)
    if name.strip("/") != CQADUPSTACK:
        return [(name.strip("/"), BeirDataset(found, split))]
    missing = [forum for forum in CQADUPSTACK_FORUMS if not (found / forum).is_dir()]
    if missing:
        raise DataError(
            f"{found.absolute()}: the sub-forums {', '.join(missing)} are missing, so there is no average; evaluate "
            "one with beir.dataset=cqadupstack/FORUM"
        )
    return [(f"{CQADUPSTACK}/{forum}", BeirDataset(found / forum, split)) for forum in CQADUPSTACK_FORUMS]


def dataset_identity(data: BeirDataset, source: str) -> dict[str, str]:
    """Identify collection (`source`), queries and judgements of a split."""
    return {
        "source": source,
        "split": data.split,
        "queries": digest(f"{query_id}\t{text}" for query_id, text in data.queries.items()),
        "qrels": digest(f"{query_id} {sorted(documents.items())}" for query_id, documents in data.qrels.items()),
    }


def digest(lines: Iterable[str]) -> str:
    """Return a digest of some texts, in their order."""
    value = hashlib.sha256()
    for line in lines:
        value.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return value.hexdigest()[:16]


def finished_result(
    system: str, dataset: str, split: str, folder: Path, settings: Mapping[str, Any]
) -> DatasetResult | None:
    """Return the result in a folder if it came from the very same settings; else make room for a new one."""
    try:
        stats, metrics = read_json(folder / STATS_FILE), read_json(folder / PERF_FILE)
    except DataError:
        stats = metrics = {}
    if stats and stats.get("settings") == dict(settings) and (folder / RUN_FILE).is_file():
        warnings = tuple(Finding("warning", "earlier", message) for message in stats.get("warnings", ()))
        return DatasetResult(system, dataset, split, metrics, stats, folder, warnings, reused=True)
    for name in (STATS_FILE, PERF_FILE):
        (folder / name).unlink(missing_ok=True)
    return None


def judge_and_store(
    system: str,
    dataset: str,
    data: BeirDataset,
    folder: Path,
    settings: Mapping[str, Any],
    stats: Mapping[str, Any],
    warnings: Iterable[Finding] = (),
) -> DatasetResult:
    """Evaluate `folder/run.json` and write `perf.json`, then `stats.json`.

    Raises:
        DataError: the run does not belong to the judgements, or ranks nothing.
    """
    run = read_run(folder / RUN_FILE)
    found = [*warnings, *raise_errors([*check_run(run, data.qrels), *check_scores(run)])]
    metrics = evaluate_beir(run, data.qrels)
    kept = {"label": system, "dataset": dataset, "split": data.split, **stats}
    kept |= {"warnings": warning_messages(found), "settings": dict(settings)}
    write_json(folder / PERF_FILE, metrics)
    write_json(folder / STATS_FILE, kept)
    return DatasetResult(system, dataset, data.split, metrics, kept, folder, tuple(found), reused=False)


def store_average(results: Iterable[DatasetResult], folder: Path) -> dict[str, float]:
    """Write the mean of several results, as published for CQADupStack, to `folder/perf.json`."""
    metrics = [result.metrics for result in results]
    average = {name: sum(values[name] for values in metrics) / len(metrics) for name in metrics[0]}
    write_json(folder / PERF_FILE, average)
    return average
