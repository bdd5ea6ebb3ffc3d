"""Task: what an index holds, and whether it is undamaged."""

from splade.config import Experiment, require
from splade.inverted_index import open_index
from splade.reports.summaries import TaskResult


def index_info(experiment: Experiment) -> TaskResult:
    """Print what the index in config.index_dir (or index_dir=FOLDER) holds, and verify its checksum."""
    folder = experiment.index_dir or experiment.config.index_dir
    if folder is None:
        require(experiment, "config.index_dir")
    postings = open_index(str(folder))
    postings.verify()
    lines = [f"{name}: {value}" for name, value in postings.describe().items()]
    return TaskResult(text="\n".join([*lines, "the checksum is right"]))
