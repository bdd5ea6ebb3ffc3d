"""Vectors that were computed elsewhere: compressed sparse rows in a `.npz` file, and Anserini's JSONL.

Readers yield `(doc_ids, vectors)` in batches, as `IndexBuilder.add` and `add_documents` take them.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from splade.errors import DataError, nearest
from splade.vectors import SparseVectors

_BATCH_DOCS = 1 << 14


def read_npz_vectors(path: str | Path) -> Iterator[tuple[list[str], SparseVectors]]:
    """Read the arrays of a CSR matrix, documents x terms: `indptr`, `indices`, `data`, `shape`, perhaps `doc_ids`.

    Without `doc_ids` (an array of strings), a document's id is its row number. Zero weights are left out.

    Raises:
        DataError: the file or an array is missing, or the arrays do not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as .npz ({error})") from error
    missing = [name for name in ("indptr", "indices", "data", "shape") if name not in arrays]
    if missing:
        raise DataError(f"{path}: has no array {', '.join(missing)}; it must hold the arrays of a CSR matrix")
    indptr, term_ids = arrays["indptr"].astype(np.int64), arrays["indices"].astype(np.int32)
    weights, (n_docs, vocab_size) = arrays["data"].astype(np.float32), (int(n) for n in arrays["shape"])
    doc_ids = [str(doc_id) for doc_id in arrays.get("doc_ids", range(n_docs))]
    if len(indptr) != n_docs + 1 or len(doc_ids) != n_docs or not len(term_ids) == len(weights) == indptr[-1]:
        raise DataError(f"{path}: its arrays do not fit together ({n_docs} rows, {len(indptr)} row pointers,"
                        f" {len(doc_ids)} ids, {len(term_ids)} indices, {len(weights)} values)")  # fmt: skip
    vectors = SparseVectors(indptr, term_ids, weights, vocab_size)
    for start in range(0, n_docs, _BATCH_DOCS):
        stop = min(start + _BATCH_DOCS, n_docs)
        yield doc_ids[start:stop], _canonical(vectors.rows(start, stop))


def read_anserini_vectors(
    path: str | Path, vocabulary: Mapping[str, int], quantization_factor: float = 1.0
) -> Iterator[tuple[list[str], SparseVectors]]:
    """Read Anserini's `JsonVectorCollection`: lines of `{"id": ..., "vector": {token: weight}}`, or that in gzip.

    Args:
        path: the file.
        vocabulary: term id of each token.
        quantization_factor: weights are divided by it; give the one they were multiplied with.

    Raises:
        DataError: a line is not of this form (with its number), or a token is not in the vocabulary.
    """
    vocab_size = max(vocabulary.values()) + 1
    doc_ids: list[str] = []
    rows: list[tuple[list[int], list[float]]] = []
    opened = gzip.open(path, "rb") if str(path).endswith(".gz") else open(path, "rb")
    with opened as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            doc_id, vector = _parse(line, f"{path}: line {number}")
            unknown = next((token for token in vector if token not in vocabulary), None)
            if unknown is not None:
                raise DataError(
                    f"{path}: line {number}: token '{unknown}' is not in the vocabulary{nearest(unknown, vocabulary)}"
                )
            doc_ids.append(doc_id)
            rows.append(([vocabulary[token] for token in vector], [w / quantization_factor for w in vector.values()]))
            if len(rows) == _BATCH_DOCS:
                yield doc_ids, _from_rows(rows, vocab_size)
                doc_ids, rows = [], []
    if rows:
        yield doc_ids, _from_rows(rows, vocab_size)


def _parse(line: bytes, where: str) -> tuple[str, dict[str, Any]]:
    try:
        record = json.loads(line)
        doc_id, vector = record["id"], record["vector"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{where}: not {{"id": ..., "vector": {{token: weight}}}} ({error!r})') from error
    if not isinstance(vector, dict) or not all(isinstance(weight, int | float) for weight in vector.values()):
        raise DataError(f"{where}: 'vector' must map tokens to numbers")
    return str(doc_id), vector


def _from_rows(rows: list[tuple[list[int], list[float]]], vocab_size: int) -> SparseVectors:
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(terms) for terms, _ in rows], out=indptr[1:])
    term_ids = np.array([term for terms, _ in rows for term in terms], np.int32)
    weights = np.array([weight for _, weights in rows for weight in weights], np.float32)
    return _canonical(SparseVectors(indptr, term_ids, weights, vocab_size))


def _canonical(vectors: SparseVectors) -> SparseVectors:
    """Sort each vector's terms and leave out zero weights."""
    if not len(vectors.weights):
        return vectors
    row_of = np.repeat(np.arange(len(vectors)), vectors.lengths)
    keys = row_of * vectors.vocab_size + vectors.term_ids
    order = np.arange(len(keys)) if (np.diff(keys) > 0).all() else np.argsort(keys, kind="stable")
    order = order[vectors.weights[order] != 0]
    indptr = np.zeros(len(vectors) + 1, np.int64)
    np.cumsum(np.bincount(row_of[order], minlength=len(vectors)), out=indptr[1:])
    return SparseVectors(indptr, vectors.term_ids[order], vectors.weights[order], vectors.vocab_size)
