"""From the command line to a task: compose the config, run the task, report its result or its error."""

import ast
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from hydra import compose, initialize_config_dir
from hydra import main as hydra_main
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from splade.config.arguments import given_keys, hydra_arguments
from splade.config.choose import ROOT, ConfigChoice, choose_config, register, without_config_options
from splade.config.inputs import check_inputs
from splade.config.messages import explain_composition_error, explain_machine_error
from splade.config.schema import Experiment
from splade.config.validate import to_experiment
from splade.distributed import process_rank
from splade.errors import SpladeError, printable

TRACEBACK_VARIABLE = "HYDRA_FULL_ERROR"


class Result(Protocol):
    """What a task returns: anything that can be shown to the user."""

    def summary(self) -> str:
        """Return the text that the command prints when the task has ended."""


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
            return to_experiment(compose(ROOT, hydra_arguments(overrides)), given_keys(overrides))
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        raise explain_composition_error(error, choice.path) from error


def run_task(task_module: str, description: str | None = None, arguments: Sequence[str] | None = None) -> None:
    """Run a task as a command; end the process with exit code 1 and one paragraph when the user's input is at fault.

    The task's module is imported when the configuration has been composed and checked, so that `--help` and a misspelt
    key take a second. In a sweep (`--multirun`) the jobs after a failed one still run; the errors are repeated at the
    end, after what the module's `after_sweep` makes of the results.

    Args:
        task_module: a module of `splade.tasks`; it defines a function of an experiment that has the module's name.
        description: opens the `--help` text.
        arguments: command line; None: the process's own.
    """
    traceback_wanted = os.environ.get(TRACEBACK_VARIABLE) == "1"
    os.environ[TRACEBACK_VARIABLE] = "1"  # Hydra raises its errors to us instead of printing them itself
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command = task_module.rpartition(".")[2]
    given: frozenset[str] = frozenset()
    choice: ConfigChoice | None = None
    errors: list[SpladeError] = []
    defects: list[Exception] = []
    results: list[Result] = []

    def attempt(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            failure = error if isinstance(error, SpladeError) else explain_machine_error(error)
            if failure is None:
                defects.append(error)
                raise
            errors.append(failure)

    def run(cfg: DictConfig) -> None:
        experiment = to_experiment(cfg, given)
        check_inputs(experiment, command)
        results.append(task_function(task_module)(experiment))
        report(results[-1].summary())

    def job(cfg: DictConfig) -> None:
        attempt(partial(run, cfg))

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal knows every character
    try:
        overrides = hydra_arguments(arguments, command)
        given = given_keys(overrides)
        choice = choose_config(arguments=overrides, command=command)
        register(choice, description or _docstring(sys.argv[0]))
        sys.argv = [sys.argv[0], *without_config_options(overrides)]
        logging.captureWarnings(True)
        hydra_main(version_base="1.3", config_path=str(choice.folder), config_name=ROOT)(job)()
        if len(results) > 1 and hasattr(importlib.import_module(task_module), "after_sweep"):
            attempt(lambda: report(importlib.import_module(task_module).after_sweep(results)))
    except KeyboardInterrupt:
        report_error("interrupted; the same command goes on where it was, or starts clean")
        sys.exit(130)
    except Exception as error:
        if defects:
            raise
        errors.append(explain_composition_error(error, choice.path if choice is not None else None))
    finally:
        _end_output()
    for failure in errors:
        report_error(str(failure))
    if errors and traceback_wanted:
        raise errors[0]
    if errors:
        sys.exit(1)


def task_function(task_module: str) -> Callable[[Experiment], Result]:
    """Import a module of `splade.tasks` and return its task."""
    return getattr(importlib.import_module(task_module), task_module.rpartition(".")[2])


def report(text: str) -> None:
    """Print a result for the user; of several processes only the first does."""
    if text and process_rank() == 0:
        with suppress(BrokenPipeError):  # `_end_output` deals with it
            print(printable(text), flush=True)


def _end_output() -> None:
    """Write what is still to be printed; a reader that has closed the other end, such as `head`, wants no more."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            report_error(str(explain_machine_error(error)))
            sys.exit(1)


def _docstring(file: str) -> str:
    """Return the docstring of a command from its source, where Python has dropped docstrings (`-OO`)."""
    try:
        return ast.get_docstring(ast.parse(Path(file).read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, ValueError):
        return ""


def report_error(text: str) -> None:
    """Print an error on standard error."""
    print(f"error: {printable(text)}", file=sys.stderr, flush=True)
