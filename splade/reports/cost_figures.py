"""Effectiveness against cost over the runs of a sweep, and against the value of what was swept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splade.config.jobs import JobRecord
from splade.config.sweep import short_names
from splade.errors import DataError
from splade.evaluation.costs import Costs
from splade.evaluation.measures import display_names
from splade.reports.figure_style import BLACK, BLUE, Row, drawn_figure, line_style
from splade.reports.summaries import query_times

COST_AXES = {
    "flops": "FLOPS per query and document",
    "index_bytes": "index, MB",
    "search_ms_per_query": "search, ms per query",
}
"""The costs that are drawn, where the runs differ in them."""
_MOST_LABELS = 12
_NOISE = 0.02


@dataclass(frozen=True)
class JobPoint:
    """A job of a sweep on one data set.

    Attributes:
        label: its swept values.
        values: swept key, short, to its value.
        metrics: name to value.
        costs: its costs.
    """

    label: str
    values: dict[str, str]
    metrics: dict[str, float]
    costs: Costs

    def cost(self, name: str) -> float | None:
        """Return a cost in the unit of its axis; None where it is not known."""
        if name == "search_ms_per_query":
            return query_times(self.costs)[1]
        value = getattr(self.costs, name)
        return value / 1e6 if name == "index_bytes" and value is not None else value


def job_points(records: Sequence[JobRecord]) -> dict[str, list[JobPoint]]:
    """Return data set to the points of the jobs that have a metric on it."""
    names = short_names({key: "" for record in records for key in record.swept})
    points: dict[str, list[JobPoint]] = {}
    for record in records:
        values = {names[key]: value for key, value in record.swept.items()}
        label = ", ".join(f"{name}={value}" for name, value in values.items())
        for one in record.figures:
            if one.metrics and "loss" not in next(iter(one.metrics)):
                point = JobPoint(label, values, dict(one.metrics), Costs.from_json(one.costs))
                points.setdefault(one.dataset, []).append(point)
    return points


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which (cost, effectiveness) points no other one beats in both, cheapest first.

    Example:
        >>> pareto_front([(1, 0.5), (2, 0.4), (3, 0.7), (3, 0.6)])
        [0, 2]
    """
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def plot_pareto(points: Sequence[JobPoint], path: Path, subject: str = "") -> None:
    """Draw the first metric against each cost in which the runs differ; a line joins those that none beats in both.

    Raises:
        DataError: fewer than two runs with a metric, or no cost in which they differ.
    """
    metric = next(iter(points[0].metrics)) if points else ""
    shown = [point for point in points if metric in point.metrics]
    axes_of = [name for name in COST_AXES if len({point.cost(name) for point in shown} - {None}) > 1]
    if len(shown) < 2 or not axes_of:
        raise DataError("needs two runs with a metric, and a cost in which they differ")
    label = display_names([metric])[metric]
    header = ("run", label, *(COST_AXES[name] for name in axes_of))
    rows: list[Row] = [(point.label, point.metrics[metric], *(point.cost(name) for name in axes_of)) for point in shown]
    with drawn_figure(path, header, rows, (4.6 * len(axes_of) + 0.6, 4.2)) as figure:
        grid = figure.subplots(1, len(axes_of), sharey=True, squeeze=False)[0]
        for axes, name in zip(grid, axes_of, strict=True):
            known = [(cost, point) for point in shown if (cost := point.cost(name)) is not None]
            pairs = [(cost, point.metrics[metric]) for cost, point in known]
            front = pareto_front(pairs)
            axes.plot(*zip(*pairs, strict=True), linestyle="", marker="o", color="white", markeredgecolor=BLACK)
            axes.plot(*zip(*(pairs[i] for i in front), strict=True), color=BLUE, marker="o", drawstyle="steps-post")
            if len(known) <= _MOST_LABELS:
                for (cost, value), (_, point) in zip(pairs, known, strict=True):
                    place = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 7}
                    axes.annotate(point.label, (cost, value), parse_math=False, **place)
            axes.margins(x=0.15, y=0.12)
            axes.set_xlabel(COST_AXES[name])
        grid[0].set_ylabel(label)
        lines = "filled: none is cheaper and better"
        figure.suptitle("\n".join(filter(None, [subject, lines])), fontsize=11, parse_math=False)


def plot_swept_value(points: Sequence[JobPoint], path: Path, subject: str = "") -> None:
    """Draw metrics, and the costs that change, against the one number that was swept: effort, pruning, lambda ...

    Raises:
        DataError: several keys were swept, or one that is no number, or fewer than two values.
    """
    keys = {key for point in points for key in point.values if len({one.values.get(key) for one in points}) > 1}
    key = keys.pop() if len(keys) == 1 else ""
    try:
        numbered = [(float(point.values[key]), point) for point in points] if key else []
    except (ValueError, KeyError):
        numbered = []
    at = sorted(numbered, key=lambda pair: pair[0])
    if len(at) < 2:
        raise DataError("needs one swept key whose values are numbers, two or more of them")
    metrics = list(dict.fromkeys(name for _, point in at for name in point.metrics))
    names = display_names(metrics)
    costs = [name for name in COST_AXES if len({point.cost(name) for _, point in at} - {None}) > 1]
    header = (key, *names.values(), *(COST_AXES[name] for name in costs))
    rows: list[Row] = [
        (value, *(point.metrics.get(name) for name in metrics), *(point.cost(name) for name in costs))
        for value, point in at
    ]
    with drawn_figure(path, header, rows, (4.6 * (1 + bool(costs)) + 0.6, 4.2)) as figure:
        grid = figure.subplots(1, 1 + bool(costs), squeeze=False)[0]
        for number, name in enumerate(metrics):
            curve = [(value, point.metrics[name]) for value, point in at if name in point.metrics]
            grid[0].plot(*zip(*curve, strict=True), label=names[name], **line_style(number))
        grid[0].set_ylabel("effectiveness")
        grid[0].set_ylim(*_honest_limits([value for row in rows for value in row[1 : 1 + len(metrics)]]))
        for number, name in enumerate(costs):
            curve = [(value, cost) for value, point in at if (cost := point.cost(name)) is not None]
            most = max(cost for _, cost in curve)
            label = f"{COST_AXES[name]} (most: {most:.3g})"
            grid[1].plot(*zip(*((v, 100 * c / most) for v, c in curve), strict=True), label=label, **line_style(number))
        if costs:
            grid[1].set_ylabel("cost, % of the largest")
            grid[1].set_ylim(0, 105)
        for axes in grid:
            axes.set_xlabel(key)
            axes.legend()
        figure.suptitle("\n".join(filter(None, [subject, f"over {key}"])), fontsize=11, parse_math=False)


def _honest_limits(values: Sequence[str | float | int | None]) -> tuple[float | None, float | None]:
    """Return limits that begin at 0 where all values are nearly the same: noise shall not look like a fall."""
    known = [float(value) for value in values if value is not None]
    nearly_same = max(known) - min(known) < _NOISE * max(map(abs, known))
    return (0.0, 1.05 * max(known)) if nearly_same and min(known) >= 0 < max(known) else (None, None)
