"""Who does the parts of a job: this process and those that work with it, or a Ray cluster."""

from abc import ABC, abstractmethod

from splade.cluster.part_jobs import PartJob
from splade.distributed import all_or_none, n_processes, process_rank
from splade.progress import progress_bar


class Runner(ABC):
    """Does parts of jobs."""

    @abstractmethod
    def run(self, job: PartJob, n_parts: int) -> None:
        """Do the parts of a job that are not there; when this returns, all are."""


class ProcessRunner(Runner):
    """This process, and those that `config.n_processes` or torchrun has started beside it."""

    def run(self, job: PartJob, n_parts: int) -> None:
        """Do this process's share of the parts that are not there, and wait for the others."""
        all_or_none(lambda: self._run(job, n_parts))

    def _run(self, job: PartJob, n_parts: int) -> None:
        mine = [number for number in range(process_rank(), n_parts, n_processes()) if not job.is_done(number)]
        with progress_bar(job.title, total=sum(map(job.n_docs, mine)), unit="doc") as bar:
            for number in mine:
                job.do(number, bar.update)
