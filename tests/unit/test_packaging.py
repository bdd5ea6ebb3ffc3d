"""What an installation brings: one version, types, commands, how to cite."""

import re
from pathlib import Path

import tomllib
import yaml

import splade

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_has_one_place():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert re.findall(r'^__version__ = "(.+)"$', (ROOT / "splade/__init__.py").read_text(), re.M) == [
        splade.__version__
    ]
    assert "version=VERSION" in setup and splade.__version__ not in setup
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and "version" not in citation and citation["authors"]


def test_types_and_commands_are_installed():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert (ROOT / "splade/py.typed").is_file() and '"py.typed"' in setup
    for module, function in re.findall(r"= (splade[\w.]*):(\w+)\"", setup):
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
        assert f"def {function}(" in source


def test_versions_of_python_agree():
    setup, project = ((ROOT / name).read_text(encoding="utf-8") for name in ("setup.py", "pyproject.toml"))
    assert 'python_requires=">=3.10"' in setup
    assert 'target-version = "py310"' in project and 'python_version = "3.10"' in project


def test_coverage_leaves_out_the_files_with_compiled_loops():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    compiles = re.compile(r"^(import numba|from splade\.storage\.compiled )", re.M)
    sources = ((path, path.read_text(encoding="utf-8")) for path in (ROOT / "splade").rglob("*.py"))
    compiled = {path.relative_to(ROOT).as_posix() for path, source in sources if compiles.search(source)}
    assert compiled | {"splade/storage/compiled.py"} == set(project["tool"]["slipcover"]["omit"])
