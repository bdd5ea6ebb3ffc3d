"""What a training example is, and what every training set offers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from splade.errors import DataError


@dataclass(frozen=True)
class TrainingExample:
    """One query with its texts.

    Attributes:
        query: text of the query.
        positive: text of a relevant document.
        negatives: texts of the others, at least one.
        positive_score: the teacher's score of the positive, None without a teacher.
        negative_scores: the teacher's scores of the negatives, None without a teacher.
    """

    query: str
    positive: str
    negatives: list[str]
    positive_score: float | None = None
    negative_scores: list[float] | None = None


@dataclass(frozen=True)
class TrainingSetReport:
    """What a training set holds and what had to be left out.

    Attributes:
        n_examples: number of examples of one epoch.
        left_out: reason to number of cases.
        first_left_out: reason to the id of the first case.
    """

    n_examples: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    first_left_out: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.n_examples} training examples"]
        for reason, count in self.left_out.items():
            lines.append(f"left out: {count} {reason} (the first: '{self.first_left_out[reason]}')")
        return "\n".join(lines)


class LeftOut:
    """Keeps account of what is left out while a training set is opened."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.first: dict[str, str] = {}

    def add(self, reason: str, case: str) -> None:
        """Count a case; the first one is remembered."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, case)

    def refuse(self, reason: str, name: str) -> None:
        """Raise a `DataError` if there was a case of this reason."""
        if reason in self.counts:
            raise DataError(
                f"{name}: {self.counts[reason]} {reason}, the first is '{self.first[reason]}'; the files do not belong "
                "together or are incomplete. To train without these, ask for incomplete: leave_out"
            )


class TrainingSet(ABC):
    """Training examples by number: all that a `torch.utils.data.DataLoader` needs.

    What is drawn at random is a pure function of the seed, the example's number and the number of the draw, so it does
    not depend on the number of workers or processes and repeats exactly when training is resumed.

    Attributes:
        report: known as soon as the set is open.
        epoch: the draw that plain indexing returns; see `set_epoch`.
    """

    report: TrainingSetReport
    epoch: int = 0

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    @abstractmethod
    def example(self, index: int, draw: int) -> TrainingExample:
        """Return example `index`; `draw` tells its repetitions (epochs, steps) apart."""

    def __getitem__(self, item: int | tuple[int, int]) -> TrainingExample:
        """Return `example(index, epoch)`, or `example(index, draw)` for a pair that a sampler hands out."""
        index, draw = item if isinstance(item, tuple) else (item, self.epoch)
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return self.example(index, draw)

    def set_epoch(self, epoch: int) -> None:
        """Choose the draw of plain indexing; worker processes that run already do not see it, pairs reach them."""
        self.epoch = epoch
