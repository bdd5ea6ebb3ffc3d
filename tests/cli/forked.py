"""Commands in processes of their own that start in a fraction of a second.

A server process imports the heavy libraries once; every command is a fork of it, with its own arguments and
environment, and can be killed like any process.
"""

import importlib
import multiprocessing
import os
import signal
import socket
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
PRELOADED = ["splade.tasks.train", "splade.config", "tensorboard"]


def start_training(
    arguments, folder, environment=None, kill_at=None, errors=None, task="train", killed_rank=None, defect=False
) -> BaseProcess:
    """Start `python -m splade.TASK ARGUMENTS` with `folder` as the working directory.

    Args:
        arguments: overrides.
        folder: working directory.
        environment: additional environment variables.
        kill_at: ("module.function", n): the process kills itself (SIGKILL) when it calls that function the nth time.
        errors: file that takes the standard error; None: this process's own.
        task: the command.
        killed_rank: only this process of several is killed; None: whichever calls the function.
        defect: it is not killed, but the function raises an AssertionError.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(
        target=_command,
        args=([str(a) for a in arguments], folder, environment or {}, kill_at, errors, task, killed_rank, defect),
    )
    process.start()
    return process


def train(arguments, folder):
    """Train to the end."""
    process = start_training(arguments, folder)
    process.join(timeout=300)
    assert process.exitcode == 0


def train_in_parallel(arguments, folder, n_processes=2, kill_at=None, errors=None, task="train"):
    """Run a command with several processes, as `torchrun` starts them; return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(n_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        start_training(arguments, folder, common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, kill_at, errors, task)
        for rank in range(n_processes)
    ]
    for process in processes:
        process.join(timeout=300)
    return [process.exitcode for process in processes]


def _command(arguments, folder, environment, kill_at, errors, task, killed_rank, defect) -> None:
    import torch

    from splade.config import processes, run_task

    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
    os.chdir(folder)
    os.environ.update(environment)
    if errors is not None:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    torch.set_num_threads(1)
    if kill_at is not None:
        _kill_at(*kill_at, killed_rank, defect)
    processes.START_METHOD = "fork"  # nothing is imported again, and there is no GPU
    name = {"all": "run_all"}.get(task, task)
    run_task(f"splade.tasks.{name}", arguments=arguments)


def _kill_at(name: str, call: int, rank: int | None, defect: bool) -> None:
    owner_name, _, attribute = name.rpartition(".")
    try:
        owner = importlib.import_module(owner_name)
    except ModuleNotFoundError:
        module, _, class_name = owner_name.rpartition(".")
        owner = getattr(importlib.import_module(module), class_name)
    original, calls = getattr(owner, attribute), iter(range(1, call))

    def wrapper(*args, **kwargs):
        if rank in (None, int(os.environ.get("RANK", 0))) and next(calls, None) is None:
            assert not defect, "broken"
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, attribute, wrapper)
