"""Figures of a training run, from the logs beside its checkpoints."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from splade.config.schema import RegularizerConfig
from splade.errors import DataError
from splade.reports.figure_style import Row, drawn_figure, line_style

Log = dict[str, list[tuple[int, float]]]
_PREFIX = "eval_"
_OTHERS = {
    *(f"{name}_{side}" for name in ("L0", "flops", "sparsity", "ranking_L0") for side in "qd"),
    *("loss", "learning_rate", "ranking_flops", "epoch", "steps_per_second", "grad_norm"),
}


def read_log(path: Path) -> Log:
    """Return name to (step, value) of a log in CSV; what is missing or not finite in a row is left out.

    Raises:
        DataError: it has no column `step`, or a step is no number.
    """
    log: Log = {}
    with open(path, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                step = int(float(row["step"]))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{path}:{number}: expected a number under 'step'") from error
            for name, text in row.items():
                value = _number(text)
                if name is not None and name != "step" and value is not None:
                    log.setdefault(name.removeprefix(_PREFIX), []).append((step, value))
    return log


def plot_training(training: Log, validation: Log, lambdas: Log, path: Path, subject: str = "") -> None:
    """Draw what was logged over steps: losses, their parts, lambdas, sparsity, validation; a panel each.

    A panel without curves is left out.

    Raises:
        DataError: nothing was logged twice: a curve needs two points.
    """
    panels = _panels(training, validation, lambdas)
    if not panels:
        raise DataError("fewer than two points of any value were logged")
    rows: list[Row] = [
        (heading, label, step, value)
        for heading, curves in panels
        for label, points in curves.items()
        for step, value in points
    ]
    size = 10.0, 3.2 * -(-len(panels) // 2)
    with drawn_figure(path, ("panel", "curve", "step", "value"), rows, size) as figure:
        grid = figure.subplots(-(-len(panels) // 2), min(2, len(panels)), squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for axes, (heading, curves) in zip(grid.flat, panels, strict=False):
            for number, (label, points) in enumerate(curves.items()):
                style = line_style(number) | ({"marker": ""} if len(points) > 25 else {})
                axes.plot(*zip(*points, strict=True), label=label, **style)
            axes.set_xlabel("optimiser steps")
            axes.set_ylabel(heading)
            if any(curves):
                axes.legend()
            if all(value >= 0 for points in curves.values() for _, value in points):
                axes.set_ylim(bottom=0)
        if subject:
            figure.suptitle(subject, fontsize=11, parse_math=False)


def scheduled_lambdas(regularizers: Mapping[str, RegularizerConfig], last_step: int) -> Log:
    """Return the lambdas of regularisers by step: `lambda * min(1, t / T)^2`; none of those that follow a target."""
    lambdas: Log = {}
    steps = range(0, last_step + 1, max(1, last_step // 200))
    for name, entry in regularizers.items():
        for side, value in (("q", entry.lambda_q), ("d", entry.lambda_d)):
            if value is not None and entry.target_terms is None:
                lambdas[f"{name}_{side}"] = [
                    (step, value * (min(1.0, step / entry.T) ** 2 if entry.T else 1.0)) for step in steps
                ]
    return lambdas


def _panels(training: Log, validation: Log, lambdas: Log) -> list[tuple[str, Log]]:
    """Sort the values into panels of one unit each; a curve has at least two points."""
    both = {"training": training, "validation": validation}

    def sides(prefix: str) -> Log:
        return {
            f"{side}, {when}": log[f"{prefix}_{side[0]}"]
            for side in ("queries", "documents")
            for when, log in both.items()
            if f"{prefix}_{side[0]}" in log
        }

    parts = {name: one for name, one in training.items() if name not in _OTHERS}
    ranked = {name: one for name, one in validation.items() if name not in training and name not in _OTHERS}
    panels = [
        ("loss", {when: log["loss"] for when, log in both.items() if "loss" in log}),
        ("part of the loss, training", parts if len(parts) > 1 else {}),
        ("weight lambda", lambdas),
        ("terms per text", sides("L0")),
        ("FLOPS between texts of a batch", sides("flops")),
        ("validation by ranking", {name.removeprefix("ranking_"): one for name, one in ranked.items()}),
        ("learning rate", {"": training.get("learning_rate", [])}),
    ]
    drawn = ((heading, {name: one for name, one in curves.items() if len(one) > 1}) for heading, curves in panels)
    return [(heading, curves) for heading, curves in drawn if curves]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
