"""Task: what an index holds, and whether it is undamaged."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splade.config import Experiment, require


@dataclass(frozen=True)
class IndexInfoResult:
    """The description of an index whose checksums are right."""

    description: dict[str, Any]

    def summary(self) -> str:
        """Return one line per property."""
        lines = [f"{name}: {value}" for name, value in self.description.items()]
        return "\n".join([*lines, "all checksums are right"])


def index_info(experiment: Experiment) -> IndexInfoResult:
    """Print what the index in config.index_dir (or index_dir=FOLDER) holds, and verify its checksums."""
    folder = experiment.index_dir or experiment.config.index_dir
    if folder is None:
        require(experiment, "config.index_dir")
    from splade.inverted_index import InvertedIndex

    index = InvertedIndex.open(Path(str(folder)))
    index.verify()
    return IndexInfoResult(index.describe())
