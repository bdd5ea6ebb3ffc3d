"""Machines on which little is allowed: no place to write, no home, no terminal, small limits. One paragraph each."""

import os
import stat
import tempfile
from pathlib import Path

import numba
import pytest

from splade.storage.compiled import _private_folder, compiled


def loop(n):
    total = 0
    for i in range(n):
        total += i
    return total


@pytest.fixture
def no_cache_of_numba(monkeypatch, tmp_path):
    """Neither the source's folder nor the user's cache can be written to."""
    monkeypatch.setattr(numba.config, "CACHE_LOCATOR_CLASSES", "UserProvidedCacheLocator")
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_compiled_code_is_kept_in_a_private_folder(no_cache_of_numba, tmp_path):
    assert compiled()(loop)(4) == 6
    (folder,) = tmp_path.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and list(folder.rglob("*.nbc"))
    assert _private_folder() == str(folder)


def test_a_folder_of_somebody_else_is_not_used(no_cache_of_numba, tmp_path, monkeypatch):
    expected = tmp_path / f"splade-compiled-{os.getuid()}"
    expected.mkdir()
    expected.chmod(0o777)  # what lies in it is run
    assert Path(_private_folder()) != expected
    expected.rmdir()
    expected.symlink_to(tmp_path)
    assert Path(_private_folder()) != expected
    expected.unlink()
    somebody_else = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: somebody_else)
    (tmp_path / f"splade-compiled-{somebody_else}").mkdir(0o700)
    assert not _private_folder().endswith(f"-{somebody_else}")


def test_without_any_place_nothing_is_kept(no_cache_of_numba, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nothing" / "\0"))
    monkeypatch.setattr(os, "makedirs", lambda *_, **__: (_ for _ in ()).throw(PermissionError))
    assert compiled()(loop)(4) == 6 and numba.config.CACHE_DIR == ""


def test_the_place_that_the_user_chose_is_not_replaced(no_cache_of_numba, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "mine"))
    assert compiled()(loop)(4) == 6 and list((tmp_path / "mine").rglob("*.nbc"))
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file" / "mine"))
    assert compiled()(loop)(5) == 10 and numba.config.CACHE_DIR == str(tmp_path / "file" / "mine")


def test_every_compiled_loop_has_a_place():
    sources = (Path(__file__).resolve().parents[2] / "splade").rglob("*.py")
    assert [path.name for path in sources if "njit(" in path.read_text()] == ["compiled.py"]
