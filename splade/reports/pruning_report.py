"""What static pruning costs and saves: a table, and effectiveness drawn against size and latency."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splade.config.jobs import Figures
from splade.evaluation.costs import Costs
from splade.evaluation.measures import display_names
from splade.reports.figure_style import BLACK, drawn_figure, line_style
from splade.reports.summaries import COST_COLUMNS, cost_cells, query_times
from splade.reports.tables import Cell, Column, Table, write_table


@dataclass(frozen=True)
class PrunedFigures:
    """An index on a data set.

    Attributes:
        setting: how it was pruned, for the table.
        method: the criteria without their values, which a line of the figure joins; empty: it was not.
        figures: metrics and costs.
    """

    setting: str
    method: str
    figures: Figures

    @property
    def costs(self) -> Costs:
        """The costs."""
        return Costs.from_json(self.figures.costs)


def write_pruning_report(rows: Sequence[PrunedFigures], stem: Path) -> str:
    """Write the table in all forms to `stem` with their suffixes and, where a metric is known, the figure as PNG.

    Returns:
        The table, and where the files are.
    """
    summary = write_table(pruning_table(rows), stem).summary()
    if not any(row.figures.metrics for row in rows):
        return summary
    plot_pruning(rows, stem.with_suffix(".png"))
    return f"{summary}\nfigure in {stem.with_suffix('.png')}"


def pruning_table(rows: Sequence[PrunedFigures]) -> Table:
    """Return one row per index and data set; beside each size its share of the first index's on that data set."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.figures.metrics))
    datasets = list(dict.fromkeys(row.figures.dataset for row in rows))
    whole = {dataset: next(row for row in rows if row.figures.dataset == dataset) for dataset in datasets}
    cells: list[tuple[Cell, ...]] = []
    for row in rows:
        size, of = row.costs.L0_d, whole[row.figures.dataset].costs.L0_d
        share = None if size is None or not of or whole[row.figures.dataset].method else size / of
        values = [row.figures.metrics.get(name) for name in metrics]
        dataset = row.figures.dataset if len(datasets) > 1 else None
        cells.append((row.setting, dataset, *values, share, *cost_cells(row.costs)))
    names = (Column(name) for name in display_names(metrics).values())
    columns = (Column("pruning"), Column("data set"), *names, Column("postings left", digits=3), *COST_COLUMNS)
    threads = {row.costs.n_threads for row in rows} - {None}
    if len(threads) == 1:
        n_before = len(columns) - len(COST_COLUMNS)
        place = n_before + [column.name for column in COST_COLUMNS].index("threads")
        columns = (*columns[:place], *columns[place + 1 :])
        cells = [(*row[:place], *row[place + 1 :]) for row in cells]
    notes = (f"Search threads: {threads.pop()}.",) if len(threads) == 1 else ()
    title = f"Static pruning, {datasets[0]}" if len(datasets) == 1 and datasets[0] else "Static pruning"
    return Table(title, columns, tuple(cells), notes).without_empty_columns()


def plot_pruning(rows: Sequence[PrunedFigures], path: Path) -> None:
    """Draw the first metric against index size and search time, a line for each method, on the first data set."""
    shown = [row for row in rows if row.figures.dataset == rows[0].figures.dataset and row.figures.metrics]
    metric = next(iter(shown[0].figures.metrics))
    name_of_metric = display_names([metric])[metric]
    points = [
        (
            *(row.method, row.setting, row.figures.metrics[metric]),
            *((row.costs.index_bytes or 0) / 1e6, query_times(row.costs)[1]),
        )
        for row in shown
    ]
    costs = ("index, MB", "search, ms per query")
    with drawn_figure(path, ("method", "setting", name_of_metric, *costs), points, (9.0, 4.0)) as figure:
        panels = [place for place in (3, 4) if any(point[place] is not None for point in points)]
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for number, method in enumerate(dict.fromkeys(row.method for row in shown)):
            style = line_style(number) if method else {"marker": "*", "markersize": 11, "color": BLACK, "linestyle": ""}
            for axes, place in zip(grid, panels, strict=True):
                known = [
                    (point[place], point[2]) for point in points if point[0] == method and point[place] is not None
                ]
                axes.plot(*zip(*known, strict=True) if known else ((), ()), label=method or "as it is", **style)
        for axes, place in zip(grid, panels, strict=True):
            axes.set_xlabel(costs[place - 3])
        grid[0].set_ylabel(name_of_metric)
        grid[0].legend(fontsize=8)
        figure.suptitle(", ".join(filter(None, ["static pruning", shown[0].figures.dataset])), parse_math=False)
