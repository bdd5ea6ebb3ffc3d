"""Threads that multiply on their own, next to each other.

PyTorch shares out each product among threads that wait for each other after it. With small products that waiting takes
longer than the products; then every thread does whole pieces of the work instead.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from threading import Lock
from typing import TypeVar

import torch
from torch import nn

Item = TypeVar("Item")
Result = TypeVar("Result")

# Weights of a model whose products are too small to be shared out among threads.
SMALL = 40_000_000

# Held while the number of threads is changed, which the matrix library has one of for the whole process: two callers
# must not restore each other's change.
_matrix_threads = Lock()


def is_small(encoder: object) -> bool:
    """Whether threads had better encode a batch each than share the products of one."""
    if not isinstance(encoder, nn.Module) or encoder.training:  # in training mode, each would switch dropout off and on
        return False
    weights = list(chain(encoder.parameters(), encoder.buffers()))
    on_cpu = all(weight.device.type == "cpu" for weight in weights)
    return on_cpu and sum(weight.numel() for weight in weights) <= SMALL


def map_in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Do `work` on every item, without autograd, in `torch.get_num_threads()` threads; return the results in order."""
    threads = min(torch.get_num_threads(), len(items))
    if threads <= 1:
        return [work(item) for item in items]

    def without_autograd(item: Item) -> Result:
        with torch.inference_mode():  # like the number of threads, a setting of each thread
            return work(item)

    with _matrix_threads, one_thread(), ThreadPoolExecutor(threads, "matrix", torch.set_num_threads, (1,)) as pool:
        return list(pool.map(without_autograd, items))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let this thread alone multiply, inside the block."""
    restored = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(restored)
