"""Several processes for one command: how many, started here, and ended together whatever happens to one of them.

PyTorch's launcher, `torch.distributed.elastic`, is made for clusters: it restarts, logs, and reports in pages. Here the
command's own process starts the others, waits for them and passes on the first one's result, or one error. A worker
that is stuck in an exchange with one that is gone cannot end by itself, so it is ended from outside; and each worker
ends itself when the command's process is gone, killed or not.
"""

import importlib
import logging
import math
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf

from splade.config.cluster import Launcher
from splade.config.jobs import Figures
from splade.config.messages import explain_machine_error
from splade.config.schema import Experiment
from splade.distributed import available_threads, n_processes, visible_gpus, working_together
from splade.errors import ConfigError, SpladeError

START_METHOD = "spawn"  # a CUDA device cannot be used in a fork
ON_RAY = ("encode", "index", "retrieve", "beir_eval", "serve")
"""Tasks that `launcher=ray` is for."""

_LOOK_SECONDS = 0.5  # a child of a dead worker may keep its pipe open
_OTHERS_GONE = re.compile(r"gloo|NCCL|Connection (?:closed|reset|refused)|Broken pipe")
_GRACE_SECONDS = 3.0  # in which the other workers may tell what they saw, and end

logger = logging.getLogger(__name__)


class WorkerError(Exception):
    """A defect of the toolkit that showed in a worker; the text is its traceback."""


def processes_to_start(experiment: Experiment, trains: bool) -> int:
    """Return among how many processes a command shares its work; 1 where others have started them already.

    Args:
        experiment: `config.n_processes`, and the batch that they share.
        trains: whether there is a batch.

    Raises:
        ConfigError: `config.n_processes` is more than the GPUs, cannot share the batch, or is not what `torchrun` says.
    """
    run = experiment.config
    if experiment.launcher == "ray":
        return 1
    if os.environ.get("WORLD_SIZE"):
        if run.n_processes not in (None, n_processes()):
            raise ConfigError(
                f"config.n_processes={run.n_processes}, but torchrun has started {n_processes()}: leave "
                "config.n_processes null under torchrun"
            )
        return 1
    gpus = visible_gpus() if run.n_processes != 1 else 1
    wanted = run.n_processes or max(1, gpus)
    if gpus and wanted > gpus:
        raise ConfigError(f"config.n_processes={wanted}, but there are {gpus} GPUs: each process needs one of its own")
    batch_size = run.train_batch_size if trains else None
    if batch_size is None or batch_size % wanted == 0:
        return wanted
    shares = [n for n in range(1, wanted + 1) if batch_size % n == 0]
    if run.n_processes is not None:
        raise ConfigError(
            f"config.train_batch_size={batch_size} cannot be divided among config.n_processes={wanted}; "
            f"{', '.join(map(str, shares))} could share it"
        )
    logger.warning(
        "%d of %d GPUs are used: config.train_batch_size=%d cannot be divided among more", shares[-1], gpus, batch_size
    )
    return shares[-1]


def check_launcher(launcher: Launcher | None, task: str) -> None:
    """Check that a command was started as `launcher` says, and that it can be.

    Raises:
        ConfigError: it was not, or the task does not run on Ray.
    """
    by_torchrun = bool(os.environ.get("WORLD_SIZE"))
    if launcher == "torchrun" and not by_torchrun:
        raise ConfigError(f"launcher=torchrun: give the command as torchrun --nproc_per_node N -m splade.{task} ...")
    if launcher in ("local", "ray") and by_torchrun:
        raise ConfigError(f"launcher={launcher}, but torchrun has started {n_processes()} processes; leave one of both")
    if launcher == "ray" and task not in ON_RAY:
        among = "training on several machines is torchrun's; " if task in ("train", "run_all", "pretrain") else ""
        raise ConfigError(f"launcher=ray: splade.{task} does not use Ray; {among}these do: {', '.join(ON_RAY)}")


@dataclass(frozen=True)
class _Job:
    """What a worker is told.

    Attributes:
        task_module: module of the task.
        experiment: its argument.
        size: number of workers.
        port: where they meet, on this machine.
        command: as it was typed, for those who ask who holds a lock.
        hydra: what is asked of Hydra's own settings, None outside of Hydra.
    """

    task_module: str
    experiment: Experiment
    size: int
    port: int
    command: list[str]
    hydra: dict[str, object] | None


@dataclass(frozen=True)
class Outline:
    """What a command needs of a result: the text for the user and the figures. A result may hold open files."""

    text: str = ""
    found: tuple[Figures, ...] = ()

    def summary(self) -> str:
        """Return the text."""
        return self.text

    def figures(self) -> tuple[Figures, ...]:
        """Return the figures."""
        return self.found


@dataclass(frozen=True)
class _Outcome:
    """What a worker answers: the first one its result, and any an error.

    Attributes:
        result: of the first worker.
        error: what is wrong.
        ended: when, in seconds; processes of a machine have one clock.
        symptom: whether it is only that another worker has gone.
    """

    result: Outline = field(default_factory=Outline)
    error: SpladeError | WorkerError | None = None
    ended: float = field(default_factory=time.monotonic)
    symptom: bool = False


def run_in_processes(task_module: str, experiment: Experiment, size: int) -> Outline:
    """Run a task in `size` new processes that know each other, and return the first one's result.

    Raises:
        SpladeError: of the first worker that had one, or because a worker was killed.
        WorkerError: a defect.
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # any port that is free
    hydra = _hydra_settings() if HydraConfig.initialized() else None
    workers = _Workers()
    try:
        workers.start(_Job(task_module, experiment, size, store.port, sys.orig_argv, hydra))
        return workers.result()
    finally:
        workers.end()


def _hydra_settings() -> dict[str, object]:
    """Return how the running job logs, and what `splade.config.sweep` reads."""
    hydra = HydraConfig.get()
    asked = ("mode", "overrides.task", "sweeper.params", "job_logging", "verbose")
    settings = OmegaConf.create({})
    for name in asked:
        OmegaConf.update(settings, name, OmegaConf.select(cast(DictConfig, hydra), name), force_add=True)
    return cast(dict[str, object], OmegaConf.to_container(settings, resolve=True))


class _Workers:
    """The processes of a job."""

    def __init__(self) -> None:
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        self._outcomes: dict[int, _Outcome] = {}

    def start(self, job: _Job) -> None:
        """Start them."""
        context = cast(SpawnContext, multiprocessing.get_context(START_METHOD))
        with _without_interrupts():  # Ctrl-C reaches all; this process ends the others
            for rank in range(job.size):
                pipe, others_end = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(rank, job, others_end), name=f"splade-{rank}")
                process.start()
                others_end.close()
                self._processes.append(process)
                self._pipes.append(pipe)

    def result(self) -> Outline:
        """Wait until all have answered, or one has failed."""
        deadline = math.inf
        while len(self._outcomes) < len(self._processes) and time.monotonic() < deadline:
            self._collect()
            if self._failures() and deadline == math.inf:
                # Who died first is seldom who is seen first: the others fail because of it.
                deadline = time.monotonic() + _GRACE_SECONDS
        if failures := self._failures():
            raise failures[0]
        return self._outcomes[0].result

    def _collect(self) -> None:
        """Wait a moment for answers."""
        waiting = {rank: pipe for rank, pipe in enumerate(self._pipes) if rank not in self._outcomes}
        dead = [rank for rank in waiting if not self._processes[rank].is_alive()]  # before their pipes are read
        ready = wait(list(waiting.values()), _LOOK_SECONDS)
        for rank, pipe in waiting.items():
            if pipe in ready:
                try:
                    self._outcomes[rank] = pipe.recv()
                except EOFError:
                    self._outcomes[rank] = _Outcome(error=self._death(rank))
            elif rank in dead:
                self._outcomes[rank] = _Outcome(error=self._death(rank))

    def _death(self, rank: int) -> SpladeError:
        process = self._processes[rank]
        process.join(_GRACE_SECONDS)
        code = process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = " (when memory is short the system does that)" if code == -signal.SIGKILL else ""
        return SpladeError(
            f"process {rank} of {len(self._processes)} (id {process.pid}) {how}{memory}; the same command goes on "
            "where it was, or starts clean"
        )

    def _failures(self) -> list[SpladeError | WorkerError]:
        """Return the errors so far, first the one that the others follow from."""
        failed = [outcome for outcome in self._outcomes.values() if outcome.error is not None]
        failed.sort(key=lambda outcome: (outcome.symptom, outcome.ended))
        return [outcome.error for outcome in failed if outcome.error is not None]

    def end(self) -> None:
        """End all that still run; those that have answered are about to end by themselves."""
        with _without_interrupts():
            for rank, process in enumerate(self._processes):
                if rank in self._outcomes:
                    process.join(_GRACE_SECONDS)
                process.terminate()
            for process in self._processes:
                process.join(_GRACE_SECONDS)
                process.kill()
                process.join()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C inside the block, as will processes that are started there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(rank: int, job: _Job, pipe: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(job.size),
        "LOCAL_WORLD_SIZE": str(job.size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(job.port),
        # The store is the command's, as it is torchrun's; no worker opens one.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "OMP_NUM_THREADS": str(_threads(job.size)),  # read when PyTorch is imported
    }
    loopback = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if loopback:  # however the network is set up, or whether it is
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
    pipe.send(_outcome(rank, job))
    pipe.close()


def _threads(size: int) -> int:
    """Return how many threads each of `size` processes may start, so that all of them find a processor."""
    share = max(1, available_threads() // size)
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(given), share) if given.isdecimal() and int(given) else share


def _outcome(rank: int, job: _Job) -> _Outcome:
    sys.orig_argv = job.command
    logging.captureWarnings(True)
    if job.hydra is not None:
        hydra = OmegaConf.create({"hydra": job.hydra})
        HydraConfig.instance().cfg = hydra  # type: ignore[assignment]  # as Hydra itself does
        configure_log(hydra.hydra.job_logging, hydra.hydra.verbose)
    if rank > 0:
        logging.getLogger().setLevel(logging.WARNING)
    try:
        module = importlib.import_module(job.task_module)
        with working_together():
            result = getattr(module, job.task_module.rpartition(".")[2])(job.experiment)
        if rank > 0:
            return _Outcome()
        return _Outcome(Outline(result.summary(), tuple(result.figures())))
    except Exception as error:
        known = error if isinstance(error, SpladeError) else explain_machine_error(error)
        if known is not None:
            return _Outcome(error=known)
        defect = WorkerError(f"in process {rank} of {job.size}:\n{traceback.format_exc()}")
        return _Outcome(error=defect, symptom=_OTHERS_GONE.search(str(error)) is not None)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
