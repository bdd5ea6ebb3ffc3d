"""Runs: what a system retrieved, as JSON or in TREC's six columns."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path

from splade.datasets.nested_json import LARGEST_SCORE, Pairs, iterate_nested
from splade.errors import DataError, shown
from splade.storage.atomic import replacing
from splade.storage.paths import resolve_path
from splade.storage.text_files import begins_json_object, check_id, head, iterate_lines

Run = dict[str, dict[str, float]]
AnyRun = Mapping[str, Mapping[str, float]] | Iterable[tuple[str, Mapping[str, float]]]
"""A run, or its (query id, {doc id: score}) items one after the other."""


def read_run(path: str | Path) -> Run:
    """Read a run in either format (told by the content), perhaps gzip-compressed.

    Returns:
        {query_id: {doc_id: score}}; the documents of a query in rank order: higher score first, equal scores in the
        order of the file.

    Raises:
        DataError: a line is wrong, a document occurs twice for a query, or the run is empty.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "run.trec"
        >>> write_run_trec(path, {"q1": {"d2": 0.5, "d1": 3.25}}, tag="splade")
        >>> print(path.read_text().strip())
        q1 Q0 d1 1 3.25 splade
        q1 Q0 d2 2 0.5 splade
        >>> read_run(path)
        {'q1': {'d1': 3.25, 'd2': 0.5}}
    """
    run: Run = {}
    file = resolve_path(path)
    for query_id, pairs in iterate_run(file):
        run[query_id] = {doc_id: float(score) for doc_id, score in in_rank_order(pairs)}
    if not run:
        raise DataError(f"{file}: the run is empty")
    return run


def write_run_json(path: str | Path, run: AnyRun) -> None:
    """Write `{query_id: {doc_id: score}}` in rank order, whole or not at all."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write("{")
        for count, (query_id, scores) in enumerate(_items(run)):
            ranked = {doc_id: float(score) for doc_id, score in in_rank_order(_finite(query_id, scores))}
            entry = f"{json.dumps(query_id, ensure_ascii=False)}: {json.dumps(ranked, ensure_ascii=False)}"
            stream.write(f"{',' if count else ''}\n{entry}")
        stream.write("\n}\n")


def write_run_trec(path: str | Path, run: AnyRun, tag: str) -> None:
    """Write `query_id Q0 doc_id rank score tag` in rank order (ranks from 1), whole or not at all.

    Scores have as many digits as give the same number back.

    Raises:
        DataError: an id or the tag holds a blank or is empty: the six columns could not be told apart.
    """
    _check_column(tag, "tag")
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        for query_id, scores in _items(run):
            _check_column(query_id, "query id")
            for rank, (doc_id, score) in enumerate(in_rank_order(_finite(query_id, scores)), start=1):
                _check_column(doc_id, "document id")
                stream.write(f"{query_id} Q0 {doc_id} {rank} {float(score)!r} {tag}\n")


def in_rank_order(pairs: Pairs) -> Pairs:
    """Sort by score, higher first; equal scores keep their order."""
    return sorted(pairs, key=itemgetter(1), reverse=True)


def iterate_run(file: Path) -> Iterator[tuple[str, Pairs]]:
    """Yield (query id, its (doc id, score) pairs) in the order of the file, one query in memory at a time.

    Raises:
        DataError: a line is wrong; the lines of a query do not stand together.
    """
    return iterate_nested(file) if begins_json_object(head(file)) else _iterate_trec(file)


def _iterate_trec(file: Path) -> Iterator[tuple[str, Pairs]]:
    current: str | None = None
    scores: dict[str, float] = {}
    finished: set[str] = set()
    for line_number, line in iterate_lines(file):
        query_id, doc_id, score = _parse_trec(file, line_number, line)
        if query_id != current:
            if current is not None:
                yield current, list(scores.items())
                finished.add(current)
            if query_id in finished:
                raise DataError(
                    f"{file}: line {line_number}: query '{query_id}' was already finished; sort the file by query"
                )
            current, scores = query_id, {}
        if doc_id in scores:
            raise DataError(f"{file}: line {line_number}: document '{doc_id}' occurs twice for query '{query_id}'")
        scores[doc_id] = score
    if current is not None:
        yield current, list(scores.items())


def _parse_trec(file: Path, line_number: int, line: str) -> tuple[str, str, float]:
    columns = line.split()
    if len(columns) != 6:
        hint = " (four columns are qrels, not a run)" if len(columns) == 4 else ""
        raise DataError(
            f"{file}: line {line_number}: {len(columns)} columns{hint}; expected six: "
            "'query_id Q0 doc_id rank score tag' (or JSON {query_id: {doc_id: score}})"
        )
    for some_id in (columns[0], columns[2]):
        if not some_id.isprintable():
            check_id(some_id, f"{file}: line {line_number}")
    return columns[0], columns[2], score_of(columns[4], f"{file}: line {line_number}")


def score_of(text: str, place: str) -> float:
    """Return the score that stands in a column of a file.

    Raises:
        DataError: it is not a number, or not one of float32.
    """
    try:
        score = float(text) if "_" not in text else math.nan
    except ValueError:
        score = math.nan
    if not -LARGEST_SCORE <= score <= LARGEST_SCORE:
        raise DataError(f"{place}: the score must be a finite number, got {shown(text)} (at most {LARGEST_SCORE:.3g})")
    return score


def _items(run: AnyRun) -> Iterable[tuple[str, Mapping[str, float]]]:
    return run.items() if isinstance(run, Mapping) else run


def _finite(query_id: str, scores: Mapping[str, float]) -> Pairs:
    for doc_id, score in scores.items():
        if not -LARGEST_SCORE <= score <= LARGEST_SCORE:
            raise DataError(f"query '{query_id}', document '{doc_id}': the score is {score}, not a finite float32")
    return list(scores.items())


def _check_column(value: str, what: str) -> None:
    if len(value.split()) != 1 or value != value.strip():
        raise DataError(f"the {what} {value!r} cannot stand in a TREC run: it is empty or holds a blank")
