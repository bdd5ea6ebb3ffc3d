"""One table, many forms: text for a terminal, Markdown, CSV, JSON, LaTeX.

Numbers are kept in full and rounded by the form that shows them. A column says where its numbers come from, so that
nobody takes a published value for a measurement. Texts are data: a name never becomes a formula of a spreadsheet, a tag
or link of a page, a command of a terminal or of TeX.

The library tabulate would not do: it pads every number by two places, so fewer columns fit a terminal, does not split a
table that is too wide, and writes no CSV.
"""

import csv
import io
import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from splade.errors import DataError, printable
from splade.storage.atomic import write_text

Cell = str | float | int | None
Origin = Literal["measured", "published", "difference"]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: heading, for instance `nDCG@10`.
        digits: decimals shown for floats.
        signed: show the sign of positive numbers, for differences.
        bounded: show a positive number that would round to zero as `<0.0001`, for p-values.
        origin: measured here, published by others, or the difference of both; None where the question does not arise.
    """

    name: str
    digits: int = 4
    signed: bool = False
    bounded: bool = False
    origin: Origin | None = None

    @property
    def heading(self) -> str:
        """Name and origin on one line."""
        return one_line(self.name if self.origin is None else f"{self.name} ({self.origin})")

    def show(self, cell: Cell) -> str:
        """Return the cell as text; None becomes `-`."""
        if cell is None:
            return "-"
        if isinstance(cell, float):
            smallest = 10.0**-self.digits
            if self.bounded and 0 < cell < smallest / 2:
                return f"<{smallest:.{self.digits}f}"
            shown = f"{cell:{'+' if self.signed else ''}.{self.digits}f}"
            return shown if float(shown) != 0 else f"{0:.{self.digits}f}"
        return one_line(str(cell))


@dataclass(frozen=True)
class Table:
    """Rows under named columns, with a title of one line.

    Attributes:
        notes: sentences printed underneath.
        n_keys: the first columns, which name the row; repeated when the table is too wide and has to be split.

    Example:
        >>> table = Table("Runs", (Column("run"), Column("nDCG@10")), (("BM25", 0.67619), ("SPLADE", None)))
        >>> print(table.to_text())
        Runs
        <BLANKLINE>
        run     nDCG@10
        ------  -------
        BM25     0.6762
        SPLADE        -
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    n_keys: int = 1

    def __post_init__(self) -> None:
        headings = [column.heading for column in self.columns]
        if len(set(headings)) < len(headings):
            raise DataError(f"table {self.title!r}: two columns have the same heading: {', '.join(headings)}")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise DataError(
                    f"table {self.title!r}: a row of {len(row)} cells under {len(self.columns)} columns: {row}"
                )

    def without_empty_columns(self) -> "Table":
        """Return the table without the columns, behind the keys, whose cells are all None."""
        kept = [i for i in range(len(self.columns)) if i < self.n_keys or any(row[i] is not None for row in self.rows)]
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in kept), rows=rows)

    def to_text(self, width: int = 110) -> str:
        """Return aligned text; columns that do not fit in `width` follow in further blocks under the same rows."""
        notes = [textwrap.fill(one_line(note), width, subsequent_indent="  ") for note in self.notes]
        return "\n\n".join([one_line(self.title), *self._blocks(width), *(["\n".join(notes)] if notes else [])])

    def to_markdown(self) -> str:
        """Return a Markdown table under a bold title."""
        numeric = [self._is_numeric(i) for i in range(len(self.columns))]
        lines = [
            "| " + " | ".join(_escape_markdown(column.heading) for column in self.columns) + " |",
            "|" + "|".join("---:" if right else "---" for right in numeric) + "|",
        ]
        for cells in self._shown():
            lines.append("| " + " | ".join(map(_escape_markdown, cells)) + " |")
        notes = ["", *map(_escape_markdown, self.notes)] if self.notes else []
        return "\n".join([f"**{_escape_markdown(self.title)}**", "", *lines, *notes])

    def to_csv(self) -> str:
        """Return CSV with headings; numbers in full, empty for None; "'" before a text that looks like a formula."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([_escape_csv(column.heading) for column in self.columns])
        writer.writerows([[_escape_csv(cell) for cell in row] for row in self.rows])
        return text.getvalue().removesuffix("\n")

    def to_records(self) -> list[dict[str, Cell]]:
        """Return one dictionary per row, heading to value."""
        headings = [column.heading for column in self.columns]
        return [dict(zip(headings, row, strict=True)) for row in self.rows]

    def to_json(self) -> str:
        """Return `{"title", "columns", "rows", "notes"}`; rows are objects, numbers in full."""
        value = {
            "title": self.title,
            "columns": [{"heading": column.heading, "origin": column.origin} for column in self.columns],
            "rows": self.to_records(),
            "notes": list(self.notes),
        }
        return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)

    def to_latex(self) -> str:
        """Return a `table` environment that needs the package booktabs."""
        alignment = "".join("r" if self._is_numeric(i) else "l" for i in range(len(self.columns)))
        heading = " & ".join(_escape_latex(column.heading) for column in self.columns)
        lines = ["\\begin{table}", f"\\caption{{{_escape_latex('. '.join([self.title, *self.notes]))}}}"]
        lines += [f"\\begin{{tabular}}{{{alignment}}}", "\\toprule", _latex_row(heading), "\\midrule"]
        lines += [_latex_row(" & ".join(map(_escape_latex, cells))) for cells in self._shown()]
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"])

    def _shown(self) -> list[list[str]]:
        return [[column.show(cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows]

    def _is_numeric(self, i: int) -> bool:
        return not any(isinstance(row[i], str) for row in self.rows)

    def _blocks(self, width: int) -> list[str]:
        """Spread the columns over blocks no wider than `width`, each beginning with the key columns."""
        columns = self._padded_columns()
        keys = columns[: self.n_keys]
        blocks = [[*keys]]
        for column in columns[self.n_keys :]:
            fits = sum(len(one[0]) + 2 for one in [*blocks[-1], column]) - 2 <= width
            if not fits and len(blocks[-1]) > len(keys):
                blocks.append([*keys])
            blocks[-1].append(column)
        return ["\n".join("  ".join(cells).rstrip() for cells in zip(*block, strict=True)) for block in blocks]

    def _padded_columns(self) -> list[list[str]]:
        """Return each column as lines of one width: heading, rule, cells."""
        headings = [
            [*one_line(column.name).split(" "), *([column.origin] if column.origin else [])] for column in self.columns
        ]
        height = max(map(len, headings))
        columns = []
        for i, (column, heading) in enumerate(zip(self.columns, headings, strict=True)):
            cells = [column.show(row[i]) for row in self.rows]
            width = max(map(len, [*heading, *cells]))
            lines = [*[""] * (height - len(heading)), *heading, "-" * width, *cells]
            columns.append([line.rjust(width) if self._is_numeric(i) else line.ljust(width) for line in lines])
        return columns


@dataclass(frozen=True)
class WrittenTable:
    """A table, and its files: text, Markdown, CSV, JSON and LaTeX."""

    table: Table
    paths: tuple[Path, ...]

    def summary(self) -> str:
        """Return the table as text, and where its files are."""
        suffixes = ",".join(path.suffix[1:] for path in self.paths)
        return f"{self.table.to_text()}\n\n  in {self.paths[0].with_suffix('')}.{{{suffixes}}}"

    def figures(self) -> tuple[()]:
        """Return what the table of a sweep shows of this: nothing."""
        return ()


def write_table(table: Table, stem: Path) -> WrittenTable:
    """Write a table in every form, to `stem` with the suffix of each."""
    contents = {".txt": table.to_text(), ".md": table.to_markdown(), ".csv": table.to_csv()}
    contents |= {".json": table.to_json(), ".tex": table.to_latex()}
    return WrittenTable(table, write_forms(contents, stem))


def write_forms(contents: Mapping[str, str], stem: Path) -> tuple[Path, ...]:
    """Write texts to the files that `stem` and each ending (`.md`, `_differences.csv`) name; return their paths."""
    paths = {stem.with_name(stem.name + ending): content for ending, content in contents.items()}
    for path, content in paths.items():
        write_text(path, content + "\n")
    return tuple(paths)


def one_line(text: str) -> str:
    """Return a text without line ends, tabs and characters that command a terminal."""
    return printable(text).replace("\n", " ").replace("\t", " ")


def _escape_markdown(text: str) -> str:
    r"""Escape what begins a tag, an entity, a link or code; `<` by name, since few readers know a backslash there.

    Example:
        >>> print(_escape_markdown("[x](javascript:f) <b> a|b"))
        \[x\](javascript:f) &lt;b> a\|b
    """
    escaped = re.sub(r"[\\`|\[\]]", r"\\\g<0>", one_line(text))
    return re.sub("&(?=#?[A-Za-z0-9]+;)", "&amp;", escaped).replace("<", "&lt;")


def _escape_csv(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return "" if cell is None else cell
    text = one_line(cell)
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@＝＋－＠") else text


def _escape_latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {"<": r"\textless{}", ">": r"\textgreater{}"} | {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in one_line(text))


def _latex_row(cells: str) -> str:
    """End a row; at its beginning, `[` and `*` would be read as options of the command before it."""
    return f"{'{}' if cells.startswith(('[', '*')) else ''}{cells} \\\\"
