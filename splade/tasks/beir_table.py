"""Task: one table of all BEIR results in a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splade.config import Experiment, require
from splade.reports.tables import SUFFIXES, Table
from splade.storage.atomic import write_text


@dataclass(frozen=True)
class TableResult:
    """A table and its files.

    Attributes:
        table: systems and data sets, with averages, costs, and published values where there are any.
        paths: the table as text, Markdown, CSV, JSON and LaTeX.
    """

    table: Table
    paths: tuple[Path, ...]

    def summary(self) -> str:
        """Return the table as text, and where its files are."""
        suffixes = ",".join(path.suffix[1:] for path in self.paths)
        return f"{self.table.to_text()}\n\n  in {self.paths[0].with_suffix('')}.{{{suffixes}}}"


def beir_table(experiment: Experiment) -> TableResult:
    """Collect what splade.beir_eval and splade.bm25 left in config.out_dir into one table.

    Published values, reported by others, stand beside those measured here; beir.reference chooses whose.
    """
    require(experiment, "config.out_dir")
    return write_beir_table(Path(str(experiment.config.out_dir)), experiment.beir.reference)


def write_beir_table(out_dir: Path, reference: str | None = None) -> TableResult:
    """Write `out_dir/beir_table.{txt,md,csv,json,tex}` from all results in `out_dir` and the folders directly below.

    Raises:
        ConfigError: no published results of the name `reference`.
        DataError: there is no result.
    """
    from splade.reports.beir_report import collect_sweep, find_systems, sweep_table

    table = sweep_table(collect_sweep(find_systems(out_dir)), reference)
    return TableResult(table, write_table(table, out_dir / "beir_table"))


def write_table(table: Table, stem: Path) -> tuple[Path, ...]:
    """Write a table in every form, to `stem` with the suffix of each."""
    paths = []
    for form, suffix in SUFFIXES.items():
        paths.append(stem.with_name(stem.name + suffix))
        write_text(paths[-1], table.render(form) + "\n")
    return tuple(paths)


def tables_of(out_dirs: Sequence[Path], reference: str | None) -> str:
    """Return the tables of several folders as text, each folder once."""
    return "\n\n".join(write_beir_table(out_dir, reference).summary() for out_dir in dict.fromkeys(out_dirs))
