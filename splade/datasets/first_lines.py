"""A look at the first lines of the files that users bring, which shows a wrong file or wrong columns at once.

What comes after them is checked where the files are read. Data sets of ir_datasets are left out: looking at one would
download it.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path

from splade.datasets.beir import CQADUPSTACK, check_beir_name, check_split
from splade.datasets.collections import open_collection, open_queries
from splade.datasets.qrels import checked_grade, iterate_judgements, qrels_files
from splade.datasets.runs import iterate_run
from splade.datasets.score_pickles import is_pickle
from splade.datasets.triplets import check_scored_triplet, check_triplet
from splade.storage.line_index import LineSource
from splade.storage.paths import IR_DATASETS_SCHEME, resolve_path
from splade.storage.text_files import find_text_file

LINES = 100


def look_at(kind: str, path: str) -> None:
    r"""Look at the first lines of a file or folder.

    Args:
        kind: `documents`, `queries`, `qrels`, `triplets`, `triplets_with_distil` or `hard_negatives`.
        path: as the openers of that kind take it.

    Raises:
        DataError: it is something else; the message says what is expected.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "triplets.tsv"
        >>> _ = path.write_text("a query\ta document\n")
        >>> look_at("triplets", str(path))
        Traceback (most recent call last):
        splade.errors.DataError: ...triplets.tsv: line 1: 2 columns; expected three: query<TAB>positive<TAB>negative
    """
    if not path.startswith(IR_DATASETS_SCHEME):
        _LOOKS[kind](path)


def look_at_beir(name: str, folder: str, split: str) -> None:
    """Look at a data set in BEIR's layout, or at its name where it would be downloaded.

    Raises:
        DataError: a file is missing or wrong, or the name is nearly that of another data set.
    """
    place = resolve_path(folder) if folder.startswith("pkg://") else Path(folder).expanduser()
    if (place / name).is_dir() and name != CQADUPSTACK:
        look_at_beir_folder(place / name, split)
    elif not (place / name.split("/")[0]).is_dir():
        check_beir_name(name.split("/")[0], place)


def look_at_beir_folder(folder: Path, split: str) -> None:
    """Look at a folder in BEIR's layout.

    Raises:
        DataError: a file is missing or wrong, or there are no judgements of the split.
    """
    check_split(folder, split)
    _look_at_documents(str(folder))
    _look_at_queries(str(folder))
    _look_at_qrels(str(folder), split)


def _look_at_documents(path: str) -> None:
    _read_some(open_collection(path))


def _look_at_queries(path: str) -> None:
    _read_some(open_queries(path))


def _look_at_qrels(path: str, split: str = "test") -> None:
    for _, _, relevance, place in islice(iterate_judgements(qrels_files(resolve_path(path), split)[0]), LINES):
        checked_grade(relevance, place)


def _look_at_triplets(path: str, check: Callable[[str, Path, int], None] = check_triplet) -> None:
    for file, line_number, line in islice(LineSource.of_file(find_text_file(path)), LINES):
        check(line, file, line_number)


def _look_at_scored_triplets(path: str) -> None:
    _look_at_triplets(path, check_scored_triplet)


def _look_at_scores(path: str) -> None:
    file = resolve_path(path)
    if file.is_file() and not is_pickle(file):
        _read_some(iterate_run(file))


def _read_some(lines: Iterable[object]) -> None:
    for _ in islice(lines, LINES):
        pass


_LOOKS: Mapping[str, Callable[[str], None]] = {
    "documents": _look_at_documents,
    "queries": _look_at_queries,
    "qrels": _look_at_qrels,
    "triplets": _look_at_triplets,
    "triplets_with_distil": _look_at_scored_triplets,
    "hard_negatives": _look_at_scores,
}
