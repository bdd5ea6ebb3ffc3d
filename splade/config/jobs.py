"""What is kept of every job of a sweep: a file that says what it was, how it ended, and its figures.

The jobs of a sweep may run in other processes, on other machines (Hydra's launchers). What each has done is therefore
written down in the folder of the sweep, where the process that was started finds it at the end.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os.path import relpath
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from splade.config.schema import Experiment
from splade.config.sweep import job_name
from splade.errors import DataError
from splade.storage.atomic import read_json_object, write_json

JOBS_FOLDER = "sweep_jobs"
# The folder that takes what a sweep leaves behind, where it is not `config.out_dir`.
_MAIN_FOLDER = {"train": "checkpoint_dir", "index": "index_dir"}


@dataclass(frozen=True)
class Figures:
    """What a job has found, on one data set where there are any.

    Attributes:
        dataset: name of the data set, or empty.
        metrics: name to value.
        costs: name to value, as `splade.evaluation.costs` has them.
    """

    dataset: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class JobRecord:
    """A job of a sweep.

    Attributes:
        task: name of the task's module.
        sweep: which sweep it was part of.
        number: of the job in its sweep, from 0.
        ended: seconds since the epoch.
        swept: swept key to its value in this job.
        folder: the job's own folder, from that of the sweep.
        reference: `beir.reference` of the job.
        error: why it failed, or None.
        figures: what it has found, if it has not failed.
    """

    task: str
    sweep: str
    number: int
    ended: float
    swept: dict[str, str]
    folder: str
    reference: str | None
    error: str | None
    figures: tuple[Figures, ...]


@dataclass
class Sweep:
    """The running sweep, as the process that was started knows it and as it is handed to the processes of the jobs.

    Attributes:
        task: name of the task's module.
        folder: where the records and the table go; None: there is no sweep.
        name: tells it from other sweeps.
    """

    task: str
    folder: Path | None = None
    name: str = field(default_factory=lambda: uuid4().hex)

    def note(
        self, experiment: Experiment, swept: dict[str, str], error: str | None, figures: Sequence[Figures]
    ) -> None:
        """Write down how the job that runs in this process has ended."""
        assert self.folder is not None
        main = main_folder(self.task, experiment.config)
        record = JobRecord(
            task=self.task,
            sweep=self.name,
            number=int(HydraConfig.get().job.num),
            ended=time.time(),
            swept=swept,
            folder=relpath(main, self.folder),
            reference=experiment.beir.reference,
            error=error,
            figures=tuple(figures),
        )
        write_json(self.folder / JOBS_FOLDER / self.task / f"{job_name(swept) or 'job'}.json", asdict(record))

    def records(self) -> list[JobRecord]:
        """Return the records of this sweep's jobs."""
        return [record for record in read_records(self.folder, self.task) if record.sweep == self.name]


class FindsSweepFolder(Callback):
    """Tells the running sweep its folder; Hydra calls it in the process that was started."""

    sweep: ClassVar[Sweep | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Take the folder from the composed configuration; values that are swept are not in it."""
        if self.sweep is not None:
            self.sweep.folder = Path(main_folder(self.sweep.task, config.config))


def main_folder(task: str, run: object) -> str:
    """Return the folder among those of `config` that a task's results go to, as far as one is given."""
    values = [
        OmegaConf.select(run, key) if isinstance(run, DictConfig) else getattr(run, key)
        for key in (_MAIN_FOLDER.get(task, "out_dir"), "out_dir")
    ]
    return next((str(value) for value in values if value), ".")


def read_records(folder: Path | None, task: str) -> list[JobRecord]:
    """Return the records of a task's jobs, also those of earlier sweeps with the same folder, in the order of time.

    Left out are jobs whose folder is gone, and files that are no records.
    """
    records = []
    for path in sorted((folder / JOBS_FOLDER / task).glob("*.json")) if folder is not None else ():
        try:
            content = read_json_object(path)
            record = JobRecord(**content | {"figures": tuple(Figures(**one) for one in content["figures"])})
        except (DataError, TypeError, KeyError):
            continue
        if folder is not None and (record.error is not None or (folder / record.folder).is_dir()):
            records.append(record)
    started = {record.sweep: min(one.ended for one in records if one.sweep == record.sweep) for record in records}
    return sorted(records, key=lambda record: (started[record.sweep], record.number))
