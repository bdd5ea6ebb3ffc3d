"""How long a training run is and how large its batches are, in the two ways in which `config` may say so."""

import math
from dataclasses import dataclass, replace

from splade.config.inherited import ALTERNATIVES
from splade.config.schema import Experiment, RunConfig
from splade.distributed import n_processes
from splade.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """The length of a training run.

    Attributes:
        steps: optimiser steps in all.
        warmup_steps: of which the learning rate grows in these.
        batch_size: queries per batch, over all processes.
    """

    steps: int
    warmup_steps: int
    batch_size: int


def schedule_of(run: RunConfig, n_examples: int) -> Schedule:
    """Return the schedule that `config` describes for a training set, steps and warm-up rounded up.

    An epoch is `n_examples / (batch size x accumulation)` optimiser steps.

    Raises:
        ConfigError: both, or neither, of two keys that say the same are given.

    Example:
        >>> schedule_of(RunConfig(nb_iterations=None, nb_epochs=2, train_batch_size=8), n_examples=100)
        Schedule(steps=25, warmup_steps=6000, batch_size=8)
    """
    check_alternatives(run)
    batch_size = global_batch_size(run)
    examples_per_step = batch_size * run.gradient_accumulation_steps
    steps = run.nb_iterations or math.ceil((run.nb_epochs or 0) * n_examples / examples_per_step)
    warmup = math.ceil((run.warmup_ratio or 0) * steps) if run.warmup_steps is None else run.warmup_steps
    return Schedule(max(steps, 1), warmup, batch_size)


def global_batch_size(run: RunConfig) -> int:
    """Return the queries per batch over all processes.

    Raises:
        ConfigError: both keys of the batch size are given or neither, or the processes cannot share the batch.
    """
    check_alternatives(run)
    if run.train_batch_size is None:
        return (run.per_device_train_batch_size or 0) * n_processes()
    if run.train_batch_size % n_processes():
        raise ConfigError(
            f"config.train_batch_size={run.train_batch_size} cannot be divided among {n_processes()} processes"
        )
    return run.train_batch_size


def with_global_batch(experiment: Experiment) -> Experiment:
    """Return the experiment with the batch of all processes in `config.train_batch_size`.

    What is written down of a run then says what was trained, whatever number of processes there is when it is read.
    """
    run = experiment.config
    settled = replace(run, train_batch_size=global_batch_size(run), per_device_train_batch_size=None)
    return replace(experiment, config=settled)


def check_alternatives(run: RunConfig) -> None:
    """Raise a ConfigError unless exactly one key of each of `ALTERNATIVES` is given."""
    for names in ALTERNATIVES:
        given = [f"config.{name}={getattr(run, name)}" for name in names if getattr(run, name) is not None]
        if len(given) == 2:
            raise ConfigError(f"{' and '.join(given)} both say how training runs: set one of them to null")
        if not given:
            raise ConfigError(f"no value for config.{names[0]}, nor for config.{names[1]}: give one of them")
