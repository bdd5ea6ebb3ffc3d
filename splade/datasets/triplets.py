"""Training triplets: query, positive and negative on one line, perhaps with a teacher's scores."""

from pathlib import Path

from splade.datasets.ir_datasets_source import DocPairs
from splade.datasets.runs import score_of
from splade.datasets.training_sets import TrainingExample, TrainingSet, TrainingSetReport
from splade.errors import DataError, shown
from splade.storage.line_index import LineIndex, LineSource
from splade.storage.paths import IR_DATASETS_SCHEME
from splade.storage.text_files import find_text_file

_HEADINGS = frozenset("query anchor question positive pos positive_passage negative neg negative_passage".split())


class Triplets(TrainingSet):
    r"""Lines `query<TAB>positive<TAB>negative`.

    Every line is checked when the offset index is built, that is at the first opening.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "raw.tsv"
        >>> _ = path.write_text("what is it\tthis\tthat\n")
        >>> Triplets(path).example(0).negatives
        ['that']
    """

    def __init__(self, path: str | Path):
        """Open a file, or a folder with `raw.tsv`.

        Raises:
            DataError: there is none, it is empty, or a line has other columns.
        """
        self._lines = self._open(find_text_file(path))
        if len(self) == 0:
            raise DataError(f"{self._lines.source.path}: there are no triplets in it")
        self.report = TrainingSetReport(len(self))

    def _open(self, file: Path) -> LineIndex:
        return LineIndex.open(LineSource.of_file(file), "triplets", check_triplet)

    def __len__(self) -> int:
        return len(self._lines)

    def example(self, index: int, draw: int = 0) -> TrainingExample:
        """Return the triplet of a line; `draw` changes nothing."""
        query, positive, negative = self._lines[index].split("\t")
        return TrainingExample(query, positive, [negative])


class ScoredTriplets(Triplets):
    """Lines `query<TAB>positive<TAB>negative<TAB>score of the positive<TAB>score of the negative`."""

    def _open(self, file: Path) -> LineIndex:
        return LineIndex.open(LineSource.of_file(file), "scored triplets", check_scored_triplet)

    def example(self, index: int, draw: int = 0) -> TrainingExample:
        """Return the triplet of a line; `draw` changes nothing."""
        query, positive, negative, positive_score, negative_score = self._lines[index].split("\t")
        return TrainingExample(query, positive, [negative], float(positive_score), [float(negative_score)])


def open_triplets(path: str | Path) -> TrainingSet:
    """Open a triplet file, or the document pairs of `ir_datasets:<id>`."""
    if str(path).startswith(IR_DATASETS_SCHEME):
        return DocPairs(str(path))
    return Triplets(path)


def check_triplet(line: str, file: Path, line_number: int) -> None:
    """Raise a DataError unless a line has the columns of a triplet."""
    n_columns = line.count("\t") + 1
    if n_columns != 3:
        hint = "; for five, with scores, the type is triplets_with_distil" if n_columns == 5 else ""
        raise DataError(
            f"{file}: line {line_number}: {n_columns} columns; expected three: query<TAB>positive<TAB>negative{hint}"
        )
    if line_number == 1 and {heading.strip(' "#') for heading in line.lower().split("\t")} <= _HEADINGS:
        raise DataError(f"{file}: line 1 is a heading, {shown(line)}; remove it, or it would be trained on")


def check_scored_triplet(line: str, file: Path, line_number: int) -> None:
    """Raise a DataError unless a line has the columns of a triplet with scores."""
    columns = line.split("\t")
    if len(columns) != 5:
        raise DataError(
            f"{file}: line {line_number}: {len(columns)} columns; expected five: "
            "query<TAB>positive<TAB>negative<TAB>score_pos<TAB>score_neg"
        )
    for score in columns[3:]:
        score_of(score, f"{file}: line {line_number}")
