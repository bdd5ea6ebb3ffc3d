"""Writers that are killed, run out of space, or may not write."""

# ruff: noqa: F401, F811 (fixtures are imported, and named where they are used)

import errno
import os
import platform
import re
import resource
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from test_writers import IDS, N_DOCS, ONE, VECTORS, WRITERS, build, in_child, index, names

from splade.errors import BusyError, DataError, WriteError
from splade.inverted_index import InvertedIndex, add_documents, delete_documents, update_documents
from splade.storage import atomic, locks
from splade.storage.atomic import replacing, write_text
from splade.storage.locks import LOCK_FILE


def killed_at(function: str, call: int, after: bool, work: Callable[[], object]) -> None:
    """Do some work in a process that kills itself before or after it calls a function of `os` for the nth time."""

    def kill_and_work() -> None:
        original, calls = getattr(os, function), []

        def counted(*arguments: object) -> object:
            calls.append(1)
            if len(calls) == call and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(os, function, counted)
        work()

    in_child(kill_and_work)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize("call", [1, 2, 4, 5])
def test_a_build_killed_inside_a_rename_goes_on(index: Path, function: str, call: int, after: bool) -> None:
    folder = index.parent / "killed"
    killed_at(function, call, after, lambda: build(folder).finish())
    assert names(folder)
    build(folder).finish()
    assert (folder / "index.h5").read_bytes() == (index / "index.h5").read_bytes()
    assert names(folder) == ["index.h5"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_an_update_killed_inside_a_rename_is_done_or_not(index: Path, function: str, after: bool) -> None:
    def update() -> None:
        update_documents(index, ["d3", "d4"], [(["d4", "new"], VECTORS.rows(7, 9))])

    before = (index / "index.h5").read_bytes()
    killed_at(function, 1, after, update)
    done = InvertedIndex.open(index).doc_ids() == [*(i for i in IDS if i not in ("d3", "d4")), "d4", "new"]
    assert done == (function == "replace" and after) and (done or (index / "index.h5").read_bytes() == before)
    with suppress(DataError):  # "occurs twice", where it was done
        update()
    assert InvertedIndex.open(index).doc_ids()[-2:] == ["d4", "new"] and names(index) == ["index.h5"]


def test_an_update_deletes_and_adds_at_once_or_not_at_all(index: Path) -> None:
    before = (index / "index.h5").read_bytes()
    for delete, add in ((["d1"], (["d2"], ONE)), (["d1", "nobody"], (["new"], ONE)), (["d1"], (["a", "b"], ONE))):
        with pytest.raises(DataError):
            update_documents(index, delete, [add])
        assert (index / "index.h5").read_bytes() == before and names(index) == ["index.h5"]
    update_documents(index, IDS, [(["only"], ONE)])
    assert InvertedIndex.open(index).doc_ids() == ["only"]


def ended_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_what_killed_processes_have_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    host, gone = platform.node(), ended_process()
    stale = [f".a[1].json.{host}.{gone}.{n}.part" for n in (0, 7)]
    kept = [
        f".a[1].json.{host}.{os.getpid()}.99.part",
        f".a[1].json.elsewhere.{gone}.0.part",
        f".b.json.{host}.{gone}.0.part",
        f".a1.json.{host}.{gone}.0.part",
        "a[1].json.part",
    ]
    for name in [*stale, *kept]:
        (tmp_path / name).touch()
    write_text(tmp_path / "a[1].json", "x")
    assert names(tmp_path) == sorted([*kept, "a[1].json"])


def test_temporary_names_tell_hosts_processes_and_threads_apart(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as other:
        assert one != other
        assert all(f".{platform.node()}.{os.getpid()}." in path.name for path in (one, other))
        one.write_text("1")
        other.write_text("2")
    assert in_child(lambda: replacing(tmp_path / "a").__enter__()) not in (one, other)


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(atomic.os, "fsync", lambda fd: (done.append((os.fstat(fd).st_ino, "fsync")), fsync(fd)))
    monkeypatch.setattr(
        atomic.os, "replace", lambda old, new: (done.append((os.stat(old).st_ino, "replace")), replace(old, new))
    )
    write_text(tmp_path / "a", "x")
    number = (tmp_path / "a").stat().st_ino
    assert done == [(number, "fsync"), (number, "replace")]


def with_file_limit(n_bytes: int, work: Callable[[], object]) -> object:
    """Do some work in a process whose files cannot grow beyond a size: the disk that is full."""

    def limited() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
        return work()

    return in_child(limited)


@pytest.mark.parametrize("limit", [0, 500, 3000, 6000])
def test_a_build_on_a_full_disk_goes_on_when_there_is_room(index: Path, limit: int, capfd) -> None:
    folder = index.parent / "full"
    error = with_file_limit(limit, lambda: build(folder).finish())
    assert isinstance(error, WriteError) and re.search(r"cannot be written \(.*give the same command again", str(error))
    assert not [path for path in folder.rglob("*.part")] and LOCK_FILE not in names(folder)
    assert "Traceback" not in capfd.readouterr().err  # HDF5 complains of each object that it still holds
    build(folder).finish()
    assert (folder / "index.h5").read_bytes() == (index / "index.h5").read_bytes()


@pytest.mark.parametrize("limit", [0, 500, 3000, 6000])
def test_an_update_on_a_full_disk_changes_nothing(index: Path, limit: int) -> None:
    before = (index / "index.h5").read_bytes()
    assert isinstance(with_file_limit(limit, lambda: add_documents(index, [(["new"], ONE)])), WriteError)
    assert (index / "index.h5").read_bytes() == before and names(index) == ["index.h5"]
    assert add_documents(index, [(["new"], ONE)]).n_docs == N_DOCS + 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("raised", [OSError, "hdf5"])
def test_what_the_system_says_is_explained(tmp_path: Path, code: int, raised: object) -> None:
    error = OSError(code, "no") if raised is OSError else RuntimeError(f"Can't close file (errno = {code}, ...)")
    with pytest.raises(WriteError, match=f"{tmp_path / 'a'}: cannot be written"), replacing(tmp_path / "a"):
        raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "no", "/data/corpus.tsv"),
        FileNotFoundError(errno.ENOENT, "no", "/data/corpus.tsv"),
        RuntimeError("a defect"),
        OSError("without a number"),
    ],
)
def test_errors_of_another_file_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, replacing(tmp_path / "a"):
        raise error
    assert raised.value is error


def obstacles(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "x")
    return {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "index",
        "too long a name": tmp_path / ("x" * 300),
        "no permission": Path("/proc/index"),
        "a device": Path("/dev/null"),
    }


@pytest.mark.parametrize("place", ["a file", "below a file", "too long a name", "no permission", "a device"])
@pytest.mark.parametrize("writer", ["build", "retrieve", "train", "beir_eval"])
def test_folders_that_are_none(tmp_path: Path, place: str, writer: str) -> None:
    folder = obstacles(tmp_path)[place]
    if place == "no permission" and not Path("/proc/self").exists():
        pytest.skip("there is no /proc")
    # A command makes one paragraph of an OSError, too.
    expected = (WriteError, DataError, OSError) if place == "too long a name" else (WriteError, DataError)
    with pytest.raises(expected, match=re.escape(str(folder))):
        WRITERS[writer](folder)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_index_that_cannot_be_written_to_is_searched_without_a_report(
    index: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from splade.reports.index_report import write_index_report

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(locks, "_take", refuse)
    write_index_report(InvertedIndex.open(index))
    assert names(index) == ["index.h5"] and "no report of the index" in caplog.text


def test_adding_and_deleting_in_two_processes_loses_nothing(index: Path) -> None:
    """Each reports success or `BusyError`; the index holds what was reported."""

    def tried(update: Callable[[str], object], doc_id: str) -> bool:
        try:
            update(doc_id)
        except BusyError:
            return False
        return True

    def all_of(update: Callable[[str], object], doc_ids: list[str]) -> set[str]:
        return {doc_id for doc_id in doc_ids if tried(update, doc_id)}

    def adder() -> set[str]:
        return all_of(lambda doc_id: add_documents(index, [([doc_id], ONE)]), [f"new{i}" for i in range(20)])

    def deleter() -> set[str]:
        return all_of(lambda doc_id: delete_documents(index, [doc_id]), IDS[:20])

    results: dict[str, object] = {}
    threads = [
        threading.Thread(target=lambda name=name, work=work: results.update({name: in_child(work)}))
        for name, work in (("added", adder), ("deleted", deleter))
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    expected = (set(IDS) - results["deleted"]) | results["added"]  # type: ignore[operator]
    opened = InvertedIndex.open(index)
    opened.verify()
    assert set(opened.doc_ids()) == expected and results["added"] | results["deleted"]  # type: ignore[operator]
