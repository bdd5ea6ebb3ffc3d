"""Where a model runs, and which of several processes this is."""

import os

import torch


def pick_device() -> torch.device:
    """Return this process's GPU, or the CPU when there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def process_rank() -> tuple[int, int]:
    """Return (rank, number of processes) as `torchrun` set them; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def search_threads(n_threads: int) -> int:
    """Return `config.n_threads`, where 0 stands for one per core."""
    return n_threads or len(os.sched_getaffinity(0))
