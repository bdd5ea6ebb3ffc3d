"""Vectors as SciPy's `.npz` of a CSR matrix, one row a vector, with their ids as one more array, `doc_ids`.

`scipy.sparse.load_npz` reads it and passes over the ids. A file without ids has those of its rows: 0, 1, 2 ...
"""

import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from splade.errors import DataError
from splade.interop.vector_groups import AT_ONCE, Group, as_group
from splade.storage.atomic import replacing
from splade.storage.text_files import id_text
from splade.vectors import SparseVectors

# Of an array's header, whatever it says: NumPy reads it as a Python literal, and makes room for as much as it names.
_WRONG_HEADERS = (ValueError, TypeError, SyntaxError, tokenize.TokenError, MemoryError, RuntimeError)
_ARRAYS = {"indptr": "iu", "indices": "iu", "data": "fiu", "shape": "iu"}


def read(path: Path, tokens: Sequence[str]) -> Iterator[Group]:
    """Yield the vectors of a file, some at a time; the file is loaded whole.

    Args:
        path: the file.
        tokens: the vocabulary.

    Raises:
        DataError: not a CSR matrix over this vocabulary, a cut file, or vectors that cannot be.
    """
    arrays = _arrays(path)
    form = arrays.get("format", np.array(b"?")).reshape(-1)[:1].tolist()
    fits = all(name in arrays and arrays[name].dtype.kind in kinds for name, kinds in _ARRAYS.items())
    if form not in ([b"csr"], ["csr"]) or not fits:
        raise DataError(f"{path}: not a CSR matrix as scipy.sparse.save_npz writes it; it holds {', '.join(arrays)}")
    indptr, terms, weights, shape = (arrays[name].reshape(-1) for name in ("indptr", "indices", "data", "shape"))
    if len(shape) != 2 or shape[0] < 0 or shape[1] != len(tokens):
        raise DataError(
            f"{path}: a matrix of shape {tuple(shape.tolist())}, the vocabulary has {len(tokens)} terms: another model "
            "made it"
        )
    indptr = indptr.astype(np.int64)  # of unsigned numbers no difference is negative
    if len(indptr) != int(shape[0]) + 1 or indptr[0] != 0 or indptr[-1] != len(terms) or (np.diff(indptr) < 0).any():
        raise DataError(f"{path}: its arrays do not fit together: indptr must ascend from 0 to {len(terms)} entries")
    named = arrays["doc_ids"].reshape(-1).tolist() if "doc_ids" in arrays else range(int(shape[0]))
    ids = [id_text(value, str(path)) for value in named]
    if len(ids) != shape[0]:
        raise DataError(f"{path}: {len(ids)} doc_ids for {shape[0]} vectors")
    for start in range(0, len(ids), AT_ONCE):
        stop = min(start + AT_ONCE, len(ids))
        span = slice(int(indptr[start]), int(indptr[stop]))
        lengths = np.diff(indptr[start : stop + 1])
        yield as_group(ids[start:stop], lengths, terms[span], weights[span], len(tokens), path)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Load all arrays of a file.

    Raises:
        DataError: it is no zip file of arrays, or not a whole one.
    """
    try:
        with zipfile.ZipFile(path) as members:
            arrays: dict[str, np.ndarray] = {}
            for name in members.namelist():
                with members.open(name) as member:
                    arrays[name.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
            return arrays
    except (OSError, EOFError, LookupError, zipfile.BadZipFile, zlib.error, *_WRONG_HEADERS) as error:
        raise DataError(f"{path}: not a whole .npz file ({' '.join(str(error).split())[:200]})") from error


def write(path: Path, ids: Sequence[str], vectors: SparseVectors, tokens: Sequence[str]) -> None:
    """Write vectors to a file, whole or not at all."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            indices=vectors.term_ids,
            indptr=vectors.indptr,
            format=np.array(b"csr"),
            shape=np.array([len(vectors), len(tokens)]),
            data=vectors.weights,
            doc_ids=np.array(ids, dtype=np.str_),
        )
