"""Ray: connecting to a cluster, and doing the parts of a job there.

Parts are Ray tasks, which Ray starts again, there or on another machine, when a worker or its machine is gone. A worker
process keeps the job it has last seen, with the model that belongs to it, and does many parts. They are tasks and not
methods of actors, because an actor whose machine is gone waits for a place of its own, while a task takes any.
"""

import logging
import os
import pickle
import socket
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from splade.cluster.part_jobs import PartJob
from splade.cluster.runners import Runner
from splade.config.cluster import RayConfig
from splade.errors import ConfigError, SpladeError
from splade.processors import available_processors
from splade.progress import progress_bar

if TYPE_CHECKING:
    from ray import ObjectRef

logger = logging.getLogger(__name__)

RETRIES = 10
"""How often Ray does a part again whose worker was killed, before that is an error."""

_LOOK_SECONDS = 2.0
_OBJECT_STORE_BYTES = 256 << 20  # of a Ray of this machine alone: vectors and indexes go through files
_GOES_ON = "the same command goes on with what is missing"


def ray_library() -> ModuleType:
    """Import Ray.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray will do; without it, it warns
    try:
        import ray
    except ImportError as error:
        raise ConfigError("launcher=ray needs Ray: pip install 'splade[ray]'") from error
    return ray


def connect(keys: RayConfig) -> ModuleType:
    """Connect to the cluster of `ray.address`, or start Ray on this machine for the time of the command.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster.
    """
    ray = ray_library()
    if ray.is_initialized():
        return ray
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if keys.address is not None:
            if keys.address != "auto":
                _check_answers(keys.address)
            ray.init(address=keys.address, **quiet)
        else:
            processors = max(available_processors(), (keys.workers or 1) * keys.cpus)
            ray.init(
                address="local",
                num_cpus=processors,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = "Ray does not start on this machine" if keys.address is None else f"no cluster at {keys.address}"
        raise ConfigError(f"ray.address={keys.address or 'null'}: {where} ({_first_line(error)})") from error
    return ray


class RayRunner(Runner):
    """A Ray cluster.

    Args:
        keys: which one, and what a worker takes of it.

    Raises:
        ConfigError: there is none, or no machine of it has what a worker takes.
    """

    def __init__(self, keys: RayConfig):
        self._ray, self._keys = connect(keys), keys
        there = self._ray.cluster_resources()
        self._gpus = keys.gpus if keys.gpus is not None else min(1.0, there.get("GPU", 0.0))
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(one.get("CPU", 0) >= keys.cpus and one.get("GPU", 0) >= self._gpus for one in nodes):
            raise ConfigError(
                f"ray.cpus={keys.cpus} ray.gpus={self._gpus:g}: no machine of the cluster has so many; they have "
                + "; ".join(f"{one.get('CPU', 0):g} processors, {one.get('GPU', 0):g} GPUs" for one in nodes)
            )

    def run(self, job: PartJob, n_parts: int) -> None:
        """Do the parts that are not there.

        Raises:
            SpladeError: what was wrong in a worker, or the cluster is gone.
        """
        wanted = [number for number in range(n_parts) if not job.is_done(number)]
        if not wanted:
            return
        payload = self._ray.put(pickle.dumps(job))
        do_part = self._ray.remote(num_cpus=self._keys.cpus, num_gpus=self._gpus, max_retries=RETRIES, max_calls=0)(
            _do_part
        )
        at_a_time = self._keys.workers or len(wanted)
        with progress_bar(job.title, total=sum(map(job.n_docs, wanted)), unit="doc") as bar:
            running: dict[ObjectRef, int] = {}
            waiting = list(reversed(wanted))
            while waiting or running:
                while waiting and len(running) < at_a_time:
                    number = waiting.pop()
                    running[do_part.remote(os.getcwd(), payload, number)] = number
                for done in next_done(self._ray, list(running), self._keys):
                    answer(self._ray, done)
                    bar.update(job.n_docs(running.pop(done)))
        missing = [number for number in wanted if not job.is_done(number)]
        if missing:
            raise SpladeError(
                f"{job.title}: part {missing[0]} was written on another machine and is not seen on this one: "
                "config.index_dir and config.out_dir must be folders that all machines share"
            )


def _do_part(folder: str, payload: bytes, number: int) -> None:
    """Do a part; this runs in a worker of Ray, in the folder where the command was given."""
    if Path(folder).is_dir():
        os.chdir(folder)
    job = _unpickled(payload)
    if not job.is_done(number):
        job.do(number)


@lru_cache(maxsize=1)
def _unpickled(payload: bytes) -> PartJob:
    return cast(PartJob, pickle.loads(payload))


def next_done(ray: ModuleType, running: "Sequence[ObjectRef]", keys: RayConfig) -> "list[ObjectRef]":
    """Wait until one or more of the tasks are done, and return them.

    Raises:
        SpladeError: the cluster is gone.
    """
    for _ in _while_it_answers(ray, keys):
        done, _ = ray.wait(list(running), timeout=_LOOK_SECONDS)
        if done:
            return list(done)
    raise AssertionError("this wait ends with an error, if not with a result")


def answer(ray: ModuleType, done: "ObjectRef") -> object:
    """Return what a task that is done has returned.

    Raises:
        SpladeError: that of the task, or because its workers were killed again and again.
    """
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SpladeError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise SpladeError(
            f"Ray gave up on a worker after {RETRIES} times ({_first_line(error)}); when memory is short the system "
            f"kills them: take fewer (ray.workers) or more memory; {_GOES_ON}"
        ) from error


def _while_it_answers(ray: ModuleType, keys: RayConfig) -> Iterator[None]:
    """Yield again and again, until the head of the cluster has not answered for `ray.gone_seconds`."""
    address = ray.get_runtime_context().gcs_address
    answered = time.monotonic()
    while True:
        yield
        if _answers(address):
            answered = time.monotonic()
        elif time.monotonic() - answered > keys.gone_seconds:
            raise SpladeError(f"the Ray cluster at {address} is gone; once there is one again, {_GOES_ON}")


def _check_answers(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would try for minutes."""
    if not _answers(address.rpartition("://")[2]):
        raise ConfigError(
            f"ray.address={address}: nothing answers there; `ray status` on its head shows a cluster's address, and "
            "`ray start --head` starts one"
        )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200]
