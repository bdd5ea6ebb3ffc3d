"""Which training example comes when: a function of the seed and the position in training, and of nothing else."""

from typing import Protocol, TypeVar

import numpy as np
from torch.utils.data import Dataset

Example = TypeVar("Example", covariant=True)


class Examples(Protocol[Example]):
    """Examples by number, such as a `TrainingSet`."""

    def example(self, index: int, draw: int = 0) -> Example:
        """Return example `index`; `draw` tells its repetitions (epochs) apart."""


class TrainingSampler(Dataset[Example]):
    """All examples of a training run in the order in which they are used.

    Position p is in pass `p // n` over a training set of n examples; each pass is a permutation of its own. An
    interrupted run that resumes at position p, or several processes that share the positions among them, see what one
    undisturbed process would have seen. Only `rows`, (n,) integers, are used of the training set (others are held out
    for validation), in `length` positions in all.
    """

    def __init__(self, examples: Examples[Example], rows: np.ndarray, seed: int, length: int):
        self.examples = examples
        self.rows = rows
        self.seed = seed
        self.length = length
        self._pass, self._order = -1, rows

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> Example:
        if not 0 <= position < self.length:
            raise IndexError(f"position {position} of {self.length}")
        number, place = divmod(position, len(self.rows))
        if number != self._pass:
            self._pass = number
            self._order = np.random.default_rng([self.seed, number]).permutation(self.rows)
        return self.examples.example(int(self._order[place]), draw=number)


class HeldOut(Dataset[Example]):
    """The examples that are kept for the validation loss, always drawn the same way."""

    def __init__(self, examples: Examples[Example], rows: np.ndarray):
        self.examples = examples
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Example:
        return self.examples.example(int(self.rows[place]), draw=0)


def split_rows(n_examples: int, n_held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and those held out for the validation loss, drawn with `seed`."""
    rows = np.arange(n_examples, dtype=np.int32 if n_examples < 2**31 else np.int64)  # 40 M triplets are common
    order = np.random.default_rng([seed, 2**31]).permutation(rows)
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])
