"""Task: one table of all BEIR results in a folder."""

from pathlib import Path

from splade.config import Experiment, require
from splade.reports.beir_report import write_beir_table
from splade.reports.tables import WrittenTable


def beir_table(experiment: Experiment) -> WrittenTable:
    """Collect what splade.beir_eval and splade.bm25 left in config.out_dir into one table.

    Published values, reported by others, stand beside those measured here; beir.reference chooses whose.
    """
    require(experiment, "config.out_dir")
    return write_beir_table(Path(str(experiment.config.out_dir)), experiment.beir.reference)
