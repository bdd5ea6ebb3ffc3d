"""Build and search indexes of growing collections: time, bytes, memory, and milliseconds of a query.

    python scripts/benchmarks/bench_growth.py            # up to 20,000 vectors, repeated from those of data/toy
    python scripts/benchmarks/bench_growth.py --vectors DOCS.npz --queries QUERIES.npz
        --docs 25000 150000 600000 2400000 8000000       # the full figures

Vectors come from a file and, beyond its end, from it again with fresh terms: each repetition exchanges every term for
one of nearly the same document frequency, drawn anew. So terms stay as frequent and vectors as long as they are, and no
two repetitions of a vector are alike, which near-clones would be, to the profit of every search that prunes.

Vectors are made as a stream while the index is built, which is part of its time. Building and searching have a process
each, so that each has a peak of memory of its own. Queries are searched one at a time by one thread.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import results
from bench_common import EngineProcess, make_parser, start
from vector_sources import add_vector_arguments, check_vector_arguments, given_vectors

from splade.inverted_index import IndexBuilder, InvertedIndex
from splade.vectors import SparseVectors

TOY_SIZES = (5_000, 20_000)
LIKE_FREQUENT = 64  # terms, neighbours by document frequency, among which a term is exchanged
AT_ONCE = 50_000


class Builder:
    """Builds an index of as many vectors as are wanted."""

    name = "build"

    def __init__(self, vectors: SparseVectors):
        self._vectors = vectors

    def build(self, folder: Path, n: int) -> float:
        """Build an index; return seconds."""
        began = time.perf_counter()
        builder = IndexBuilder(folder, self._vectors.vocab_size)
        first = builder.documents_done
        for vectors in repeated(self._vectors, n):
            builder.add([str(first + i) for i in range(len(vectors))], vectors)
            first += len(vectors)
        builder.finish()
        return time.perf_counter() - began


class Searcher:
    """Searches an index."""

    name = "search"

    def __init__(self, given: tuple[Path, SparseVectors]):
        folder, self._queries = given
        self._index = InvertedIndex.open(folder)

    def search(self, k: int, rounds: int) -> list[float]:
        """Return milliseconds of each query, the fastest of several rounds."""
        queries = [self._queries.rows(i, i + 1) for i in range(len(self._queries))]
        took = np.full(len(queries), np.inf)
        for query in queries[:3]:
            self._index.search(query, k)
        for _ in range(rounds):
            for i, query in enumerate(queries):
                began = time.perf_counter()
                self._index.search(query, k)
                took[i] = min(took[i], 1e3 * (time.perf_counter() - began))
        return took.tolist()

    def describe(self) -> dict[str, object]:
        """Return what is in the index."""
        return self._index.describe()


def repeated(vectors: SparseVectors, n: int) -> Iterator[SparseVectors]:
    """Yield `n` vectors, some at a time: those given, then the same again and again with fresh terms."""
    frequency = np.bincount(vectors.term_ids, minlength=vectors.vocab_size)
    by_frequency, repetition = np.argsort(-frequency, kind="stable"), 0
    while n > 0:
        rng = np.random.default_rng(repetition)
        exchanged = np.arange(vectors.vocab_size, dtype=np.int32)
        for start_rank in range(0, len(by_frequency) if repetition else 0, LIKE_FREQUENT):
            alike = by_frequency[start_rank : start_rank + LIKE_FREQUENT]
            exchanged[alike] = rng.permutation(alike)
        for row in range(0, min(n, len(vectors)), AT_ONCE):
            yield _with_terms(vectors.rows(row, min(row + AT_ONCE, n, len(vectors))), exchanged)
        n -= min(n, len(vectors))
        repetition += 1


def _with_terms(vectors: SparseVectors, exchanged: np.ndarray) -> SparseVectors:
    rows, terms = np.repeat(np.arange(len(vectors)), vectors.lengths), exchanged[vectors.term_ids]
    order = np.argsort(rows * vectors.vocab_size + terms)
    return SparseVectors(vectors.indptr - vectors.indptr[0], terms[order], vectors.weights[order], vectors.vocab_size)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add_vector_arguments(parser)
    parser.add_argument("--docs", type=int, nargs="+", help="sizes")
    parser.add_argument("--k", type=int, nargs="+", default=[10, 1000], help="how many documents to find (10 1000)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the fastest counts (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where indexes are built and removed; a temporary folder")
    given = parser.parse_args(arguments)
    check_vector_arguments(parser, given)
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure at every size, record the figures."""
    given = parse_arguments(arguments)
    sizes = given.docs or TOY_SIZES
    entry = results.begin(1)
    name, vectors, queries = given_vectors(given)
    entry["rows"] = [row for n in sizes for row in measure(vectors, queries, n, given.k, given.repeats, given.folder)]
    shape = f"{len(vectors):,} vectors of {vectors.nnz / len(vectors):.0f} terms, repeated with fresh terms"
    shape += f", up to {max(sizes):,} documents"
    results.save(given.results, "growth", f"{name}, {shape}, {len(queries)} queries", entry)


def measure(
    vectors: SparseVectors, queries: SparseVectors, n: int, depths: Sequence[int], rounds: int, folder: Path | None
) -> list[dict[str, object]]:
    """Build an index of `n` vectors and search it; return a row for each k."""
    print(f"building an index of {n:,} documents", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-growth-", dir=folder) as place:
        builder = start(Builder, vectors, one_process=False)  # type: ignore[arg-type]
        seconds = builder.call("build", Path(place), n)
        build_memory = builder.memory()
        builder.stop()
        searcher = EngineProcess(Searcher, (Path(place), queries))  # type: ignore[arg-type]
        made, rows = searcher.call("describe"), []
        for k in depths:
            took = searcher.call("search", k, rounds)
            row = {"docs": n, "k": k, "build_s": seconds, "build_peak_mib": build_memory.get("peak_mib")}
            row |= {"postings": made["n_postings"], "bytes": made["n_bytes"], "load": results.load()}
            row |= {"mean_ms": float(np.mean(took)), "p50_ms": float(np.median(took))}
            row |= {"p99_ms": float(np.percentile(took, 99)), "search_peak_mib": searcher.memory().get("peak_mib")}
            rows.append(row)
        searcher.stop()
    return rows


if __name__ == "__main__":
    main()
