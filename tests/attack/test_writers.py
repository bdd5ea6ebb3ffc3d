"""One writer of a folder at a time, killed ones, full disks, files that cannot be written: nothing is lost."""

import errno
import multiprocessing
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from splade.config import compose_experiment
from splade.datasets.dataset import Dataset
from splade.errors import BusyError, DataError, WriteError
from splade.inverted_index import IndexBuilder, InvertedIndex, add_documents, delete_documents, update_documents
from splade.reports.beir_report import write_beir_table
from splade.retrieval.evaluate_retriever import evaluate_retriever, evaluate_stored_run
from splade.retrieval.protocol import Retriever
from splade.storage import atomic, locks
from splade.storage.atomic import replacing, write_json, write_text
from splade.storage.locks import LOCK_FILE, FolderLock
from splade.tasks.systems import System, evaluate_system
from splade.training.run_folder import RunFolder
from splade.vectors import SparseVectors

VOCAB, N_DOCS = 20, 60
FORK = multiprocessing.get_context("fork")
RNG = np.random.default_rng(0)
VECTORS = SparseVectors.from_dense((RNG.random((N_DOCS, VOCAB)) * (RNG.random((N_DOCS, VOCAB)) < 0.3)).astype("f4"))
IDS = [f"d{i}" for i in range(N_DOCS)]
ONE = VECTORS.rows(0, 1)


def build(folder: Path, **options: object) -> IndexBuilder:
    """Add all documents to a new builder, or those that are still to come."""
    builder = IndexBuilder(folder, VOCAB, {"model": "m"}, overwrite=True, segment_postings=100, **options)
    for i in range(builder.documents_done, N_DOCS, 5):
        builder.add(IDS[i : i + 5], VECTORS.rows(i, i + 5))
    return builder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Folder of an index of all documents."""
    build(tmp_path / "index").finish()
    return tmp_path / "index"


def in_child(work: Callable[[], object]) -> object:
    """Call a function in a process of its own; return its value, the error it ends with, or None when it is killed."""
    receiver, sender = FORK.Pipe(duplex=False)

    def call() -> None:
        try:
            sender.send(work())
        except BaseException as error:
            sender.send(error)

    process = FORK.Process(target=call)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        process.join()


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[multiprocessing.process.BaseProcess]:
    """Hold the lock of a folder in a process that can be killed."""
    receiver, sender = FORK.Pipe(duplex=False)

    def hold() -> None:
        with FolderLock(folder):
            sender.send(True)
            signal.pause()

    process = FORK.Process(target=hold)
    process.start()
    receiver.recv()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Nothing(Retriever):
    """Finds one document."""

    def retrieve(self, queries, top_k):
        yield from ((query_id, {"d1": 1.0}) for query_id in queries)


class NothingSystem(System):
    label = "nothing"

    def settings(self, dataset):
        return {"a": 1}

    def build(self, dataset, index_dir):
        return Nothing(), []


DATASET = Dataset("x", {"q": "a query"}, None)
WRITERS = {
    "build": lambda folder: IndexBuilder(folder, VOCAB, overwrite=True),
    "add": lambda folder: add_documents(folder, [(["new"], ONE)]),
    "delete": lambda folder: delete_documents(folder, ["d1"]),
    "train": lambda folder: RunFolder(
        compose_experiment("config_default", [f"config.checkpoint_dir={folder}"])
    ).outcome(),
    "retrieve": lambda folder: evaluate_retriever(Nothing(), DATASET, None, 10, folder),
    "evaluate": lambda folder: evaluate_stored_run(folder, DATASET, None),
    "beir_eval": lambda folder: evaluate_system(NothingSystem(), DATASET, None, 10, folder / "i", folder),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_second_writer_fails_at_once_and_says_who_is_at_work(index: Path, writer: str) -> None:
    write_json(index / "run.json", {"q": {"d1": 1.0}})
    before = {path.name: path.read_bytes() for path in index.iterdir()}
    with held_by_another_process(index) as other:
        with pytest.raises(BusyError) as raised:
            WRITERS[writer](index)
        kept = {path.name: path.read_bytes() for path in index.iterdir() if path.name != LOCK_FILE}
        assert kept == before
    message = str(raised.value)
    assert str(index) in message and f"process {other.pid} on {platform.node()} " in message
    assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", message)
    assert f"({' '.join(sys.orig_argv)[:500]}); wait until it has ended" in message


@pytest.mark.parametrize("writer", [name for name in WRITERS if name != "evaluate"])
def test_a_killed_writer_leaves_no_lock(index: Path, writer: str) -> None:
    with held_by_another_process(index) as other:
        other.kill()
        other.join()
        assert (index / LOCK_FILE).exists()
        WRITERS[writer](index)
    assert LOCK_FILE not in names(index)


def test_readers_do_not_wait(index: Path) -> None:
    with held_by_another_process(index):
        opened = InvertedIndex.open(index)
        opened.verify()
        assert len(opened.search(ONE, 3).doc_idx) == 3


def test_an_open_index_outlives_a_rebuild_and_an_update(index: Path) -> None:
    opened, expected = InvertedIndex.open(index), InvertedIndex.open(index).search(VECTORS, 5).doc_idx.tolist()
    builder = IndexBuilder(index, VOCAB, overwrite=True)
    builder.add(["only"], ONE)
    assert InvertedIndex.open(index).n_docs == N_DOCS  # until the new one is complete
    builder.finish()
    delete_documents(index, ["only"]) if InvertedIndex.open(index).n_docs > 1 else add_documents(index, [(["b"], ONE)])
    assert InvertedIndex.open(index).n_docs == 2
    assert opened.search(VECTORS, 5).doc_idx.tolist() == expected and opened.doc_id(N_DOCS - 1) == f"d{N_DOCS - 1}"


def test_one_thread_may_take_a_lock_again_and_another_may_not(tmp_path: Path) -> None:
    found = []

    def other() -> None:
        try:
            FolderLock(tmp_path)
        except BusyError as error:
            found.append(str(error))

    with FolderLock(tmp_path):
        with FolderLock(tmp_path / "." / ""):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(found) == 1 and f"process {os.getpid()} " in found[0]
    lock = FolderLock(tmp_path)
    lock.release()
    lock.release()
    assert names(tmp_path) == []


def test_a_table_waits_for_that_of_another_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two evaluations of different data sets end at the same time: the table of the second holds both."""
    perf = {"NDCG@10": 0.5, "Recall@100": 0.5, "R_cap@100": 0.5}
    write_json(tmp_path / "beir" / "one" / "perf.json", perf)
    with held_by_another_process(tmp_path) as other:

        def end_of_the_other(_: float) -> None:
            write_json(tmp_path / "beir" / "two" / "perf.json", perf)
            other.kill()
            other.join()

        monkeypatch.setattr(locks.time, "sleep", end_of_the_other)
        table = write_beir_table(tmp_path).summary()
    assert "one" in table and "two" in table


def test_a_forked_worker_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    receiver, sender = FORK.Pipe(duplex=False)

    def hold_and_fork() -> None:
        lock = FolderLock(tmp_path)
        worker = os.fork()
        if worker == 0:
            lock.release()  # of a parent: nothing happens
            signal.pause()
        sender.send(worker)
        signal.pause()

    process = FORK.Process(target=hold_and_fork)
    process.start()
    worker = receiver.recv()
    try:
        with pytest.raises(BusyError):
            FolderLock(tmp_path)
        process.kill()
        process.join()
        FolderLock(tmp_path).release()
    finally:
        process.kill()
        os.kill(worker, signal.SIGKILL)


def test_a_lock_file_that_its_holder_has_just_removed_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = locks.fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / LOCK_FILE).unlink()  # between opening and locking
        flock(descriptor, operation)

    (tmp_path / LOCK_FILE).touch()
    monkeypatch.setattr(locks.fcntl, "flock", late)
    with FolderLock(tmp_path):
        monkeypatch.undo()
        assert isinstance(in_child(lambda: FolderLock(tmp_path)), BusyError)


def test_an_evaluation_has_the_folder_until_it_has_written_what_it_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def store_result(system: str, result: object, settings: object) -> object:
        found.append(in_child(lambda: FolderLock(tmp_path / "out")))
        return result

    monkeypatch.setattr("splade.tasks.systems.store_result", store_result)
    evaluate_system(NothingSystem(), DATASET, None, 10, tmp_path / "index", tmp_path / "out")
    assert isinstance(found[0], BusyError)


def test_ranks_have_locks_of_their_own(tmp_path: Path) -> None:
    ranks = [IndexBuilder(tmp_path, VOCAB, rank=rank, world_size=2) for rank in (0, 1)]
    for rank in (0, 1):
        assert isinstance(in_child(lambda rank=rank: IndexBuilder(tmp_path, VOCAB, rank=rank, world_size=2)), BusyError)
    assert isinstance(in_child(lambda: IndexBuilder(tmp_path, VOCAB)), BusyError)
    del ranks
    assert not [name for name in names(tmp_path) if name.startswith(LOCK_FILE)]


@pytest.fixture(params=["no locks on the file system", "no fcntl"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl = None if request.param == "no fcntl" else SimpleNamespace(flock=refuse, LOCK_EX=0, LOCK_NB=0)
    monkeypatch.setattr(locks, "fcntl", fcntl)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_file_stands_for_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with held_by_another_process(tmp_path) as other:
        with pytest.raises(BusyError, match=f"process {other.pid} .*if that process has ended, remove .*{LOCK_FILE}"):
            FolderLock(tmp_path)
        other.kill()
        other.join()
        FolderLock(tmp_path).release()  # taken over: that process is gone
    assert names(tmp_path) == [] and "no locks on this file system" in caplog.text


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("left", [b"", b"nonsense", b'{"host": "elsewhere", "process": 1, "command": "", "since": ""}'])
def test_without_locks_a_file_of_nobody_knows_whom_is_not_taken_over(tmp_path: Path, left: bytes) -> None:
    (tmp_path / LOCK_FILE).write_bytes(left)
    with pytest.raises(BusyError, match="if that process has ended, remove"):
        FolderLock(tmp_path)


@pytest.mark.parametrize("left", [b"", b"\xff\xfe", b"[1]", b"9" * 5000, b"{" * 100_000])
def test_whatever_a_lock_file_holds_is_overwritten(tmp_path: Path, left: bytes) -> None:
    (tmp_path / LOCK_FILE).write_bytes(left)
    with FolderLock(tmp_path):
        assert b'"process"' in (tmp_path / LOCK_FILE).read_bytes()
    assert names(tmp_path) == []


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
def test_a_build_on_a_full_disk_goes_on_when_there_is_room(index: Path, limit: int) -> None:
    folder = index.parent / "full"
    error = with_file_limit(limit, lambda: build(folder).finish())
    assert isinstance(error, WriteError) and re.search(r"cannot be written \(.*give the same command again", str(error))
    assert not [path for path in folder.rglob("*.part")] and LOCK_FILE not in names(folder)
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
