"""One writer of a folder at a time, killed ones, full disks, files that cannot be written: nothing is lost."""

import errno
import multiprocessing
import os
import platform
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from splade.config import compose_experiment
from splade.datasets.dataset import Dataset
from splade.errors import BusyError
from splade.inverted_index import IndexBuilder, InvertedIndex, add_documents, delete_documents
from splade.reports.beir_report import write_beir_table
from splade.retrieval.evaluate_retriever import evaluate_retriever, evaluate_stored_run
from splade.retrieval.protocol import Retriever
from splade.storage import locks
from splade.storage.atomic import write_json
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
