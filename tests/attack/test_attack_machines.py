"""Machines on which little is allowed: no place to write, no home, no terminal, small limits. One paragraph each."""

import errno
import io
import os
import stat
import sys
import tempfile
from pathlib import Path

import numba
import pytest

import splade
from splade.config.messages import explain_machine_error
from splade.distributed import join_processes, local_rank, n_processes, process_rank
from splade.errors import ConfigError, DataError
from splade.progress import progress, progress_bar
from splade.storage.compiled import _private_folder, compiled
from splade.tasks.search import _typed


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


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "x"},
        {"RANK": "-1"},
        {"RANK": "1"},
        {"RANK": "1.0"},
        {"RANK": "9" * 5000},
        {"RANK": "²"},
        {"WORLD_SIZE": "0"},
        {"WORLD_SIZE": "two"},
        {"WORLD_SIZE": "-2"},
        {"WORLD_SIZE": "2", "RANK": "2"},
        {"WORLD_SIZE": "2", "LOCAL_RANK": "5"},
        {"WORLD_SIZE": "2", "MASTER_ADDR": "", "MASTER_PORT": ""},
        {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"},
    ],
    ids=str,
)
def test_variables_of_torchrun_that_it_does_not_set(environment, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"(RANK|WORLD_SIZE).*unset"):
        process_rank(), local_rank(), n_processes(), join_processes()


def test_a_single_process_needs_no_variables(monkeypatch):
    for empty in ("", None):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False) if empty is None else monkeypatch.setenv(name, empty)
        assert (process_rank(), local_rank(), n_processes()) == (0, 0, 1)


def test_standard_streams_that_are_closed(monkeypatch):
    for name in ("stdin", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert list(progress([1, 2], "counting")) == [1, 2]
    progress_bar("counting").update(1)
    assert list(_typed()) == []


def test_queries_that_are_no_text(monkeypatch, splade_tiny):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"sky \xff blue\n"), encoding="utf-8"))
    assert list(_typed()) == ["sky \ufffd blue"]
    model = splade.load(splade_tiny)
    for encode in (
        model.encode_queries,
        lambda text: model.encode_documents(["a", text]),
        model.documents.check_truncation,
    ):
        with pytest.raises(DataError, match=r"\\udcff.*half a character.*sky"):
            encode("blue sky\udcff" if encode != model.documents.check_truncation else ["blue sky\udcff"])


MACHINE_ERRORS = [
    (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: No space left on device; make room"),
    (PermissionError(errno.EACCES, "Permission denied", "/a"), "/a: Permission denied; choose a place"),
    (OSError(errno.EROFS, "Read-only file system", "/a"), "choose a place"),
    (OSError(errno.EMFILE, "Too many open files", "/a"), "ulimit -n"),
    (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "x"), "shorter"),
    (OSError("cannot read\n the file"), "cannot read the file"),
    (OSError(), "OSError"),
    (ConnectionError("no route"), "no route"),
    (MemoryError(), "not enough memory"),
    (MemoryError("Unable to allocate 8.0 EiB"), "8.0 EiB"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
    (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), "index_retrieve_batch_size"),
    (RuntimeError("can't start new thread"), "n_threads"),
    (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "not enough memory"),
]


@pytest.mark.parametrize(("error", "words"), MACHINE_ERRORS, ids=lambda value: str(value)[:30])
def test_what_the_machine_refuses_is_one_paragraph(error, words):
    told = str(explain_machine_error(error))
    assert words in told and "\n" not in told


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("x"), KeyError("x"), ImportError("x"), AssertionError()]
)
def test_defects_keep_their_traceback(error):
    assert explain_machine_error(error) is None
