"""One table, many forms: text for a terminal, Markdown, CSV, JSON, LaTeX.

Numbers are kept in full and rounded by the form that shows them; JSON has all digits. A column says where its numbers
come from, so that nobody takes a published value for a measurement. Texts are data: a name never becomes a formula of
a spreadsheet, a tag or link of a page, a command of a terminal or of TeX.

The library tabulate would not do: it pads every number by two places, so fewer columns fit a terminal, does not split a
table that is too wide, and writes no CSV.
"""

import csv
import io
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from splade.errors import DataError, printable
from splade.storage.atomic import write_text

Cell = str | float | int | None
Origin = Literal["measured", "published", "difference"]
LATEX_WIDTH = 80
"""Characters of a line that fit the width of a page."""


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

    def rounded(self, cell: Cell) -> Cell:
        """Return a float with two decimals more than are shown; a bounded one, which may be small, with four digits."""
        if not isinstance(cell, float):
            return cell
        return float(f"{cell:.4g}") if self.bounded else round(cell, self.digits + 2)


@dataclass(frozen=True)
class Table:
    """Rows under named columns, with a title of one line.

    Attributes:
        notes: sentences printed underneath.
        bold: (row, column) of the cells to be set in bold, where the form has it.
        marks: (row, column) of a cell to what follows its number, such as `*`.
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
    bold: frozenset[tuple[int, int]] = frozenset()
    marks: Mapping[tuple[int, int], str] = field(default_factory=dict)

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
        return self.only(
            [i for i in range(len(self.columns)) if i < self.n_keys or any(row[i] is not None for row in self.rows)]
        )

    def only(self, kept: Sequence[int]) -> "Table":
        """Return the table with some of its columns, the keys among them."""
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        bold = frozenset((row, kept.index(i)) for row, i in self.bold if i in kept)
        marks = {(row, kept.index(i)): mark for (row, i), mark in self.marks.items() if i in kept}
        return replace(self, columns=tuple(self.columns[i] for i in kept), rows=rows, bold=bold, marks=marks)

    def with_best(self, columns: Mapping[int, bool] | None = None, across: bool = False) -> "Table":
        """Return the table with its best figures in bold; a tie makes several, a single figure is no best one.

        Args:
            columns: columns that are compared, each to whether more is better; None: all behind the keys, more is.
            across: compare the cells of a row, not of a column.
        """
        compared = {i: True for i in range(self.n_keys, len(self.columns))} if columns is None else columns
        if across:
            lines = [[(row, i) for i in compared] for row in range(len(self.rows))]
        else:
            lines = [[(row, i) for row in range(len(self.rows))] for i in compared]
        bold = {cell for line in lines for cell in self._best(line, compared)}
        return replace(self, bold=self.bold | bold)

    def _best(self, line: Sequence[tuple[int, int]], more_is_better: Mapping[int, bool]) -> list[tuple[int, int]]:
        """Return the cells of a line whose rounded number is the best one."""
        numbers = {
            (row, i): round(float(cell), self.columns[i].digits) * (1 if more_is_better[i] else -1)
            for row, i in line
            if isinstance(cell := self.rows[row][i], int | float)
        }
        return [cell for cell, number in numbers.items() if number == max(numbers.values())] if len(numbers) > 1 else []

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
        for row, cells in enumerate(self._shown()):
            escaped = [_escape_markdown(cell) for cell in cells]
            shown = (f"**{cell}**" if (row, i) in self.bold else cell for i, cell in enumerate(escaped))
            lines.append("| " + " | ".join(shown) + " |")
        notes = ["", *map(_escape_markdown, self.notes)] if self.notes else []
        return "\n".join([f"**{_escape_markdown(self.title)}**", "", *lines, *notes])

    def to_csv(self) -> str:
        """Return CSV with headings; two digits more than are shown, empty for None.

        "'" stands before a text that looks like a formula.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([_escape_csv(column.heading) for column in self.columns])
        for row in self.rows:
            writer.writerow([_escape_csv(column.rounded(cell)) for column, cell in zip(self.columns, row, strict=True)])
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
        """Return a `table` environment that needs the package booktabs.

        Columns that do not fit a page follow in further tabulars under the same rows.
        """
        notes = " ".join(note if note.endswith(".") else f"{note}." for note in [self.title, *self.notes])
        lines = [
            "\\begin{table}",
            "\\centering\\small\\setlength{\\tabcolsep}{3pt}",
            f"\\caption{{{_escape_latex(notes)}}}",
        ]
        for block in self._split(LATEX_WIDTH):
            lines += [*(["\\\\[1ex]"] if len(lines) > 3 else []), *self._latex_tabular(block)]
        return "\n".join([*lines, "\\end{table}"])

    def _latex_tabular(self, block: Sequence[int]) -> list[str]:
        """Return the lines of a tabular of some columns; a heading of several words takes several lines."""
        alignment = "".join("r" if self._is_numeric(i) else "l" for i in block)
        headings = self._headings()
        height = max(len(headings[i]) for i in block)
        lines = [f"\\begin{{tabular}}{{{alignment}}}", "\\toprule"]
        for place in range(-height, 0):
            words = [headings[i][place] if len(headings[i]) >= -place else "" for i in block]
            lines.append(_latex_row(" & ".join(map(_escape_latex, words))))
        lines.append("\\midrule")
        for row, cells in enumerate(self._shown()):
            escaped = [_escape_latex(cells[i]) for i in block]
            bold = (
                f"\\textbf{{{cell}}}" if (row, i) in self.bold else cell for i, cell in zip(block, escaped, strict=True)
            )
            lines.append(_latex_row(" & ".join(bold)))
        return [*lines, "\\bottomrule", "\\end{tabular}"]

    def _shown(self) -> list[list[str]]:
        return [
            [column.show(cell) + self.marks.get((n, i), "") for i, (column, cell) in enumerate(pairs)]
            for n, row in enumerate(self.rows)
            if (pairs := list(zip(self.columns, row, strict=True)))
        ]

    def _is_numeric(self, i: int) -> bool:
        return not any(isinstance(row[i], str) for row in self.rows)

    def _blocks(self, width: int) -> list[str]:
        """Spread the columns over blocks no wider than `width`, each beginning with the key columns."""
        columns = self._padded_columns()
        return [
            "\n".join("  ".join(cells).rstrip() for cells in zip(*(columns[i] for i in block), strict=True))
            for block in self._split(width)
        ]

    def _split(self, width: int) -> list[list[int]]:
        """Return the columns of each block."""
        widths = [len(column[0]) for column in self._padded_columns()]
        keys = list(range(self.n_keys))
        blocks = [[*keys]]
        for i in range(self.n_keys, len(self.columns)):
            fits = sum(widths[one] + 2 for one in [*blocks[-1], i]) - 2 <= width
            if not fits and len(blocks[-1]) > len(keys):
                blocks.append([*keys])
            blocks[-1].append(i)
        return blocks

    def _headings(self) -> list[list[str]]:
        """Return the lines of each heading."""
        return [
            [*one_line(column.name).split(" "), *([column.origin] if column.origin else [])] for column in self.columns
        ]

    def _padded_columns(self) -> list[list[str]]:
        """Return each column as lines of one width: heading, rule, cells."""
        headings, shown = self._headings(), self._shown()
        height = max(map(len, headings))
        columns = []
        for i, heading in enumerate(headings):
            cells = [row[i] for row in shown]
            width = max(map(len, [*heading, *cells]))
            lines = [*[""] * (height - len(heading)), *heading, "-" * width, *cells]
            columns.append([line.rjust(width) if self._is_numeric(i) else line.ljust(width) for line in lines])
        return columns


@dataclass(frozen=True)
class WrittenTable:
    """A table, and its files: text, Markdown, CSV, JSON and LaTeX.

    Attributes:
        table: all of it, as in CSV and JSON.
        paths: the files.
        pages: what is printed: the table, or several made of it.
    """

    table: Table
    paths: tuple[Path, ...]
    pages: tuple[Table, ...]

    def summary(self) -> str:
        """Return the table as text, and where its files are."""
        suffixes = ",".join(path.suffix[1:] for path in self.paths)
        text = "\n\n".join(page.to_text() for page in self.pages)
        return f"{text}\n\n  in {self.paths[0].with_suffix('')}.{{{suffixes}}}"

    def figures(self) -> tuple[()]:
        """Return what the table of a sweep shows of this: nothing."""
        return ()


def write_table(table: Table, stem: Path, pages: tuple[Table, ...] = ()) -> WrittenTable:
    """Write a table in every form, to `stem` with the suffix of each.

    `pages` take its place in the forms that people read: text, Markdown and LaTeX.
    """
    pages = pages or (table,)
    contents = {".txt": "\n\n".join(page.to_text() for page in pages)}
    contents |= {".md": "\n\n".join(page.to_markdown() for page in pages)}
    contents |= {".csv": table.to_csv(), ".json": table.to_json()}
    contents |= {".tex": "\n\n".join(page.to_latex() for page in pages)}
    return WrittenTable(table, write_forms(contents, stem), pages)


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
