"""Encoded queries on disk, for the next search with other settings."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from splade.errors import DataError
from splade.storage.atomic import read_json, replacing, write_json
from splade.vectors import SparseVectors


class StoredQueries:
    """Encodes queries once; later, the same queries of the same model come from the file.

    Args:
        path: file of the vectors (`.npz`); what they are of is written beside it (`.json`).
        identity: JSON-able, what the vectors depend on: model, length, texts. Vectors of anything else are replaced.
        encode: query texts to their vectors, in groups.

    Attributes:
        reused: whether the vectors came from the file.
        encoding_seconds: what encoding took, when it was done.

    Example:
        >>> import tempfile
        >>> def encode(texts):
        ...     yield SparseVectors.from_dense(np.array([[0.0, len(text)] for text in texts]))
        >>> path = Path(tempfile.mkdtemp()) / "queries.npz"
        >>> for _ in range(2):
        ...     queries = StoredQueries(path, {"model": "m"}, encode)
        ...     print([v.weights.tolist() for v in queries.encode(["a", "bc"])], queries.reused)
        [[1.0, 2.0]] False
        [[1.0, 2.0]] True
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], encode: Callable[[list[str]], Iterator[SparseVectors]]):
        self.path = path
        self.reused = False
        self.encoding_seconds = 0.0
        self._identity = dict(identity)
        self._encode = encode

    def encode(self, texts: list[str]) -> Iterator[SparseVectors]:
        """Yield the vectors of all texts, as one group."""
        stored = self._load(len(texts))
        self.reused = stored is not None
        yield stored if stored is not None else self._encode_and_store(texts)

    def _load(self, n_texts: int) -> SparseVectors | None:
        try:
            about = read_json(self._about)
        except DataError:
            return None
        if about.get("identity") != self._identity or not self.path.is_file():
            return None
        with np.load(self.path, allow_pickle=False) as arrays:
            vectors = SparseVectors(arrays["indptr"], arrays["term_ids"], arrays["weights"], about["vocab_size"])
        self.encoding_seconds = about["encoding_seconds"]
        return vectors if len(vectors) == n_texts else None

    def _encode_and_store(self, texts: list[str]) -> SparseVectors:
        start = time.perf_counter()
        parts = list(self._encode(texts))
        self.encoding_seconds = time.perf_counter() - start
        vectors = SparseVectors.concatenate(parts, parts[0].vocab_size)
        # The description goes last and its old version first: one that is there belongs to the vectors.
        self._about.unlink(missing_ok=True)
        with replacing(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, indptr=vectors.indptr, term_ids=vectors.term_ids, weights=vectors.weights)
        about = {"identity": self._identity, "vocab_size": vectors.vocab_size}
        write_json(self._about, about | {"encoding_seconds": self.encoding_seconds})
        return vectors

    @property
    def _about(self) -> Path:
        return self.path.with_suffix(".json")
