"""From the command line to a task: compose the config, run the task, report its result or its error."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from hydra import compose, initialize_config_dir
from hydra import main as hydra_main
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from splade.config.choose import (
    ROOT,
    ConfigChoice,
    choose_config,
    register,
    replacing_sections,
    without_config_options,
)
from splade.config.explain import explain_composition_error
from splade.config.report import report, report_error
from splade.config.schema import Experiment
from splade.config.validate import to_experiment
from splade.errors import SpladeError

TRACEBACK_VARIABLE = "HYDRA_FULL_ERROR"


class Result(Protocol):
    """What a task returns: anything that can be shown to the user."""

    def summary(self) -> str:
        """Return the text that the command prints when the task has ended."""


TaskResult = TypeVar("TaskResult", bound=Result)


def compose_experiment(config_name: str = "config_default", overrides: Sequence[str] = ()) -> Experiment:
    """Compose and check an experiment in a program or a notebook, as the command line would.

    Example:
        >>> compose_experiment("config_default", ["config.seed=7"]).config.seed
        7
    """
    choice = choose_config({}, ["--config-name", config_name])
    register(choice)
    try:
        with initialize_config_dir(str(choice.folder), version_base="1.3"):
            return to_experiment(compose(ROOT, replacing_sections(overrides)))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain_composition_error(error, choice) from error


def run_task(
    task: Callable[[Experiment], TaskResult],
    arguments: Sequence[str] | None = None,
    after_sweep: Callable[[list[TaskResult]], str] | None = None,
) -> None:
    """Run `task` as a command; end the process with exit code 1 and one paragraph when the user's input is at fault.

    In a sweep (`--multirun`) the jobs after a failed one still run; the errors are repeated at the end.

    Args:
        task: a function of an experiment; its docstring opens the `--help` text.
        arguments: command line; null: the process's own.
        after_sweep: turns the results of a sweep into a text that is printed at its end.
    """
    traceback_wanted = os.environ.get(TRACEBACK_VARIABLE) == "1"
    os.environ[TRACEBACK_VARIABLE] = "1"  # Hydra raises its errors to us instead of printing them itself
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    choice: ConfigChoice | None = None
    errors: list[SpladeError] = []
    results: list[TaskResult] = []

    def job(cfg: DictConfig) -> None:
        try:
            results.append(task(to_experiment(cfg)))
            report(results[-1].summary())
        except SpladeError as error:
            errors.append(error)

    try:
        choice = choose_config(arguments=arguments)
        register(choice, task.__doc__ or "")
        sys.argv = [sys.argv[0], *replacing_sections(without_config_options(arguments))]
        logging.captureWarnings(True)
        hydra_main(version_base="1.3", config_path=str(choice.folder), config_name=ROOT)(job)()
        if after_sweep is not None and len(results) > 1:
            report(after_sweep(results))
    except SpladeError as error:
        errors.append(error)
    except (HydraException, OmegaConfBaseException) as error:
        errors.append(explain_composition_error(error, choice))
    except KeyboardInterrupt:
        report_error("interrupted; the same command goes on where it was, or starts clean")
        sys.exit(130)
    for failure in errors:
        report_error(str(failure))
    if errors and traceback_wanted:
        raise errors[0]
    if errors:
        sys.exit(1)


def main_process(environ: Any = os.environ) -> bool:
    """Return whether this is the only process, or the first of those that `torchrun` started."""
    return environ.get("RANK", "0") == "0"
