"""The results of many BEIR evaluations in one table, with costs, averages and published values.

Each evaluation leaves two files in `out_dir/beir/<dataset>/`:

- `perf.json`: `{"NDCG@10": ..., "Recall@100": ..., "R_cap@100": ...}`, metric to value;
- `stats.json` (may be missing, and so may each key): the `Costs`, and `label`, the system's name in tables;
- `perf_by_query.json` (may be missing): `{"nDCG@10": {query_id: ...}, "R@100": ...}`, to test differences.

Several systems share one `out_dir`: each but the first has its `beir/` in a sub-folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from splade.datasets.beir import CQADUPSTACK_FORUMS
from splade.errors import ConfigError, DataError, nearest
from splade.evaluation.costs import Costs
from splade.evaluation.metrics import mean_metrics
from splade.reports.beir_pivot import pivot_table
from splade.reports.published import BEIR_13, PUBLISHED_SYSTEMS, PublishedSystem, published_system
from splade.reports.summaries import COST_COLUMNS, cost_cells
from splade.reports.tables import Cell, Column, Table, WrittenTable, write_table
from splade.storage.atomic import read_json, read_json_object, read_numbers
from splade.storage.locks import FolderLock

BY_QUERY_FILE = "perf_by_query.json"
_METRICS = ("NDCG@10", "Recall@100", "R_cap@100")
_PIVOTS = {"NDCG@10": "nDCG@10", "Recall@100": "R@100"}
# Meaningful as a mean over data sets; index sizes and thread counts are not.
_AVERAGED_COSTS = ("L0_d", "L0_q", "flops", "encoding_ms_per_query", "search_ms_per_query")
# Written beside its sub-forums; it is their mean, which the table forms itself.
_AVERAGE_OF_FORUMS = "cqadupstack"

_COLUMNS = (
    Column("data set"),
    Column("nDCG@10", origin="measured"),
    Column("nDCG@10", origin="published"),
    Column("nDCG@10", signed=True, origin="difference"),
    Column("R@100", origin="measured"),
    Column("R@100", origin="published"),
    Column("R@100", signed=True, origin="difference"),
    Column("R_cap@100", origin="measured"),
    *COST_COLUMNS,
)


@dataclass(frozen=True)
class SweepEntry:
    """One evaluation: a system on a data set (a sub-forum is `cqadupstack/android`), or the average over several.

    Attributes:
        metrics: `NDCG@10`, `Recall@100`, `R_cap@100`.
        averaged: the data sets that an average is over.
        by_query: metric as in tables to {query id: value}; empty where nobody knows.
    """

    system: str
    dataset: str
    metrics: dict[str, float]
    costs: Costs
    averaged: tuple[str, ...] = ()
    by_query: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def write_beir_table(out_dir: Path, reference: str | None = None) -> WrittenTable:
    """Write `out_dir/beir_table.{txt,md,csv,json,tex}` from all results in `out_dir` and the folders directly below.

    Raises:
        ConfigError: no published results of the name `reference` (see `sweep_table`).
        DataError: there is no result.
    """
    find_systems(out_dir)  # before a folder is made that is not there
    with FolderLock(out_dir, wait_s=60):  # else the table of one of two evaluations could lack the other
        entries = collect_sweep(find_systems(out_dir))
        return write_table(
            sweep_table(entries, reference), out_dir / "beir_table", pages=beir_tables(entries, reference)
        )


def collect_sweep(out_dirs: Mapping[str, str | Path]) -> tuple[SweepEntry, ...]:
    """Read the results of each system, given by its label, below its `out_dir/beir/`.

    Raises:
        DataError: a folder holds no result, or a result lacks a metric.
    """
    entries = []
    for system, out_dir in out_dirs.items():
        root = Path(out_dir) / "beir"
        paths = sorted(root.rglob("perf.json"))
        if not paths:
            raise DataError(f"{root.absolute()}: no <dataset>/perf.json in there; has the evaluation been run?")
        named = [(path, path.parent.relative_to(root).as_posix()) for path in paths]
        entries += [_read(system, path, dataset) for path, dataset in named if dataset != _AVERAGE_OF_FORUMS]
    return tuple(entries)


def find_systems(out_dir: str | Path) -> dict[str, Path]:
    """Return label to folder for every system with results in `out_dir` or in a folder directly below it.

    The label is the one in `stats.json`, else the model's name there, else the folder's; BM25 comes first.

    Raises:
        DataError: there is no result at all.
    """
    out_dir = Path(out_dir)
    children = sorted(path for path in out_dir.iterdir() if path.is_dir()) if out_dir.is_dir() else []
    folders = [folder for folder in [out_dir, *children] if any((folder / "beir").rglob("perf.json"))]
    if not folders:
        raise DataError(
            f"{out_dir.absolute()}: no results (beir/<dataset>/perf.json) in it or in a folder below; evaluate first: "
            "python -m splade.beir_eval"
        )
    systems: dict[str, Path] = {}
    for folder in sorted(folders, key=lambda folder: not folder.name.startswith("bm25")):
        label = _label(folder)
        systems[label if label not in systems else f"{label} ({folder.name})"] = folder
    return systems


def _label(folder: Path) -> str:
    stats_of_one = next(iter(sorted((folder / "beir").rglob("stats.json"))), None)
    stats = read_json(stats_of_one) if stats_of_one is not None else {}
    return str(stats.get("label") or stats.get("model") or folder.name) if isinstance(stats, dict) else folder.name


def beir_tables(entries: Sequence[SweepEntry], reference: str | None = None) -> tuple[Table, ...]:
    """Return what is read and printed: a pivot per metric, costs, and the comparison with published values, if any.

    A single result needs no pivot. The arguments are those of `sweep_table`.
    """
    whole = sweep_table(entries, reference)
    systems = list(dict.fromkeys(entry.system for entry in entries))
    ordered = {system: _with_averages([entry for entry in entries if entry.system == system]) for system in systems}
    if max(map(len, ordered.values())) == len(systems) == 1:
        return (whole,)
    pivots = []
    for name, heading in _PIVOTS.items():
        values = {
            system: {one.dataset: one.metrics[name] for one in of_system} for system, of_system in ordered.items()
        }
        by_query = {
            system: {one.dataset: one.by_query[heading] for one in of_system if heading in one.by_query}
            for system, of_system in ordered.items()
        }
        pivots.append(pivot_table(f"BEIR: {heading} (measured here)", values, by_query))
    costs = {column.name for column in COST_COLUMNS}
    keys = tuple(range(whole.n_keys))
    dear = whole.only([i for i, column in enumerate(whole.columns) if i in keys or column.name in costs])
    compared = [i for i, column in enumerate(whole.columns) if i in keys or column.origin is not None]
    tables = [*pivots, replace(dear, title="BEIR: costs (measured here)", notes=())]
    if any(column.origin == "published" for column in whole.columns):
        tables.append(replace(whole.only(compared), title="BEIR: measured here and published by others"))
    return tuple(tables)


def sweep_table(entries: Sequence[SweepEntry], reference: str | None = None) -> Table:
    """Return one table: data sets under each system, then averages.

    CQADupStack counts as one data set: the mean over its twelve sub-forums, once all of them are there. Published
    columns appear only when there is a published value for a row.

    Args:
        entries: from `collect_sweep`, or made by hand.
        reference: name of the published system to compare with (`BM25 flat`, `SPLADE++ ED`, `SPLADE-v3`); None takes
            for each system the results published for the very same model, if any.

    Raises:
        ConfigError: unknown reference.
        DataError: no entries, or two for the same system and data set.
    """
    reference = next((name for name in PUBLISHED_SYSTEMS if name.lower() == (reference or "").lower()), reference)
    if reference is not None and reference not in PUBLISHED_SYSTEMS:
        known = ", ".join(PUBLISHED_SYSTEMS)
        raise ConfigError(
            f"no published results of {reference!r}{nearest(reference, PUBLISHED_SYSTEMS)}; known: {known}"
        )
    if not entries:
        raise DataError("there is no result to put into the table")
    systems = list(dict.fromkeys(entry.system for entry in entries))
    rows: list[tuple[Cell, ...]] = []
    compared: list[PublishedSystem] = []
    for system in systems:
        own = [entry for entry in entries if entry.system == system]
        published = PUBLISHED_SYSTEMS[reference] if reference is not None else published_system(_model(own))
        if published is not None and not any(entry.dataset in published.ndcg_10 for entry in own):
            published = None
        compared += [published] if published is not None and published not in compared else []
        rows += [(system, *_row(entry, published)) for entry in _with_averages(own)]
    columns = (Column("model"), *_COLUMNS)
    table = Table("BEIR", columns, tuple(rows), _notes(compared), n_keys=2)
    if len(systems) == 1:
        table = Table(f"BEIR: {systems[0]}", _COLUMNS, tuple(row[1:] for row in rows), _notes(compared))
    return table.without_empty_columns()


def _read(system: str, path: Path, dataset: str) -> SweepEntry:
    metrics = read_numbers(path)
    for name in _METRICS:
        if name not in metrics:
            raise DataError(f"{path}: no value of {name}; expected {{{', '.join(_METRICS)}}}")
    stats_path = path.with_name("stats.json")
    stats = read_json_object(stats_path) if stats_path.is_file() else {}
    own = {name: float(metrics[name]) for name in _METRICS}
    by_query_path = path.with_name(BY_QUERY_FILE)
    by_query = read_json_object(by_query_path) if by_query_path.is_file() else {}
    return SweepEntry(system, dataset, own, Costs.from_json(stats, str(stats_path)), by_query=by_query)


def _model(entries: Sequence[SweepEntry]) -> str:
    """Name of the evaluated model, which the label of the system stands in for."""
    return next((entry.costs.model for entry in entries if entry.costs.model is not None), entries[0].system)


def _with_averages(entries: Sequence[SweepEntry]) -> list[SweepEntry]:
    """Order the data sets as papers do and add the averages that can be formed."""
    by_name = {entry.dataset.replace("cqadupstack-", "cqadupstack/"): entry for entry in entries}
    if len(by_name) < len(entries):
        raise DataError(f"{entries[0].system}: two results for the same data set among {sorted(by_name)}")
    forums = [by_name.pop(f"cqadupstack/{forum}", None) for forum in CQADUPSTACK_FORUMS]
    present = [entry for entry in forums if entry is not None]
    known = [by_name.pop(name) for name in BEIR_13 if name in by_name]
    others = [by_name[name] for name in sorted(by_name)]
    ordered = [*known, *others, *present]
    if len(present) == len(CQADUPSTACK_FORUMS):
        cqadupstack = _average("cqadupstack (12 forums)", present)
        others.append(cqadupstack)
        ordered.append(cqadupstack)
    if len(known) == len(BEIR_13):
        ordered.append(_average("BEIR-13 average", known))
    if len(known) < len(BEIR_13) and len(known + others) > 1 or len(known) == len(BEIR_13) and others:
        ordered.append(_average(f"average of {len(known + others)}", [*known, *others]))
    return ordered


def _average(name: str, entries: Sequence[SweepEntry]) -> SweepEntry:
    all_costs = [entry.costs.to_json() for entry in entries]
    known = [key for key in _AVERAGED_COSTS if all(key in costs for costs in all_costs)]
    costs = mean_metrics([{key: float(costs[key]) for key in known} for costs in all_costs])
    datasets = tuple(entry.dataset for entry in entries)
    metrics = mean_metrics([entry.metrics for entry in entries])
    return SweepEntry(entries[0].system, name, metrics, Costs.from_json(costs), datasets)


def _row(entry: SweepEntry, published: PublishedSystem | None) -> tuple[Cell, ...]:
    datasets = entry.averaged or (entry.dataset,)
    own_ndcg, own_recall, r_cap = (entry.metrics[name] for name in _METRICS)
    ndcg = _published_mean(published.ndcg_10, datasets) if published is not None else None
    recall = _published_mean(published.recall_100, datasets) if published is not None else None
    return (
        entry.dataset,
        *(own_ndcg, ndcg, own_ndcg - ndcg if ndcg is not None else None),
        *(own_recall, recall, own_recall - recall if recall is not None else None),
        r_cap,
        *cost_cells(entry.costs),
    )


def _published_mean(values: Mapping[str, float], datasets: Sequence[str]) -> float | None:
    """Mean over the data sets, provided that each has a published value."""
    if not all(dataset in values for dataset in datasets):
        return None
    return sum(values[dataset] for dataset in datasets) / len(datasets)


def _notes(compared: Sequence[PublishedSystem]) -> tuple[str, ...]:
    notes = ["measured: computed here, by this evaluation; costs are measured here too."]
    notes += [f"published: {system.name}, reported by others ({system.source})." for system in compared]
    if compared:
        notes.append("difference: measured minus published.")
    return tuple(notes)
