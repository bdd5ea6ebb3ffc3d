"""What is shown while loops are compiled: on a machine's first run nothing else happens for some seconds."""

import importlib.util
import logging

import numba
from numba.core.event import Event, EventStatus

from splade.storage import compiled
from splade.storage.compiled import Announcement
from splade.storage.compiled import compiled as compile_loop


class Bar:
    """Notes what is shown."""

    made: list["Bar"] = []

    def __init__(self, description, unit):
        self.description, self.n, self.open = description, 0, True
        Bar.made.append(self)

    def update(self, n=1):
        self.n += n

    def close(self):
        self.open = False


def test_the_outermost_loop_is_named_and_what_it_calls_is_counted(monkeypatch, caplog):
    monkeypatch.setattr(compiled, "progress_bar", Bar)
    monkeypatch.setattr(Bar, "made", [])
    caplog.set_level(logging.INFO, "splade")

    def event(name, status):
        def loop(): ...

        loop.__name__ = name
        return Event("numba:compile", status, data={"dispatcher": compile_loop()(loop)})

    announcement = Announcement()
    for outer in ("search", "build"):
        announcement.on_start(event(outer, EventStatus.START))
        for inner in ("add", "collect"):
            announcement.on_start(event(inner, EventStatus.START))
            announcement.on_end(event(inner, EventStatus.END))
        assert Bar.made[-1].open
        announcement.on_end(event(outer, EventStatus.END))
    assert [(bar.description, bar.n, bar.open) for bar in Bar.made] == [
        ("compiling search", 3, False),
        ("compiling build", 3, False),
    ]
    assert sum("compiling loops for this machine, once" in line for line in caplog.messages) == 1


def test_what_was_compiled_before_is_not_announced(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(compiled, "progress_bar", Bar)
    source = tmp_path / "kept_loops.py"
    source.write_text(
        "from splade.storage.compiled import compiled\n\n@compiled()\ndef total(n):\n    return sum(range(n))\n"
    )
    announced = []
    for _ in range(2):  # a second module object stands for a second process
        monkeypatch.setattr(Bar, "made", [])
        spec = importlib.util.spec_from_file_location("kept_loops", source)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.total(5) == 10
        announced.append([bar.description for bar in Bar.made])
    assert announced == [["compiling total"], []]
