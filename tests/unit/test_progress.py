"""Progress on a terminal, and as lines of the log."""

import io
import logging
import sys

import pytest

from splade.progress import LogLines, progress, progress_bar


class Clock:
    """Seconds that pass when a test says so."""

    now = 100.0

    def __call__(self):
        return self.now


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def heard(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "splade.progress")
    monkeypatch.delenv("RANK", raising=False)


def test_lines_say_what_how_many_how_fast_and_how_long(caplog):
    clock = Clock()
    with LogLines("training", 2000, "step", 100, clock) as bar:
        bar.show(loss=0.41271, FLOPS_d=0.0097)
        for second in range(1, 61):
            clock.now = 100.0 + second
            bar.update(5)
    assert lines(caplog) == [
        "training: 150 of 2,000 steps (8%), 5/s, 0:06:10 left, loss 0.4127, FLOPS_d 0.0097",
        "training: 300 of 2,000 steps (15%), 5/s, 0:05:40 left, loss 0.4127, FLOPS_d 0.0097",
        "training: 400 steps in 0:01:00",
    ]


def test_what_is_short_says_nothing(caplog):
    with LogLines("indexing raw.tsv", None, "line", clock=Clock()) as bar:
        bar.update(50_000)
    assert lines(caplog) == []


@pytest.mark.parametrize(
    ("unit", "n", "expected"),
    [("query", 1, "x: 1 query, 0.1/s"), ("batch", 25, "x: 25 batches, 2.5/s"), ("B", 3_000_000, "x: 3.0 MB, 0.3 MB/s")],
)
def test_units_without_a_known_total(caplog, unit, n, expected):
    clock = Clock()
    bar = LogLines("x", None, unit, clock=clock)
    clock.now += 10
    bar.update(n)
    assert lines(caplog) == [expected]


def test_an_error_ends_without_a_line_of_success_and_other_processes_are_silent(caplog, monkeypatch):
    clock = Clock()
    with pytest.raises(KeyError), LogLines("x", 10, clock=clock) as bar:
        clock.now += 10
        bar.update()
        raise KeyError
    assert len(lines(caplog)) == 1
    monkeypatch.setenv("RANK", "1")
    bar = LogLines("x", 10, clock=clock)
    clock.now += 100
    bar.update()
    bar.close()
    assert len(lines(caplog)) == 1


def test_a_terminal_gets_no_bar_for_what_is_over_at_once(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress([1, 2], "opening")) == [1, 2]
    with progress_bar("indexing raw.tsv", unit="line") as bar:
        bar.show(loss=0.5)
        bar.update(3)
    assert terminal.getvalue() == ""
    monkeypatch.setattr("splade.progress.BAR_AFTER_SECONDS", 0)
    with progress_bar("training", 10, "step", 4) as bar:
        bar.show(loss=0.5, FLOPS_d=0.1)
        bar.update(3)
    assert "training" in terminal.getvalue() and "7/10" in terminal.getvalue() and "loss=0.5000" in terminal.getvalue()
