"""What a training example is, and what every training set offers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from splade.errors import DataError


@dataclass(frozen=True)
class TrainingExample:
    """The texts of a query, of a relevant document and of one or more others; scores are a teacher's, None without."""

    query: str
    positive: str
    negatives: list[str]
    positive_score: float | None = None
    negative_scores: list[float] | None = None


@dataclass
class TrainingSetReport:
    """What a training set holds and what had to be left out; grows while the set is opened.

    Attributes:
        n_examples: number of examples of one epoch.
        left_out: reason to number of cases.
        first_left_out: reason to the id of the first case.
        remarks: what is used, but not as one may expect, to number of cases.
        first_remark: the same to the id of the first case.
    """

    n_examples: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    first_left_out: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    first_remark: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.n_examples} training examples"]
        for reason, count in self.left_out.items():
            lines.append(f"left out: {count} {reason} (the first: '{self.first_left_out[reason]}')")
        for remark, count in self.remarks.items():
            lines.append(f"{count} {remark} (the first: '{self.first_remark[remark]}')")
        return "\n".join(lines)

    def leave_out(self, reason: str, case: str) -> None:
        """Count a case."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
        self.first_left_out.setdefault(reason, case)

    def remark(self, remark: str, case: str) -> None:
        """Count a case that is used nevertheless."""
        self.remarks[remark] = self.remarks.get(remark, 0) + 1
        self.first_remark.setdefault(remark, case)

    def refuse(self, reason: str, name: str) -> None:
        """Raise a `DataError` if there was a case of this reason."""
        if reason in self.left_out:
            raise DataError(
                f"{name}: {self.left_out[reason]} {reason}, the first is '{self.first_left_out[reason]}'; the files do "
                "not belong together or are incomplete. To train without these, ask for incomplete: leave_out"
            )


class TrainingSet(ABC):
    """Training examples by number.

    What is drawn at random is a pure function of the seed, the example's number and the number of the draw, so it does
    not depend on the number of workers or processes and repeats exactly when training is resumed.

    Attributes:
        report: known as soon as the set is open.
    """

    report: TrainingSetReport

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    @abstractmethod
    def example(self, index: int, draw: int = 0) -> TrainingExample:
        """Return example `index`; `draw` tells its repetitions (epochs) apart."""
