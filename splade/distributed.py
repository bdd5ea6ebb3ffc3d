"""The processes that `torchrun` started for one training run."""

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from splade.errors import SpladeError

if TYPE_CHECKING:
    from splade.models.splade import Splade

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

LONGEST_WAIT = timedelta(days=1)  # the first process validates while the others wait


def n_processes() -> int:
    """Return how many processes there are; 1 without `torchrun`."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join_processes() -> None:
    """Connect to the other processes, if there are any. All but the first only log warnings from now on."""
    if n_processes() == 1:
        return
    import torch

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group("nccl" if cuda else "gloo", timeout=LONGEST_WAIT)
    if torch.distributed.get_rank() > 0:
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
    if torch.distributed.get_rank() == 0:
        try:
            outcome = [(function(), None)]
        except SpladeError as error:
            outcome = [(None, error)]
    torch.distributed.broadcast_object_list(outcome, src=0)
    value, failure = outcome[0]
    if failure is not None:
        raise failure
    return value  # type: ignore[return-value]  # None only where the function returned it


def freeze_unused_parameters(model: "Splade") -> None:
    """Freeze the parameters on which no vector depends, such as a pooler: the processes would wait for their gradient.

    Which they are shows when a few tokens are encoded: a used parameter has a gradient then, if only of zeros.
    """
    import torch

    ids = torch.arange(8, device=next(model.parameters()).device).unsqueeze(0)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    training = model.training
    queries, documents = model.eval()(batch, batch)
    (queries.sum() + documents.sum()).backward()
    model.train(training)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            logger.info("%s has no influence and is not trained", name)
            parameter.requires_grad_(False)
        parameter.grad = None
