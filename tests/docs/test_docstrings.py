"""The examples in docstrings say what happens."""

import doctest
import importlib
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDS_TRITON = {"splade.models.head.triton_kernels"}


def modules_with_examples():
    """Return the names of the modules whose text has a doctest prompt."""
    for path in sorted((ROOT / "splade").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if ">>> " in path.read_text(encoding="utf-8") and name not in NEEDS_TRITON:
            yield name


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("SPLADE_")]:
        monkeypatch.delenv(variable)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert result.attempted > 0 and result.failed == 0
