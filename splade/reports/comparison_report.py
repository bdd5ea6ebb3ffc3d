"""A comparison as text for a terminal, as Markdown, JSON, or tables for a paper."""

import json
import re
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from splade.evaluation.comparison import Comparison, PairedDifference, QueryDifference, Retrieved
from splade.evaluation.measures import display_names
from splade.reports.tables import Cell, Column, Table, one_line, write_forms

_WIDTH = 110
_TESTS = {"t": "paired t-test", "randomisation": "paired randomisation test (10,000 sign assignments)"}
_CORRECTIONS = {"holm": "Holm", "bonferroni": "Bonferroni", "none": "no"}


def means_table(comparison: Comparison) -> Table:
    """Return one row per system, one column per metric."""
    columns = (Column("system"), *(Column(name) for name in display_names(comparison.metrics).values()))
    rows: tuple[tuple[Cell, ...], ...]
    rows = tuple((system, *values.values()) for system, values in comparison.means.items())
    notes = [f"{comparison.n_queries} judged queries, all of them counted."]
    for system, n_missing in comparison.missing.items():
        if n_missing:
            notes.append(f"{system} retrieves nothing for {n_missing} of them: they count as zero.")
    return Table("Effectiveness (measured here)", columns, rows, tuple(notes)).with_best()


def differences_table(comparison: Comparison) -> Table:
    """Return one row per metric and pair: difference, wins, ties, losses, p-values; `*` marks significant ones."""
    columns = (
        Column("metric"),
        Column("system"),
        Column("against"),
        Column("difference", signed=True),
        Column("wins"),
        Column("ties"),
        Column("losses"),
        Column("p", bounded=True),
        Column("p corrected", bounded=True),
    )
    names = display_names(comparison.metrics)
    rows = tuple(_difference_row(pair, names[pair.metric]) for pair in comparison.pairs)
    marks = {
        (row, len(columns) - 1): "*" for row, pair in enumerate(comparison.pairs) if pair.p_corrected < comparison.alpha
    }
    family = len(comparison.pairs) // len(comparison.metrics)
    note = f"{_TESTS[comparison.test]}, {_CORRECTIONS[comparison.correction]} correction"
    note += f" over {family} comparison{'s' if family > 1 else ''} per metric; * p < {comparison.alpha:g}."
    return Table("Differences", columns, rows, (note,), n_keys=3, marks=marks)


def render_comparison(comparison: Comparison, markdown: bool = False) -> str:
    """Return both tables, then the queries that differ most, as text or as Markdown."""
    tables = (means_table(comparison), differences_table(comparison))
    parts = [table.to_markdown() if markdown else table.to_text() for table in tables]
    if comparison.widest:
        heading = f"Queries that differ most in {display_names(comparison.metrics)[comparison.metrics[0]]}"
        parts.append(f"**{heading}**" if markdown else heading)
        queries = [_render_query(query) for query in comparison.widest]
        parts += [_code_block(query) for query in queries] if markdown else queries
    return "\n\n".join(parts)


def write_comparison(comparison: Comparison, stem: Path) -> tuple[str, tuple[Path, ...]]:
    """Write a comparison as text, Markdown, LaTeX, JSON, and its tables as CSV; return the text and the paths."""
    tables = (means_table(comparison), differences_table(comparison))
    contents = {
        ".txt": render_comparison(comparison),
        ".md": render_comparison(comparison, markdown=True),
        ".tex": "\n\n".join(table.to_latex() for table in tables),
        ".json": json.dumps(asdict(comparison), indent=2, ensure_ascii=False, allow_nan=False),
        ".csv": tables[0].to_csv(),
        "_differences.csv": tables[1].to_csv(),
    }
    return contents[".txt"], write_forms(contents, stem)


def _difference_row(pair: PairedDifference, metric: str) -> tuple[Cell, ...]:
    outcome = (pair.difference, pair.wins, pair.ties, pair.losses)
    return (metric, pair.second, pair.first, *outcome, pair.p_value, pair.p_corrected)


def _render_query(query: QueryDifference) -> str:
    values = "  ".join(f"{system} {value:.4f}" for system, value in query.values.items())
    lines = [f"{query.query_id}  {values}  ({query.relevant} relevant)"]
    if query.text is not None:
        lines.append(textwrap.shorten(query.text, _WIDTH))
    for system, retrieved in query.retrieved.items():
        lines.append(f"  {system}:" if retrieved else f"  {system}: nothing retrieved")
        lines.extend(_document_lines(retrieved))
    return "\n".join(map(one_line, lines))


def _code_block(text: str) -> str:
    """Return a block of code in Markdown, its fence longer than any in the text."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}text\n{text}\n{fence}"


def _document_lines(retrieved: Iterable[Retrieved]) -> Iterable[str]:
    for document in retrieved:
        judged = "not judged" if document.relevance is None else f"relevance {document.relevance}"
        yield f"    {document.rank:>3}. {document.doc_id}  {document.score:.3f}  {judged}"
        if document.text is not None:
            yield textwrap.shorten(document.text, _WIDTH, initial_indent=" " * 9) if document.text.strip() else ""
            if document.terms:
                terms = "  ".join(f"{token} {score:.2f}" for token, score in document.terms)
                yield f"{' ' * 9}terms of the model that match: {terms}"
            else:
                yield f"{' ' * 9}words in common: {', '.join(document.matched) or 'none'}"
