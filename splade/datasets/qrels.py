"""Relevance judgements: JSON, TREC and BEIR files, and folders of them."""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from splade.datasets.file_shards import is_parquet, parquet_rows, shard_files
from splade.datasets.ir_datasets_source import ir_datasets_qrels
from splade.datasets.nested_json import iterate_nested
from splade.errors import DataError, shown
from splade.storage.paths import IR_DATASETS_SCHEME, folder_content, resolve_path
from splade.storage.text_files import begins_json_object, check_id, decode_json, head, id_text, iterate_lines

Qrels = dict[str, dict[str, int]]
Judgement = tuple[str, str, Any, str]
"""Query id, document id, relevance as it was written, and where ("raw.tsv: line 3")."""

LARGEST_GRADE = 1000
"""Collections use -2 to 4, some up to 100; what is larger stands in the wrong column, and trec_eval adds it up."""

_FORMATS = (
    "JSON {query_id: {doc_id: relevance}}, TREC 'query_id 0 doc_id relevance' "
    "or BEIR 'query-id<TAB>corpus-id<TAB>score'"
)
_COLUMNS = (("query-id", "query_id", "qid"), ("corpus-id", "corpus_id", "doc_id", "docid"), ("score", "relevance"))
_IS_RECORD = re.compile(r'\{[^{}]*"(query[-_]id|qid|corpus[-_]id|doc_?id)"\s*:\s*[^{\s]')


def read_qrels(path: str | Path, split: str = "test") -> Qrels:
    r"""Read judgements into `{query_id: {doc_id: relevance}}`, in the order of the file.

    Args:
        path: JSON `{query_id: {doc_id: relevance}}`, TREC (`qid 0 docid rel`), BEIR (TSV with a header, or JSON lines
            with the same names), perhaps gzip-compressed; a BEIR folder or its folder `qrels`; `pkg://...`;
            `ir_datasets:<id>`.
        split: which file of a folder.

    Raises:
        DataError: a line is wrong, a pair is judged twice and differently, or there is no judgement at all.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "qrels.txt"
        >>> _ = path.write_text("q1 0 d3 1\nq1 0 d5 0\n")
        >>> read_qrels(path)
        {'q1': {'d3': 1, 'd5': 0}}
    """
    if str(path).startswith(IR_DATASETS_SCHEME):
        return _collect(str(path), ir_datasets_qrels(str(path)))
    files = qrels_files(resolve_path(path), split)
    return _collect(str(files[0]), (judgement for file in files for judgement in iterate_judgements(file)))


def _collect(name: str, judgements: Iterable[Judgement]) -> Qrels:
    qrels: Qrels = {}
    for query_id, doc_id, relevance, place in judgements:
        judged = qrels.setdefault(query_id, {})
        grade = checked_grade(relevance, place)
        if judged.setdefault(doc_id, grade) != grade:
            raise DataError(
                f"{place}: document '{doc_id}' is judged twice for query '{query_id}': {judged[doc_id]}, {grade}"
            )
    if not qrels:
        raise DataError(f"{name}: there are no judgements in it")
    return qrels


def checked_grade(relevance: Any, place: str) -> int:
    """Return a grade of relevance; negative ones, such as TREC's for spam, mean not relevant.

    Raises:
        DataError: it is not a whole number, or so large that it must be something else, such as a document id.
    """
    try:
        number = math.nan if isinstance(relevance, bool) or "_" in str(relevance) else float(relevance)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if abs(number) <= LARGEST_GRADE and number == int(number):
        return int(number)
    raise DataError(
        f"{place}: the relevance must be a whole number, got {shown(relevance)} "
        f"(from {-LARGEST_GRADE} to {LARGEST_GRADE})"
    )


def qrels_files(found: Path, split: str) -> tuple[Path, ...]:
    """Return the file itself, or the files of a split in a folder; a DataError where there are none."""
    if found.is_file():
        return (found,)
    for folder in (found / "qrels", found):
        for name in (f"{split}.tsv", f"{split}.tsv.gz"):
            if (folder / name).is_file():
                return (folder / name,)
        if files := shard_files(folder, stem=split):
            return files
    folder = found / "qrels" if (found / "qrels").is_dir() else found
    raise DataError(
        f"{folder.absolute()}: no judgements of the split '{split}' there; the folder {folder_content(folder)}"
    )


def iterate_judgements(file: Path) -> Iterator[Judgement]:
    """Yield the judgements of a file of any format: parquet, JSON, JSON lines, or columns, told by the content."""
    if is_parquet(file):
        return _from_records(file, enumerate(parquet_rows(file), start=1), "row")
    beginning = head(file)
    if not beginning:
        raise DataError(f"{file}: the file is empty; expected {_FORMATS}")
    if begins_json_object(beginning):
        return _from_records(file, _json_lines(file), "line") if _IS_RECORD.match(beginning) else _from_json(file)
    return _from_columns(file)


def _from_json(file: Path) -> Iterator[Judgement]:
    for query_id, pairs in iterate_nested(file):
        place = f"{file}: query '{query_id}'"
        yield from ((query_id, doc_id, relevance, place) for doc_id, relevance in pairs)


def _json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line_number, line in iterate_lines(file):
        record = decode_json(line, file, line_number)
        yield line_number, record if isinstance(record, dict) else {}


def _from_records(file: Path, records: Iterable[tuple[int, dict[str, Any]]], unit: str) -> Iterator[Judgement]:
    for number, record in records:
        place = f"{file}: {unit} {number}"
        names = [next((name for name in allowed if name in record), None) for allowed in _COLUMNS]
        if None in names:
            raise DataError(
                f"{place}: expected the keys query-id, corpus-id, score; there are {shown(', '.join(record) or 'none')}"
            )
        query_id, doc_id, relevance = (record[name] for name in names if name is not None)
        yield id_text(query_id, place), id_text(doc_id, place), relevance, place


def _from_columns(file: Path) -> Iterator[Judgement]:
    n_columns = next(len(_columns(line)) for _, line in iterate_lines(file))
    if n_columns not in (3, 4):
        hint = " (six columns are a run, not judgements)" if n_columns == 6 else ""
        raise DataError(f"{file}: {n_columns} columns in the first line{hint}; expected {_FORMATS}")
    for seen, (line_number, line) in enumerate(iterate_lines(file)):
        columns = _columns(line)
        place = f"{file}: line {line_number}"
        if len(columns) != n_columns:
            raise DataError(
                f"{place}: {len(columns)} columns where the first line has {n_columns}; expected {_FORMATS}"
            )
        query_id, doc_id, relevance = columns[0], columns[-2], columns[-1]
        if seen == 0 and n_columns == 3 and relevance.lower() in _COLUMNS[2]:
            continue
        for some_id in (query_id, doc_id):
            check_id(some_id, place)
        yield query_id, doc_id, relevance, place


def _columns(line: str) -> list[str]:
    """Split at tabs when these give a known number of columns (ids may hold blanks then), else at blanks."""
    by_tab = line.split("\t")
    return by_tab if len(by_tab) in (3, 4) else line.split()
