"""Which of the processes that `torchrun` started this is, and the devices and cores it may use.

Light commands import this module, so PyTorch is only imported where it is needed.
"""

import logging
import os
import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from splade.errors import ConfigError, SpladeError
from splade.processors import available_processors

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")

LONGEST_WAIT = timedelta(days=1)  # the first process validates while the others wait


def process_rank() -> int:
    """Return the number of this process, from 0; 0 without `torchrun`.

    Raises:
        ConfigError: RANK, LOCAL_RANK or WORLD_SIZE is set to something that `torchrun` does not set.
    """
    return _rank("RANK")


def n_processes() -> int:
    """Return how many processes there are; 1 without `torchrun`."""
    return _variable("WORLD_SIZE", default=1)


def local_rank() -> int:
    """Return the number of this process among those of this machine, from 0."""
    return _rank("LOCAL_RANK")


def _rank(variable: str) -> int:
    rank = _variable(variable, default=0)
    if rank >= n_processes():
        raise ConfigError(
            f"{variable}={rank}, but WORLD_SIZE={n_processes()}: processes are numbered from 0; start them with "
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


def join_processes() -> None:
    """Connect to the other processes, if there are any. All but the first only log warnings from now on."""
    if n_processes() == 1:
        return
    import torch

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank())
    try:
        torch.distributed.init_process_group("nccl" if cuda else "gloo", timeout=LONGEST_WAIT)
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

        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def on_first_process(function: Callable[[], Value]) -> Value:
    """Call `function` in the first process only, and return its value, or raise its SpladeError, in all of them."""
    if n_processes() == 1:
        return function()
    import torch.distributed

    outcome: list[tuple[Value | None, SpladeError | None]] = [(None, None)]
    if process_rank() == 0:
        try:
            outcome = [(function(), None)]
        except SpladeError as error:
            outcome = [(None, error)]
    torch.distributed.broadcast_object_list(outcome, src=0)
    value, failure = outcome[0]
    if failure is not None:
        raise failure
    return value  # type: ignore[return-value]  # None only where the function returned it
