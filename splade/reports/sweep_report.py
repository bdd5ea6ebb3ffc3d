"""The tables that end a sweep: what was varied, effectiveness and costs; over several data sets a pivot per metric."""

from collections.abc import Sequence
from dataclasses import replace

from splade.config.jobs import Figures, JobRecord, Sweep, read_records
from splade.config.sweep import job_title, short_names
from splade.evaluation.costs import Costs
from splade.evaluation.measures import display_names
from splade.reports.beir_pivot import pivot_table
from splade.reports.summaries import COST_COLUMNS, cost_cells
from splade.reports.tables import Cell, Column, Table, write_table
from splade.storage.locks import FolderLock


def after_sweep(sweep: Sweep) -> str:
    """Write the tables of the sweep's jobs, and of the finished ones of earlier sweeps in its folder; return them.

    The files are `sweep_<task>.{txt,md,csv,json,tex}`.
    """
    assert sweep.folder is not None
    with FolderLock(sweep.folder, wait_s=60):
        records = read_records(sweep.folder, sweep.task)
        shown = [record for record in records if record.error is None or record.sweep == sweep.name]
        return write_table(sweep_table(shown), sweep.folder / f"sweep_{sweep.task}", sweep_pages(shown)).summary()


def sweep_pages(records: Sequence[JobRecord]) -> tuple[Table, ...]:
    """Return what is read and printed: over several data sets a pivot per metric and a table of costs.

    An average is that of all data sets that have the metric, where there are several.
    """
    whole = sweep_table(records)
    datasets = list(dict.fromkeys(one.dataset for record in records for one in record.figures))
    if len(datasets) < 2:
        return (whole,)
    metrics = list(dict.fromkeys(name for record in records for one in record.figures for name in one.metrics))
    pivots = []
    for metric, shown in display_names(metrics).items():
        values = {
            _title(record): {one.dataset: one.metrics[metric] for one in record.figures if metric in one.metrics}
            for record in records
        }
        n_datasets = max(map(len, values.values()))
        for of_job in values.values():
            if len(of_job) == n_datasets > 1:
                of_job[f"average of {n_datasets}"] = sum(of_job.values()) / n_datasets
        pivots.append(pivot_table(f"{_task(records)}: {shown} (measured here)", values, {}))
    costs = {"state", *(column.name for column in COST_COLUMNS)}
    kept = [i for i, column in enumerate(whole.columns) if i <= whole.n_keys or column.name in costs | {"data set"}]
    return (*pivots, replace(whole.only(kept), title=f"{_task(records)}: costs (measured here)", bold=frozenset()))


def _title(record: JobRecord) -> str:
    return job_title(record.swept) + (" (failed)" if record.error is not None else "")


def _task(records: Sequence[JobRecord]) -> str:
    return f"splade.{records[0].task.removeprefix('run_')}"


def sweep_table(records: Sequence[JobRecord]) -> Table:
    """Return one row per job and data set: its swept values, metrics, costs; a failed job has no figures.

    Over a single data set the best value of each metric is in bold.
    """
    swept = {key: "" for record in records for key in record.swept}
    names = short_names(swept)
    datasets = list(dict.fromkeys(one.dataset for record in records for one in record.figures))
    rows: list[tuple[Cell, ...]] = []
    metrics = list(dict.fromkeys(name for record in records for one in record.figures for name in one.metrics))
    for record in records:
        varied = [record.swept.get(key) for key in swept]
        state = None if record.error is None else "failed"
        for one in record.figures or (Figures(),):
            figures = [one.metrics.get(name) for name in metrics]
            dataset = one.dataset or None if len(datasets) > 1 else None
            rows.append((*varied, state, dataset, *figures, *cost_cells(Costs.from_json(one.costs))))
    keys = [*(Column(name) for name in names.values()), Column("state"), Column("data set")]
    columns = (*keys, *(Column(name) for name in display_names(metrics).values()), *COST_COLUMNS)
    title = f"{_task(records)}, {datasets[0]}" if len(datasets) == 1 and datasets[0] else _task(records)
    table = Table(title, columns, tuple(rows), n_keys=len(swept))
    if len(datasets) == 1:
        first = len(keys)
        table = table.with_best({first + i: "loss" not in name for i, name in enumerate(metrics)})
    return table.without_empty_columns()
