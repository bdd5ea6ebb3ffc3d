"""Folders of JSON-lines or parquet files, as the Hugging Face hub stores `corpus`, `queries` and `qrels`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from splade.errors import DataError
from splade.storage.line_index import LineSource
from splade.storage.text_files import raw_lines

_ROWS_AT_ONCE = 1024
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


def shard_files(folder: Path, stem: str = "") -> tuple[Path, ...]:
    """Return the JSON-lines files of a folder in the order of their names, or else its parquet files.

    Args:
        folder: may be missing; the answer is then empty.
        stem: keep files called `stem.*` or `stem-*` only (`test-00000-of-00002.parquet`).
    """
    if not folder.is_dir():
        return ()
    for suffixes in (_SUFFIXES[:2], _SUFFIXES[2:]):
        files = sorted(
            file
            for file in folder.iterdir()
            if file.name.endswith(suffixes) and (not stem or file.name.startswith((f"{stem}.", f"{stem}-")))
        )
        if files:
            return tuple(files)
    return ()


def shards_source(path: Path, files: tuple[Path, ...]) -> LineSource:
    """Return the lines of all files, one after the other; a parquet row becomes one line of JSON."""
    return LineSource(path, files, parquet_lines if is_parquet(files[0]) else raw_lines)


def is_parquet(file: Path) -> bool:
    """Tell by the name whether a file is parquet."""
    return file.suffix == ".parquet"


def parquet_lines(file: Path) -> Iterator[bytes]:
    """Yield the rows of a parquet file as lines of JSON."""
    for row in parquet_rows(file):
        yield json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass") + b"\n"


def parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a parquet file as dictionaries, in constant memory.

    Raises:
        DataError: pyarrow is not installed, or the file is not parquet.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(f"{file}: reading parquet needs pyarrow; pip install pyarrow") from error
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(_ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise DataError(f"{file}: not a parquet file ({error})") from error
