"""Vectors as Parquet: `doc_id` (string), `term_ids` (list of integers), `weights` (list of floats), a row a vector."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from splade.errors import DataError
from splade.interop.vector_groups import AT_ONCE, Group, as_group
from splade.storage.atomic import replacing
from splade.storage.text_files import id_text
from splade.vectors import SparseVectors

COLUMNS = ("doc_id", "term_ids", "weights")


def read(path: Path, tokens: Sequence[str]) -> Iterator[Group]:
    """Yield the vectors of a file, some at a time.

    Args:
        path: the file.
        tokens: the vocabulary.

    Raises:
        DataError: no such columns, missing values, a cut file, or vectors that cannot be.
    """
    pa, pq = _pyarrow(path)
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        _check_columns(pa, file.schema_arrow, path)
        for batch in file.iter_batches(batch_size=AT_ONCE, columns=list(COLUMNS)):
            if any(column.null_count for column in batch.columns):
                raise DataError(f"{path}: a row has no value for one of {', '.join(COLUMNS)}")
            ids, terms, weights = (batch.column(name) for name in COLUMNS)
            if any(column.flatten().null_count for column in (terms, weights)):
                raise DataError(f"{path}: a list of term_ids or weights has a missing value")
            lengths = [np.asarray(column.value_lengths()) for column in (terms, weights)]
            names = [id_text(value, str(path)) for value in ids.to_pylist()]
            if (lengths[0] != lengths[1]).any():
                row = int(np.argmax(lengths[0] != lengths[1]))
                raise DataError(
                    f"{path}: the vector of {names[row]!r} has {lengths[0][row]} term_ids and {lengths[1][row]} weights"
                )
            yield as_group(
                names, lengths[0], np.asarray(terms.flatten()), np.asarray(weights.flatten()), len(tokens), path
            )
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a whole Parquet file ({' '.join(str(error).split())[:200]})") from error


def write(path: Path, ids: Sequence[str], vectors: SparseVectors, tokens: Sequence[str]) -> None:
    """Write vectors to a file, whole or not at all; the vocabulary is not written."""
    pa, pq = _pyarrow(path)
    offsets = pa.array(vectors.indptr, pa.int32())
    columns = [
        pa.array(ids, pa.string()),
        pa.ListArray.from_arrays(offsets, pa.array(vectors.term_ids, pa.int32())),
        pa.ListArray.from_arrays(offsets, pa.array(vectors.weights, pa.float32())),
    ]
    with replacing(path) as temporary:
        table = pa.table(columns, names=list(COLUMNS))
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def _check_columns(pa: ModuleType, schema: "object", path: Path) -> None:
    kinds = {field.name: field.type for field in schema}  # type: ignore[attr-defined]  # pyarrow has no types
    wanted = {
        "doc_id": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind),
        "term_ids": lambda kind: _is_list(pa, kind) and pa.types.is_integer(kind.value_type),
        "weights": lambda kind: (
            _is_list(pa, kind) and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))
        ),
    }
    for name, fits in wanted.items():
        if name not in kinds or not fits(kinds[name]):
            found = ", ".join(f"{other} ({kind})" for other, kind in kinds.items())
            raise DataError(
                f"{path}: vectors have the columns doc_id (string), term_ids (list of integers) and weights (list of "
                f"floats); the file has {found}"
            )


def _is_list(pa: ModuleType, kind: "object") -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _pyarrow(path: Path) -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(f"{path}: Parquet needs pyarrow: pip install 'splade[parquet]'") from error
    return pa, pq
