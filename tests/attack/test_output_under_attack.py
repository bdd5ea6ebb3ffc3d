"""What is written for people: no name or text becomes a formula, a tag, a link, or a command of a terminal or TeX."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest

from splade.config.command import report, report_error
from splade.errors import ConfigError, DataError
from splade.evaluation.comparison import compare_runs
from splade.interop.anserini import quantise, write_queries
from splade.reports.comparison_report import write_comparison
from splade.reports.tables import Column, Table

HOSTILE = [
    "=1+1",
    '=HYPERLINK("http://x","y")',
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    " =1",
    "\t=1",
    "\r=1",
    "＝1",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "![x](http://x/y.png)",
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)",
    "&#60;script&#62;",
    "&lt;b&gt;",
    "`code` ``` ~~~",
    "a|b|c",
    "a\\|b",
    "line\nbreak\n\nparagraph",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31mred",
    "right\u202eleft",
    "back\b\b\bspace",
    "carriage\rreturn",
    "line\u2028separator",
    "nul\x00",
    "\\input{/etc/passwd}",
    "\\write18{rm}",
    "$x^2_3$ % comment",
    "{unbalanced",
    "}unbalanced",
    "[2cm] option",
    "* star",
    "a & b # c ~ d",
]


def table_of(name: str) -> Table:
    return Table(
        name, (Column("system"), Column(name or "x"), Column("n")), ((name, name, 0.5), ("plain", None, -1.5)), (name,)
    )


LATEX = {
    f"\\{name}" for name in "begin end caption centering small setlength tabcolsep toprule midrule bottomrule".split()
}


def unseen(text: str) -> list[str]:
    return re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", text)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_form_commands_a_terminal_or_breaks_its_lines(name: str) -> None:
    table = table_of(name)
    for text in (table.to_text(), table.to_markdown(), table.to_csv(), table.to_latex()):
        assert not unseen(text)
    assert len(table.to_csv().splitlines()) == 3
    assert len(table.to_markdown().splitlines()) == 2 + 4 + 2
    header, body = table.to_latex().split("\\midrule\n")
    assert len(body.splitlines()) == 2 + 3
    assert all(line.endswith("\\\\") for line in header.split("\\toprule\n")[1].splitlines())


@pytest.mark.parametrize("name", HOSTILE)
def test_no_cell_of_csv_is_a_formula(name: str) -> None:
    for row in csv.reader(io.StringIO(table_of(name).to_csv())):
        for cell in row:
            assert cell == "-1.5" or cell.lstrip()[:1] not in ("=", "+", "-", "@", "＝"), cell


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_holds_no_tag_link_entity_or_code(name: str) -> None:
    markdown = table_of(name).to_markdown()
    assert "<" not in markdown
    assert not re.search(r"(?<!\\)(?:\\\\)*[\[\]`]", markdown)
    assert not re.search("&(?!lt;|amp;)#?[a-z0-9]+;", markdown)
    rows = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows] == [4, 4, 4]


@pytest.mark.parametrize("name", HOSTILE)
def test_latex_is_inert(name: str) -> None:
    latex = table_of(name).to_latex()
    rest = re.sub(r"\\text(backslash|asciitilde|asciicircum|less|greater)\{\}|\\[&%$#_{}]", "", latex)
    commands = set(re.findall(r"\\[a-z]+", rest))
    assert commands <= LATEX
    assert rest.count("{") == rest.count("}") and not set("%$#_^~") & set(rest)
    for row in latex.split("\\midrule\n")[1].splitlines():
        assert not row.startswith(("[", "*"))


def test_markdown_keeps_what_is_harmless() -> None:
    assert "| nDCG@10 (measured) |" in Table("t", (Column("nDCG@10", origin="measured"),), ((0.5,),)).to_markdown()
    assert "**Runs & more**" in Table("Runs & more", (Column("a_b"),), (("recall_100",),)).to_markdown()


def test_a_comparison_of_hostile_texts(tmp_path: Path) -> None:
    text = "```\n<script>alert(1)</script>\n\x1b[2J```` end"
    runs = {"=evil()": {"q": {"d": 1.0, "e": 0.5}}, "<b>other": {"q": {"e": 1.0}}}
    compared = compare_runs(runs, {"q": {"d": 1}}, ["ndcg"], texts={"d": text, "e": text}, query_texts={"q": "```"})
    write_comparison(compared, tmp_path / "compare")
    markdown = (tmp_path / "compare.md").read_text()
    outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", markdown, flags=re.S | re.M)
    assert "<" not in outside and "`" not in outside.replace("\\`", "") and "script" in markdown
    for path in tmp_path.iterdir():
        assert not unseen(path.read_text()), path
    assert "'=evil()" in (tmp_path / "compare.csv").read_text()


def test_what_a_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    report("d1  \x1b]0;title\x07text\r\nnext\tcolumn \ud800")
    report_error("x\x1b[31m: wrong")
    printed = capsys.readouterr()
    assert printed.out == "d1  \\x1b]0;title\\x07text\\r\nnext\tcolumn \\ud800\n"
    assert printed.err == "error: x\\x1b[31m: wrong\n"


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e30, -1e30])
def test_weights_that_no_whole_number_holds_are_not_exported(weight: float) -> None:
    with pytest.raises(DataError, match="not finite, or above"):
        quantise((np.array([1]), np.array([weight])), 100)


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf")])
def test_factors_that_cannot_be(factor: float) -> None:
    with pytest.raises(ConfigError, match="positive and finite"):
        quantise((np.array([1]), np.array([1.0])), factor)


def test_a_query_is_not_repeated_without_end(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="smaller quantisation factor"):
        write_queries(tmp_path / "q.tsv", [("q", (np.array([0]), np.array([1.0])))], ["a"], factor=1e9)
    assert list(tmp_path.iterdir()) == []
