"""Where the benchmarks of the index get sparse vectors: from a file, or from data/toy and a model."""

import argparse
from pathlib import Path

import numpy as np
from bench_common import Encoder, read_texts

from splade.vectors import SparseVectors

TOY_DOCS = 20_000
OWN_SHARE, OTHER_SHARE = 0.6, 0.2
_CHUNK = 20_000


def read_vectors(path: Path) -> SparseVectors:
    """Read all vectors of an .npz file with the arrays of a CSR matrix: `indptr`, `indices`, `data`, `shape`."""
    with np.load(path, allow_pickle=False) as file:
        indptr, term_ids, weights = (file[name] for name in ("indptr", "indices", "data"))
        vocab_size = int(file["shape"][1])
    vectors = SparseVectors(indptr.astype(np.int64), term_ids.astype(np.int32), weights.astype(np.float32), vocab_size)
    vectors.check(vocab_size)
    return vectors


def toy_vectors(model: str) -> tuple[SparseVectors, SparseVectors]:
    """Encode the documents and the queries of data/toy."""
    texts, encoder = read_texts(None), Encoder(model, max_length=256)
    return encoder.encode(texts.documents), encoder.encode(texts.queries)


def add_vector_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what names documents and queries."""
    parser.add_argument("--vectors", type=Path, metavar="NPZ", help="documents; with --queries")
    parser.add_argument("--queries", type=Path, metavar="NPZ", help="queries; with --vectors")


def check_vector_arguments(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """End the program unless both files are given, or none."""
    if (given.vectors is None) != (given.queries is None):
        parser.error("--vectors and --queries go together")


def given_vectors(given: argparse.Namespace) -> tuple[str, SparseVectors, SparseVectors]:
    """Return a name, documents and queries: those of the files, or of data/toy."""
    if given.vectors is None:
        return "toy", *toy_vectors(given.model)
    return given.vectors.stem, read_vectors(given.vectors), read_vectors(given.queries)


def describe(name: str, vectors: SparseVectors, n: int) -> str:
    """Say what `resize(vectors, n)` is."""
    return f"{name}, mixed from {len(vectors):,} vectors" if n > len(vectors) else name


def resize(vectors: SparseVectors, n: int, seed: int = 0) -> SparseVectors:
    """Return the first n vectors, or if there are fewer, n that are mixed from pairs of them.

    A mixed vector has 60 % of the terms of one vector and 20 % of those of another, with weights changed at random by
    some 20 %. Terms go together as in real vectors, but there are near-duplicates, which flatter every search that
    prunes by a threshold.
    """
    if n <= len(vectors):
        return vectors.rows(0, n)
    rng = np.random.default_rng(seed)
    chunks = [_mix(vectors, min(_CHUNK, n - first), rng) for first in range(0, n, _CHUNK)]
    return SparseVectors.concatenate(chunks, vectors.vocab_size)


def _mix(vectors: SparseVectors, n: int, rng: np.random.Generator) -> SparseVectors:
    keys, weights = [], []
    for share in (OWN_SHARE, OTHER_SHARE):
        drawn = vectors.take(rng.integers(0, len(vectors), n))
        kept = np.flatnonzero(rng.random(drawn.nnz) < share)
        rows = np.repeat(np.arange(n), drawn.lengths)[kept]
        keys.append(rows * vectors.vocab_size + drawn.term_ids[kept])
        weights.append(drawn.weights[kept])
    unique, where = np.unique(np.concatenate(keys), return_index=True)
    jitter = np.exp(rng.normal(0, 0.2, len(unique)))
    mixed = (np.concatenate(weights)[where] * jitter).astype(np.float32)
    indptr = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(unique // vectors.vocab_size, minlength=n), out=indptr[1:])
    return SparseVectors(indptr, (unique % vectors.vocab_size).astype(np.int32), mixed, vectors.vocab_size)
