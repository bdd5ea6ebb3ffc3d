"""Task: what an index holds, and whether it is undamaged."""

from collections.abc import Mapping
from dataclasses import dataclass

from splade.config import Experiment, require
from splade.inverted_index import InvertedIndex


@dataclass(frozen=True)
class IndexInfoResult:
    """The description of an index whose checksum is right."""

    description: Mapping[str, object]

    def summary(self) -> str:
        """Return one line per property."""
        lines = [f"{name}: {value}" for name, value in self.description.items()]
        return "\n".join([*lines, "the checksum is right"])


def index_info(experiment: Experiment) -> IndexInfoResult:
    """Print what the index in config.index_dir (or index_dir=FOLDER) holds, and verify its checksum."""
    folder = experiment.index_dir or experiment.config.index_dir
    if folder is None:
        require(experiment, "config.index_dir")
    postings = InvertedIndex.open(str(folder))
    postings.verify()
    return IndexInfoResult(postings.describe())
