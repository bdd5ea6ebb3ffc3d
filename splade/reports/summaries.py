"""The lines that task summaries are made of: effectiveness, never without its costs, and what looks wrong."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from splade.config.jobs import Figures
from splade.evaluation.checks import Finding
from splade.evaluation.costs import Costs
from splade.evaluation.measures import display_names
from splade.reports.tables import Cell, Column, Table

COST_COLUMNS = (
    Column("terms /doc", digits=1),
    Column("terms /query", digits=1),
    Column("FLOPS", digits=2),
    Column("index MB", digits=1),
    Column("encode ms /query", digits=2),
    Column("search ms /query", digits=2),
    Column("threads"),
    Column("overlap@10", digits=3),
    Column("pairs /query", digits=0),
    Column("rerank ms /query", digits=1),
    Column("reranker M", digits=1),
)

FEWEST_TIMED_QUERIES, LEAST_TIMED_MS = 50, 50
"""Mean times of fewer queries, or of so little time in all, are noise and not shown; files have them."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What a task has done, for the user.

    Attributes:
        text: effectiveness, costs, and where the files are.
        findings: what looks wrong.
    """

    text: str
    findings: tuple[Finding, ...] = ()

    def summary(self) -> str:
        """Return the text, then the warnings."""
        return "\n".join([self.text, *warning_block(self.findings)])

    def figures(self) -> Sequence[Figures]:
        """Return what the table of a sweep shows of this; by default nothing."""
        return ()


def metric_line(metrics: Mapping[str, float]) -> str:
    """Return metrics on one line.

    Example:
        >>> metric_line({"NDCG@10": 0.64362, "Recall@100": 0.893})
        'nDCG@10 0.6436  R@100 0.8930'
    """
    names = display_names(metrics)
    return "  ".join(f"{names[name]} {value:.4f}" for name, value in metrics.items())


def cost_line(costs: Costs) -> str:
    """Return the known costs on one line.

    Example:
        >>> cost_line(Costs(n_queries=50, L0_q=22.04, flops=1.5, search_ms_per_query=1.8, n_threads=2))
        '50 queries, 22.0 terms per query, flops 1.500, 1.80 ms search per query (2 threads)'
    """
    encode_ms, search_ms = query_times(costs)
    known = [
        (costs.n_queries, "{} queries"),
        (costs.n_docs, "{} documents"),
        (costs.L0_d, "{:.1f} terms per document"),
        (costs.L0_q, "{:.1f} terms per query" if costs.L0_d is None else "{:.1f} per query"),
        (costs.flops, "flops {:.3f}"),
        (_megabytes(costs), "index {:.1f} MB"),
        (encode_ms, "{:.2f} ms encoding per query"),
        (search_ms, f"{{:.2f}} ms search per query{_threads(costs)}"),
        (costs.overlap_at_10, f"{costs.search} search: overlap@10 with exact search {{:.3f}}"),
        (costs.pairs_per_query, "{:.0f} pairs per query"),
        (costs.reranking_ms_per_query, "{:.1f} ms reranking per query"),
        (_millions(costs.n_parameters), "reranker of {:.1f} M parameters"),
        (costs.n_empty_queries or None, "queries without any term, which find nothing: {}"),
    ]
    return ", ".join(text.format(value) for value, text in known if value is not None)


def cost_figures(costs: Costs) -> dict[str, str]:
    """Return the known costs as name and text, for summaries that show one below the other."""
    encode_ms, search_ms = query_times(costs)
    known = {
        "terms per document": (costs.L0_d, 1),
        "terms per query": (costs.L0_q, 1),
        "flops": (costs.flops, 3),
        "index, MB": (_megabytes(costs), 2),
        f"encoding, ms per query (mean of {costs.n_queries})": (encode_ms, 2),
        f"search, ms per query{_threads(costs)}": (search_ms, 3),
        f"{costs.search} search, overlap@10": (costs.overlap_at_10, 3),
        "pairs per query": (costs.pairs_per_query, 1),
        "reranking, ms per query": (costs.reranking_ms_per_query, 2),
        "reranker, M parameters": (_millions(costs.n_parameters), 2),
    }
    return {name: f"{value:.{digits}f}" for name, (value, digits) in known.items() if value is not None}


def before_after_table(name: str, columns: Mapping[str, tuple[Mapping[str, float], Costs]]) -> str:
    """Return effectiveness, then costs, one figure a line and one column for each stage of a model, under a name.

    `columns` are heading (`before`, `after`) to metrics and costs. A single column gets no heading.

    Example:
        >>> print(before_after_table("TOY", {"before": ({"RR": 0.5}, Costs()), "after": ({"RR": 0.75}, Costs())}))
        TOY
                before     after
          MRR    0.5000    0.7500
    """
    figures = [
        {display_names(metrics)[metric]: f"{value:.4f}" for metric, value in metrics.items()} | cost_figures(costs)
        for metrics, costs in columns.values()
    ]
    labels = dict.fromkeys(label for one in reversed(figures) for label in one)
    width = max(map(len, labels), default=0)
    rows = {label: [one.get(label, "") for one in figures] for label in labels}
    if len(columns) > 1:
        rows = {"": list(columns)} | rows
    lines = [f"  {label:{width}}" + "".join(f"{cell:>10}" for cell in cells) for label, cells in rows.items()]
    return "\n".join([name, *lines])


def costs_table(systems: Mapping[str, Costs]) -> Table:
    """Return one row of costs per system, without the columns that nobody knows."""
    rows = tuple((system, *cost_cells(costs)) for system, costs in systems.items())
    return Table("Costs (measured here)", (Column("system"), *COST_COLUMNS), rows).without_empty_columns()


def cost_cells(costs: Costs) -> tuple[Cell, ...]:
    """Return the cells under `COST_COLUMNS`."""
    terms = (costs.L0_d, costs.L0_q, costs.flops, _megabytes(costs))
    encode_ms, search_ms = query_times(costs)
    own = (*terms, encode_ms, search_ms, None if search_ms is None else costs.n_threads, costs.overlap_at_10)
    return (*own, costs.pairs_per_query, costs.reranking_ms_per_query, _millions(costs.n_parameters))


def query_times(costs: Costs) -> tuple[float | None, float | None]:
    """Return milliseconds of encoding and of searching per query; None where the sample makes the mean noise.

    A number of queries that nobody knows, as in files of other programs, is taken to be enough.
    """
    n, times = costs.n_queries, (costs.encoding_ms_per_query, costs.search_ms_per_query)
    if n is None:
        return times
    encode_ms, search_ms = (
        mean if mean is not None and n >= FEWEST_TIMED_QUERIES and mean * n >= LEAST_TIMED_MS else None
        for mean in times
    )
    return encode_ms, search_ms


def warning_block(findings: Sequence[Finding]) -> list[str]:
    """Return the lines that end a summary, set apart so that nobody reads past them; none without findings."""
    if not findings:
        return []
    lines = ["", f"WARNING: {len(findings)} thing{'s' if len(findings) > 1 else ''} to look at before using this:"]
    for finding in findings:
        lines += textwrap.wrap(finding.message, 110, initial_indent="  - ", subsequent_indent="    ")
    return lines


def _millions(number: int | None) -> float | None:
    return None if number is None else number / 1e6


def _megabytes(costs: Costs) -> float | None:
    return None if costs.index_bytes is None else costs.index_bytes / 1e6


def _threads(costs: Costs) -> str:
    return "" if costs.n_threads is None else f" ({costs.n_threads} thread{'s' if costs.n_threads > 1 else ''})"
