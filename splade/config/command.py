"""From the command line to a task: compose the config, run the task, report its result or its error."""

import ast
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from hydra import compose, initialize_config_dir
from hydra import main as hydra_main
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from splade.config.arguments import given_keys, hydra_arguments
from splade.config.choose import OWN_DATA_CONFIG, ROOT, ConfigChoice, choose_config, register, without_config_options
from splade.config.inputs import check_inputs
from splade.config.jobs import Figures, FindsSweepFolder, Sweep
from splade.config.messages import explain_composition_error, explain_machine_error
from splade.config.processes import Outline, check_launcher, run_in_processes
from splade.config.schema import Experiment
from splade.config.sweep import in_job_folders, in_sweep, job_title, swept_values
from splade.config.validate import to_experiment
from splade.distributed import on_first_process, process_rank, working_together
from splade.errors import SpladeError, printable

logger = logging.getLogger(__name__)

TRACEBACK_VARIABLE = "HYDRA_FULL_ERROR"


class Result(Protocol):
    """What a task returns: anything that can be shown to the user."""

    def summary(self) -> str:
        """Return the text that the command prints when the task has ended."""

    def figures(self) -> Sequence[Figures]:
        """Return what the table that ends a sweep shows of a job."""


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
    key take a second. In a sweep (`--multirun`) each job has folders of its own, the jobs after a failed one still run,
    and a table of all of them ends it, followed by the errors.

    Args:
        task_module: a module of `splade.tasks`; it defines a function of an experiment that has the module's name.
        description: opens the `--help` text.
        arguments: command line; None: the process's own.
    """
    given_before = os.environ.get(TRACEBACK_VARIABLE)
    traceback_wanted = given_before == "1"
    os.environ[TRACEBACK_VARIABLE] = "1"  # Hydra raises its errors to us instead of printing them itself
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command = task_module.rpartition(".")[2]
    choice: ConfigChoice | None = None
    jobs = TaskJobs(task_module)
    FindsSweepFolder.sweep = jobs.sweep
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal knows every character
    try:
        overrides = hydra_arguments(arguments, command)
        jobs.given = given_keys(overrides)
        choice = choose_config(arguments=overrides, command=command)
        jobs.on_own_data = choice.name == OWN_DATA_CONFIG
        register(choice, description or _docstring(sys.argv[0]), command)
        sys.argv = jobs.command_line = [sys.argv[0], *without_config_options(overrides)]
        logging.captureWarnings(True)
        try:
            hydra_main(version_base="1.3", config_path=str(choice.folder), config_name=ROOT)(jobs)()
        finally:
            jobs.end_sweep()
    except KeyboardInterrupt:
        report_error("interrupted; the same command goes on where it was, or starts clean")
        sys.exit(130)
    except Exception as error:
        if error in jobs.defects:
            raise
        jobs.errors.append(explain_composition_error(error, choice.path if choice is not None else None))
    finally:
        del os.environ[TRACEBACK_VARIABLE]
        if given_before is not None:
            os.environ[TRACEBACK_VARIABLE] = given_before
        _end_output()
    for failure in jobs.errors:
        report_error(str(failure))
    if jobs.defects:
        raise jobs.defects[0]
    if jobs.errors and traceback_wanted:
        raise jobs.errors[0]
    if jobs.errors:
        sys.exit(1)


class TaskJobs:
    """What Hydra calls with the composed configuration: once, or in a sweep once per job.

    A launcher may send copies of it to other processes. What the jobs find there comes back as records in the folder of
    the sweep (`splade.config.jobs`).

    Attributes:
        command_line: as in `sys.argv`.
        given: keys that are given on it.
        on_own_data: whether no configuration is named, and the data is not that of the toy pipeline.
        errors: of the jobs in this process, and of the sweep.
        defects: of the toolkit, not of what was given.
    """

    def __init__(self, task_module: str):
        self.task_module = task_module
        self.sweep = Sweep(task_module.rpartition(".")[2])
        self.command_line: list[str] = []
        self.given: frozenset[str] = frozenset()
        self.on_own_data = False
        self.errors: list[SpladeError] = []
        self.defects: list[Exception] = []

    def __call__(self, cfg: DictConfig) -> float | None:
        """Run the task; return its first figure, which a sweeper may want to improve."""
        sys.argv = self.command_line  # the processes of a launcher have their own
        if not in_sweep():
            with self._noting_failure():
                self._run(to_experiment(cfg, self.given))
            return None
        swept, title = swept_values(), job_title(swept_values())
        report(f"\n== job {int(HydraConfig.get().job.num) + 1}: {title or self.sweep.task} ==")
        experiment, n_errors = Experiment(), len(self.errors)
        figures: tuple[Figures, ...] = ()
        with self._noting_failure(f"job {title}: " if title else ""):
            experiment = in_job_folders(to_experiment(cfg, self.given), swept, self.sweep.task)
            figures = tuple(self._run(experiment).figures())
        if process_rank() == 0:
            error = str(self.errors[-1]) if len(self.errors) > n_errors else None
            report("" if error is None else f"failed: {error.removeprefix(f'job {title}: ')}")
            self.sweep.note(experiment, swept, error, figures)
        return next((value for one in figures for value in one.metrics.values()), None)

    def end_sweep(self) -> None:
        """Report the table of all jobs; take over the errors of those in other processes."""
        records = self.sweep.records()
        known = set(map(str, self.errors))
        self.errors += [SpladeError(one.error) for one in records if one.error is not None and one.error not in known]
        if len(records) > 1 and process_rank() == 0:
            with self._noting_failure():
                report(f"\n{sweep_summary(self.task_module, self.sweep)}")

    def _run(self, experiment: Experiment) -> Result:
        if self.on_own_data and self.sweep.task in ("train", "run_all"):
            logger.info("no configuration is named: the settings are those for one's own data, conf/own_data.yaml")
        check_launcher(experiment.launcher, self.sweep.task)
        check_inputs(experiment, self.sweep.task)
        importlib.import_module("splade.tasks.first_look").first_look(experiment, self.sweep.task)
        result = run_shared(self.task_module, experiment)
        report(result.summary())
        return result

    @contextmanager
    def _noting_failure(self, prefix: str = "") -> Iterator[None]:
        """Keep what goes wrong in the block; outside a sweep, a defect ends the process."""
        try:
            yield
        except Exception as error:
            failure = error if isinstance(error, SpladeError) else explain_machine_error(error)
            if failure is None:
                self.defects.append(error)
                if not in_sweep():
                    raise
                failure = SpladeError(f"a defect of this toolkit: {type(error).__name__}: {error}")
            self.errors.append(type(failure)(f"{prefix}{failure}") if prefix else failure)


def sweep_summary(task_module: str, sweep: Sweep) -> str:
    """Return the table that ends a sweep: that of the task's module, where it defines one, or that of all others."""
    module = importlib.import_module(task_module)
    general = importlib.import_module("splade.reports.sweep_report")
    summary: str = getattr(module, "after_sweep", general.after_sweep)(sweep)
    return summary


def task_function(task_module: str) -> Callable[[Experiment], Result]:
    """Import a module of `splade.tasks` and return its task."""
    return getattr(importlib.import_module(task_module), task_module.rpartition(".")[2])


def run_shared(task_module: str, experiment: Experiment) -> Result:
    """Run a task in this process or, where its module's `processes_wanted` asks for several, in new ones.

    Of processes that `torchrun` has started, the first one alone runs a task without `processes_wanted`.
    """
    task, module = task_function(task_module), importlib.import_module(task_module)
    wanted: Callable[[Experiment], int] | None = getattr(module, "processes_wanted", None)
    if wanted is not None and (size := wanted(experiment)) > 1:
        return run_in_processes(task_module, experiment, size)
    with working_together():
        if wanted is not None:
            return task(experiment)
        results: list[Result] = []
        on_first_process(lambda: results.append(task(experiment)))
        return results[0] if results else Outline()


def report(text: str, is_printable: bool = False) -> None:
    """Print a result for the user; of several processes only the first does.

    Args:
        text: what is shown; characters that would command a terminal are spelled out.
        is_printable: they are spelled out already; what is left of them is meant.
    """
    if text and process_rank() == 0:
        with suppress(BrokenPipeError):  # `_end_output` deals with it
            print(text if is_printable else printable(text), flush=True)


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
