"""One table in every form."""

import csv
import io
import json

import pytest

from splade.errors import DataError
from splade.reports.tables import Column, Table, write_table

TABLE = Table(
    "Runs & more",
    (
        Column("system"),
        Column("nDCG@10", origin="measured"),
        Column("nDCG@10", origin="published"),
        Column("nDCG@10", signed=True, origin="difference"),
        Column("p", bounded=True),
        Column("threads"),
    ),
    (("BM25_a|b", 0.67619, 0.6789, -0.00271, 0.00001, 2), ("SPLADE", 0.5, None, None, 0.0, None)),
    ("measured here; published by others.",),
)


def test_text_is_aligned() -> None:
    lines = TABLE.to_text().splitlines()
    assert lines[0] == "Runs & more" and lines[-1] == TABLE.notes[0]
    header, origins, rule, first, second = lines[2:7]
    assert header.split() == ["nDCG@10", "nDCG@10", "nDCG@10"]
    assert origins.split() == ["system", "measured", "published", "difference", "p", "threads"]
    assert first.split() == ["BM25_a|b", "0.6762", "0.6789", "-0.0027", "<0.0001", "2"]
    assert second.split() == ["SPLADE", "0.5000", "-", "-", "0.0000", "-"]
    assert len(first) == len(rule)


def test_wide_text_is_split_and_repeats_the_keys() -> None:
    columns = (Column("name"), *(Column(f"metric_{i:02}") for i in range(30)))
    table = Table("wide", columns, (("row", *map(float, range(30))),))
    text = table.to_text(width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("name") == text.count("\nrow") == 5
    assert all(f"metric_{i:02}" in text for i in range(30))


def test_negative_zero_has_no_sign() -> None:
    assert Column("x", digits=2).show(-0.001) == "0.00"
    assert Column("x", digits=2, signed=True).show(0.5) == "+0.50"


def test_markdown_keeps_its_columns() -> None:
    lines = TABLE.to_markdown().splitlines()
    assert lines[0] == "**Runs & more**"
    assert lines[2].startswith("| system | nDCG@10 (measured) | nDCG@10 (published) |")
    assert lines[3] == "|---|---:|---:|---:|---:|---:|"
    assert lines[4].startswith(r"| BM25_a\|b | 0.6762 |")


def test_csv_has_two_digits_more_and_json_all() -> None:
    rows = list(csv.DictReader(io.StringIO(TABLE.to_csv())))
    assert rows[0]["nDCG@10 (measured)"] == "0.67619" and rows[1]["nDCG@10 (published)"] == ""
    value = json.loads(TABLE.to_json())
    assert value["rows"][0]["nDCG@10 (difference)"] == -0.00271 and value["rows"][1]["threads"] is None
    assert value["columns"][2] == {"heading": "nDCG@10 (published)", "origin": "published"}


def test_latex_is_escaped() -> None:
    latex = TABLE.to_latex()
    assert r"\caption{Runs \& more." in latex and r"BM25\_a|b & 0.6762" in latex and r"\textless{}0.0001" in latex
    assert r"\begin{tabular}{lrrrrr}" in latex
    caption = latex.splitlines()[2]
    assert caption.endswith("published by others.}")


def test_latex_fits_a_page() -> None:
    columns = (Column("name"), *(Column(f"metric_{i:02}") for i in range(30)))
    latex = Table("wide", columns, (("row", *map(float, range(30))),)).to_latex()
    assert latex.count(r"\begin{tabular}") == latex.count("row &") == 5 and latex.count(r"\caption") == 1
    headings = Table("t", (Column("a"), Column("terms /doc"), Column("x")), (("r", 1.0, 2.0),)).to_latex().splitlines()
    assert headings[5:7] == [r" & terms &  \\", r"a & /doc & x \\"]


def test_the_best_is_bold() -> None:
    table = Table(
        "t",
        (Column("m"), Column("a"), Column("ms", digits=1)),
        (("x", 0.5, 3.0), ("y", 0.50001, 2.0), ("z", 0.1, None)),
    )
    best = table.with_best({1: True, 2: False})
    assert best.bold == {(0, 1), (1, 1), (1, 2)}  # equal as they are shown
    lines = best.to_markdown().splitlines()
    assert lines[4] == "| x | **0.5000** | 3.0 |" and lines[5] == "| y | **0.5000** | **2.0** |"
    assert r"\textbf{0.5000} & \textbf{2.0}" in best.to_latex() and "**" not in best.to_text()
    assert table.with_best(across=True).bold == {(0, 2), (1, 2)}  # a figure alone is no best one
    marked = Table("t", (Column("m"), Column("a")), (("x", 0.5),), marks={(0, 1): "*"})
    assert "0.5000*" in marked.to_text() and marked.to_records() == [{"m": "x", "a": 0.5}]


def test_csv_digits() -> None:
    table = Table("t", (Column("m"), Column("a"), Column("p", bounded=True)), (("x", 1 / 3, 1 / 30000),))
    assert table.to_csv().splitlines()[1] == "x,0.333333,3.333e-05"
    assert "0.3333333333333333" in table.to_json()


def test_every_form_is_written(tmp_path) -> None:
    paths = write_table(TABLE, tmp_path / "table").paths
    assert [path.suffix for path in paths] == [".txt", ".md", ".csv", ".json", ".tex"]
    assert all("0.67" in path.read_text() for path in paths)


def test_wrong_tables() -> None:
    with pytest.raises(DataError, match="1 cells under 2"):
        Table("t", (Column("a"), Column("b")), (("x",),))
    with pytest.raises(DataError, match="same heading"):
        Table("t", (Column("a"), Column("a")), ())
