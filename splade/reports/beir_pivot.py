"""Results as papers show them: one metric, data sets and systems across, the best in bold, significance marked."""

from collections.abc import Mapping, Sequence

import numpy as np

from splade.evaluation.significance import correct, paired_t_test
from splade.reports.tables import Cell, Column, Table

ALPHA = 0.05
Values = Mapping[str, Mapping[str, float]]
"""System to data set to value; averages are among the data sets."""
ByQuery = Mapping[str, Mapping[str, Mapping[str, float]]]
"""System to data set to query id to value."""


def pivot_table(title: str, values: Values, by_query: ByQuery) -> Table:
    """Return a table of one metric; the longer of systems and data sets goes down.

    Args:
        title: names the metric.
        values: what is shown.
        by_query: values per query of the same metric, as far as they are known; the first system is the one that the
            others are tested against.
    """
    systems = list(values)
    datasets = list(dict.fromkeys(dataset for of_system in values.values() for dataset in of_system))
    significant = {
        (system, dataset) for dataset in datasets for system in significant_systems(systems, dataset, by_query)
    }
    down, across = (datasets, systems) if len(datasets) >= len(systems) else (systems, datasets)
    systems_across = across is systems
    rows: list[tuple[Cell, ...]] = []
    marks: dict[tuple[int, int], str] = {}
    for row, name in enumerate(down):
        pairs = [(other, name) if systems_across else (name, other) for other in across]
        rows.append((name, *(values[system].get(dataset) for system, dataset in pairs)))
        marks |= {(row, i): "*" for i, pair in enumerate(pairs, 1) if pair in significant}
    columns = (Column("data set" if systems_across else "model"), *(Column(name) for name in across))
    notes = [
        f"* differs from {systems[0]}: paired t-test over the queries, Holm correction over the models, p < {ALPHA}."
    ]
    table = Table(title, columns, tuple(rows), tuple(notes) if marks else (), marks=marks)
    return table.with_best(across=systems_across)


def significant_systems(systems: Sequence[str], dataset: str, by_query: ByQuery) -> list[str]:
    """Return the systems whose values per query on a data set differ from those of the first one beyond chance."""
    first = by_query.get(systems[0], {}).get(dataset)
    if first is None:
        return []
    p_values = {}
    for system in systems[1:]:
        other = by_query.get(system, {}).get(dataset)
        if other is not None and other.keys() == first.keys():
            p_values[system] = paired_t_test(np.array([other[query_id] - value for query_id, value in first.items()]))
    corrected = correct(list(p_values.values()))
    return [system for system, p_value in zip(p_values, corrected, strict=True) if p_value < ALPHA]
