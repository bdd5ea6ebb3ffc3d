"""How a configuration key is declared: what depends on it, its bounds, its meaning."""

import math
from dataclasses import dataclass, field
from enum import Flag, auto
from functools import partial
from typing import Any

LARGEST_INT = 2**31 - 1


class Affects(Flag):
    """What depends on a key, of all that is kept and used again; a key may affect several.

    What is kept stays valid as long as no key that affects it has changed. So a key for searching, added later, leaves
    finished training runs and indexes alone.

    Attributes:
        NOTHING: where files go, what is shown, how often is logged, how memory is used.
        TRAIN: the weights of the model that training keeps.
        MODEL: what a model's vectors are besides its weights; saved with a checkpoint, and must be the same later.
        INDEX: the vectors of the documents, and with them the index.
        SEARCH: the results of searching an index: runs, metrics and costs, among them measured times.
        BM25: the results of BM25.
        DENSE: the vectors and results of a dense model.
        FUSION: how rankings are fused.
        RERANKING: the scores of a reranker.
    """

    NOTHING = 0
    TRAIN = auto()
    MODEL = auto()
    INDEX = auto()
    SEARCH = auto()
    BM25 = auto()
    DENSE = auto()
    FUSION = auto()
    RERANKING = auto()


NOTHING, TRAIN, INDEX, SEARCH, BM25 = Affects.NOTHING, Affects.TRAIN, Affects.INDEX, Affects.SEARCH, Affects.BM25
DENSE, FUSION, RERANKING = Affects.DENSE, Affects.FUSION, Affects.RERANKING
MODEL = TRAIN | Affects.MODEL  # a model is trained as what it is
VECTORS = INDEX | SEARCH


@dataclass(frozen=True)
class Bounds:
    """The finite numbers that a key allows, both ends.

    Attributes:
        minimum: smallest allowed number.
        maximum: largest allowed number.
        above: allowed numbers are larger.
        below: allowed numbers are smaller.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, number: float) -> bool:
        return (
            -math.inf < number < math.inf
            and (self.minimum is None or number >= self.minimum)
            and (self.maximum is None or number <= self.maximum)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        words = {"at least": self.minimum, "above": self.above, "at most": self.maximum, "below": self.below}
        return " and ".join(f"{word} {end}" for word, end in words.items() if end is not None)


def key(help_text: str, default: Any = None, *, affects: Affects, names_files: bool = False, **bounds: float) -> Any:
    """Declare a key.

    Args:
        help_text: its meaning, in one line.
        default: copied for each instance.
        affects: what depends on it; must be given, so that nobody forgets.
        names_files: see `files_key`.
        **bounds: of numbers, see `Bounds`.
    """
    metadata = {"help": help_text, "affects": affects, "names_files": names_files, "bounds": Bounds(**bounds)}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


# Keys that name files or a model. What counts is their content, which those who read them can identify.
files_key = partial(key, names_files=True)
