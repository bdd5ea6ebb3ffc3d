"""Which of several processes this is, the devices and cores it may use, and what the processes tell each other.

A command starts one process per GPU (`splade.config.processes`), or `torchrun` does; the same environment variables
number them. Light commands import this module, so PyTorch is only imported where it is needed.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from splade.errors import ConfigError, SpladeError
from splade.processors import available_processors

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")

LONGEST_WAIT = timedelta(days=1)  # the first process searches while the others wait

_alone = False  # while the first process does something without the others


def process_rank() -> int:
    """Return the number of this process, from 0; 0 where there is one.

    Raises:
        ConfigError: RANK, LOCAL_RANK or WORLD_SIZE is set to something that `torchrun` does not set.
    """
    return _rank("RANK")


def n_processes() -> int:
    """Return how many processes work together: 1 within `on_first_process`."""
    return 1 if _alone else _variable("WORLD_SIZE", default=1)


def on_one_machine() -> bool:
    """Return whether all processes that work together are on this machine."""
    return n_processes() == _variable("LOCAL_WORLD_SIZE", default=1)


def local_rank() -> int:
    """Return the number of this process among those of this machine, from 0."""
    return _rank("LOCAL_RANK")


def _rank(variable: str) -> int:
    rank = _variable(variable, default=0)
    if rank >= (size := _variable("WORLD_SIZE", default=1)):
        raise ConfigError(
            f"{variable}={rank}, but WORLD_SIZE={size}: processes are numbered from 0; start them with "
            f"torchrun, or unset {variable} for a single process"
        )
    return rank


def _variable(name: str, default: int) -> int:
    """Return a number that `torchrun` has set; its default is the smallest that there is."""
    text = os.environ.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < default:
        raise ConfigError(f"{name}={text!r}: torchrun sets it to a number; unset it for a single process")
    return int(text)


def pick_device() -> "torch.device":
    """Return this process's GPU, or the CPU when there is none."""
    import torch

    return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def available_threads(n_threads: int = 0) -> int:
    """Return `config.n_threads`, where 0 stands for one per core that this process may use."""
    return n_threads or available_processors()


def shard_range(n: int, rank: int, world_size: int) -> range:
    """Return which of `n` items process `rank` (from 0) of `world_size` takes care of: consecutive ones.

    The ranges follow each other without gap or overlap and their sizes differ by at most one, so that the results of
    all processes, one after the other, are those of a single one.

    Raises:
        ConfigError: there is no such process.

    Example:
        >>> [shard_range(7, rank, 3) for rank in range(3)]
        [range(0, 2), range(2, 4), range(4, 7)]
    """
    if n < 0 or not 0 <= rank < world_size:
        raise ConfigError(
            f"{n} items for process {rank} of {world_size}: processes are numbered from 0 to {world_size - 1}"
        )
    return range(n * rank // world_size, n * (rank + 1) // world_size)


def visible_gpus() -> int:
    """Return how many GPUs this process may use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def join_processes() -> None:
    """Connect to the other processes, if there are any. All but the first only log warnings from now on.

    GPUs exchange tensors by NCCL. Everything else is exchanged by gloo: whoever waits for a long time leaves the
    processor to others.
    """
    if n_processes() == 1:
        return
    import torch

    if torch.distributed.is_initialized():
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank())
    try:
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:  # torch's own errors are among them
        raise ConfigError(
            f"the {n_processes()} processes of WORLD_SIZE cannot connect ({error}); start them with torchrun, or unset "
            "WORLD_SIZE for a single process"
        ) from error
    if process_rank() > 0:
        logging.getLogger().setLevel(logging.WARNING)


def leave_processes() -> None:
    """Wait until every process has come here, and disconnect."""
    if n_processes() > 1:
        import torch.distributed

        wait_for_all()
        torch.distributed.destroy_process_group()


def wait_for_all() -> None:
    """Wait until every process has come here."""
    gather(None)


def gather(value: Value) -> list[Value]:
    """Return the values of all processes, in their order, in all of them; they must be picklable."""
    if n_processes() == 1:
        return [value]
    join_processes()
    import torch.distributed

    values: list[Value | None] = [None] * n_processes()
    torch.distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]  # None only where a process gave it


def on_first_process(function: Callable[[], Value]) -> Value:
    """Call `function` in the first process only, and return its value, or raise its SpladeError, in all of them.

    The function runs as if there were no other process. Its value must be picklable.
    """
    global _alone
    if n_processes() == 1:
        return function()
    join_processes()
    import torch.distributed

    outcome: list[tuple[Value | None, SpladeError | None]] = [(None, None)]
    if process_rank() == 0:
        _alone = True
        try:
            outcome = [(function(), None)]
        except SpladeError as error:
            outcome = [(None, error)]
        finally:
            _alone = False
    torch.distributed.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
    value, failure = outcome[0]
    if failure is not None:
        raise failure
    return value  # type: ignore[return-value]  # None only where the function returned it


def first_process_first(function: Callable[[], Value]) -> Value:
    """Call `function` in the first process, then in the others, which find what the first one has cached."""
    mine: list[Value] = []
    on_first_process(lambda: mine.append(function()))
    return mine[0] if mine else function()


def all_or_none(function: Callable[[], Value]) -> Value:
    """Call `function` in all processes; a SpladeError in one of them is raised in all."""
    failure: SpladeError | None = None
    results: list[Value] = []
    try:
        results.append(function())
    except SpladeError as error:
        failure = error
    failure = next((error for error in gather(failure) if error is not None), None)
    if failure is not None:
        raise failure
    return results[0]


@contextmanager
def held_by_first_process(take: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Hold something, such as a lock, in the first process for the block; its SpladeError is raised in all."""
    held: list[AbstractContextManager[object]] = []
    on_first_process(lambda: held.append(take()))
    with held[0] if held else nullcontext():
        yield


@contextmanager
def working_together() -> Iterator[None]:
    """Connect to the other processes, if there are any, for the block. An error leaves them to whoever started them."""
    if n_processes() == 1:
        yield
        return
    import torch.distributed

    outermost = not torch.distributed.is_initialized()
    join_processes()
    yield
    if outermost:
        leave_processes()
