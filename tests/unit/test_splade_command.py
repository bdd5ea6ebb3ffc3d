"""The command `splade`, and the list of its tasks."""

import os
import sys

import pytest

from splade.__main__ import main, overview, tasks
from splade.config import run_task


def test_every_task_has_a_line():
    assert {"all", "train", "index", "search", "beir_eval"} <= tasks().keys()
    lines = overview().splitlines()
    assert all(any(line.startswith(f"  {name} ") for line in lines) for name in tasks())
    assert max(map(len, lines)) <= 120 and all(text for text in tasks().values())


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_without_a_task_it_lists_them(arguments, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["splade", *arguments])
    assert main() == 0
    assert capsys.readouterr().out == overview()


def test_a_task_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["splade", "serch"])
    assert main() == 2
    assert "no task 'serch'; did you mean 'search'?" in capsys.readouterr().err


def test_a_task_gets_the_rest_of_the_command_line(monkeypatch):
    ran = []
    monkeypatch.setattr("runpy.run_module", lambda *given, **how: ran.append((given, how, list(sys.argv))))
    monkeypatch.setattr(sys, "argv", ["splade", "search", "my/index", "a question"])
    assert main() == 0
    ((given, how, argv),) = ran
    assert given == ("splade.search",) and how == {"run_name": "__main__", "alter_sys": True}
    assert argv[0].endswith("search.py") and argv[1:] == ["my/index", "a question"]


@pytest.mark.parametrize("value", [None, "0"])
def test_a_command_leaves_the_environment_as_it_was(value, capsys, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    if value is not None:
        monkeypatch.setenv("HYDRA_FULL_ERROR", value)
    monkeypatch.setattr(sys, "argv", ["index_info.py"])
    with pytest.raises(SystemExit):
        run_task("splade.tasks.index_info", arguments=["index_dir=/nowhere/at/all"])
    assert os.environ.get("HYDRA_FULL_ERROR") == value
    assert "/nowhere/at/all" in capsys.readouterr().err
