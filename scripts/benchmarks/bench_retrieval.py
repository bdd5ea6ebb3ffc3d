"""Build indexes of the same vectors with several engines and search them with the same queries, in one run.

    python scripts/benchmarks/bench_retrieval.py                      # 20,000 vectors mixed from those of data/toy
    python scripts/benchmarks/bench_retrieval.py --vectors DOCS.npz --queries QUERIES.npz --repeats 1 --k 10 1000
    python scripts/benchmarks/bench_retrieval.py --vectors DOCS.npz --queries QUERIES.npz --engines exhaustive splade
        --docs 25000 100000 500000 2000000 --k 10 1000 --threads 1 2                # how time grows

The full figures need a file of document vectors and one of query vectors: CSR arrays `indptr`, `indices`, `data`,
`shape`. Of a file, the first `--docs` vectors are taken; where it has fewer, vectors are mixed from pairs of them.

Other engines take part where they are installed: `pip install splade-index pyseismic-lsr bmp pyvsag`. Engines take
turns on portions of 50 queries, so that whatever else the machine does falls on all alike, and the fastest of
`--repeats` rounds through a portion counts for each query. A single query is searched by one thread; `--threads`
measures whole batches as well: elapsed time / queries.
"""

import argparse
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

for _name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402  (numbers of threads are read at import)
import results  # noqa: E402
from bench_common import choose, make_parser  # noqa: E402
from retrieval_engines import ENGINES, RetrievalEngine, Splade  # noqa: E402
from vector_sources import (  # noqa: E402
    TOY_DOCS,
    add_vector_arguments,
    check_vector_arguments,
    describe,
    given_vectors,
    resize,
)

from splade.inverted_index import InvertedIndex  # noqa: E402
from splade.vectors import SparseVectors  # noqa: E402

Row = dict[str, object]
PORTION = 50


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, ENGINES)
    add_vector_arguments(parser)
    parser.add_argument("--docs", type=int, nargs="+", help=f"sizes; the whole file, or {TOY_DOCS}")
    parser.add_argument("--name", help="what the vectors are called in the results; the file's name")
    parser.add_argument("--k", type=int, nargs="+", default=[10], help="how many documents to find (10)")
    parser.add_argument("--threads", type=int, nargs="+", default=[], help="also search batches with so many threads")
    parser.add_argument("--efforts", type=float, nargs="+", help="values of search_effort for splade")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; the fastest counts (%(default)s)")
    given = parser.parse_args(arguments)
    check_vector_arguments(parser, given)
    if "exhaustive" not in given.engines:
        parser.error("--engines must include exhaustive: overlap and ratios are relative to it")
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the engines at every size, record the figures."""
    given = parse_arguments(arguments)
    engines = choose(ENGINES, given.engines)
    entry = results.begin(1, packages=tuple(engine.install for engine in engines if engine.install))
    name, documents, queries = given_vectors(given)
    name = given.name or name
    sizes = given.docs or [TOY_DOCS if given.vectors is None else len(documents)]
    name, documents = describe(name, documents, max(sizes)), resize(documents, max(sizes))
    means = f"{documents.nnz / len(documents):.0f} terms, {len(queries)} queries of {queries.nnz / len(queries):.0f}"
    entry["rows"] = [
        row for size in sizes for row in compare(engines, documents.rows(0, min(size, len(documents))), queries, given)
    ]
    rounds = "each query once" if given.repeats == 1 else f"fastest of {given.repeats} rounds"
    depths = " and ".join(map(str, given.k))
    shape = ", ".join(f"{size:,}" for size in sizes)
    results.save(given.results, "retrieval", f"{name}, {shape} vectors of {means} terms, k {depths}, {rounds}", entry)


def compare(
    chosen: Sequence[type[RetrievalEngine]],
    documents: SparseVectors,
    queries: SparseVectors,
    given: argparse.Namespace,
) -> list[Row]:
    """Build every engine on the documents and search; one row per engine, setting, k and number of threads.

    `ratio` is how many times as fast as the exhaustive search a row is, at the same number of documents and k.
    """
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-retrieval-") as folder:
        engines, builds = {}, {}
        for engine in chosen:
            name = engine.name
            print(f"building {name} on {len(documents)} documents", file=sys.stderr, flush=True)
            engines[name], builds[name] = build(engine, documents, Path(folder) / name)
        for k in given.k:
            found = search(engines, queries, k, given.repeats, given.efforts)
            if "splade" in engines:
                found += search_batches(engines["splade"].index, queries, k, given)  # type: ignore[attr-defined]
            base = next(row["mean_ms"] for row in found if row["engine"] == "exhaustive")
            for row in found:
                row |= {"docs": len(documents), "k": k}
                row.setdefault("ratio", base / row["mean_ms"])  # type: ignore[operator]
                row |= {"build_s": builds[str(row["engine"])], "postings": documents.nnz, "load": results.load()}
            rows += found
    return rows


def build(engine: type[RetrievalEngine], documents: SparseVectors, scratch: Path) -> tuple[RetrievalEngine, float]:
    """Return an engine with its index, and the seconds that building it took; a small build before it compiles."""
    for part in (documents.rows(0, min(100, len(documents))), documents):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        began = time.perf_counter()
        built = engine(part, scratch)
        took = time.perf_counter() - began
    return built, took


def search(
    engines: dict[str, RetrievalEngine],
    queries: SparseVectors,
    k: int,
    repeats: int,
    efforts: Sequence[float] | None = None,
) -> list[Row]:
    """Return a row for each engine and setting: milliseconds per query, and overlap@k with the exhaustive search."""
    ways = [
        (engine, setting)
        for engine in engines.values()
        for setting in (
            [{"effort": effort} for effort in efforts] if efforts and type(engine) is Splade else engine.settings
        )
    ]
    # Two settings of one engine do not follow each other: the second would find the postings in the cache.
    order = sorted(range(len(ways)), key=lambda way: sum(engine is ways[way][0] for engine, _ in ways[:way]))
    best = np.full((len(ways), len(queries)), np.inf)
    found: list[list[set[int]]] = [[set()] * len(queries) for _ in ways]
    for engine, setting in ways:  # what is compiled or mapped at the first query is no part of what is timed
        for query in queries.rows(0, min(3, len(queries))):
            engine.search(engine.prepare(*query), k, **setting)
    for first in range(0, len(queries), PORTION):
        portion = range(first, min(first + PORTION, len(queries)))
        for way in order:
            engine, setting = ways[way]
            prepared = [engine.prepare(*queries.row(number)) for number in portion]
            for _ in range(repeats):
                for number, query in zip(portion, prepared, strict=True):
                    began = time.perf_counter()
                    result = engine.search(query, k, **setting)
                    best[way, number] = min(best[way, number], time.perf_counter() - began)
                    found[way][number] = set(engine.numbers(result))
    exact = next(found[way] for way, (engine, _) in enumerate(ways) if engine.name == "exhaustive")
    rows: list[Row] = []
    for (engine, setting), times, sets in zip(ways, best * 1e3, found, strict=True):
        label = " ".join(f"{key} {value:g}" for key, value in setting.items())
        row: Row = {"engine": engine.name, "setting": label, "threads": 1, "mean_ms": float(times.mean())}
        row |= {"p50_ms": float(np.median(times)), "p99_ms": float(np.percentile(times, 99))}
        shares = [len(one & truth) / len(truth) if truth else 1.0 for one, truth in zip(sets, exact, strict=True)]
        rows.append(row | {"overlap": float(np.mean(shares))})
    return rows


def search_batches(index: InvertedIndex, queries: SparseVectors, k: int, given: argparse.Namespace) -> list[Row]:
    """Return a row for each number of threads: milliseconds per query of a batch of four times all queries.

    `ratio` is to the batch with the first number of threads: elapsed time is not to be compared with the fastest round.
    """
    batch = queries.take(np.tile(np.arange(len(queries)), 4))
    elapsed = {threads: float("inf") for threads in given.threads}
    for _, threads in itertools.product(range(given.repeats), given.threads):
        began = time.perf_counter()
        index.search(batch, k, n_threads=threads)
        elapsed[threads] = min(elapsed[threads], time.perf_counter() - began)
    base = next(iter(elapsed.values()), 0.0)
    return [
        {"engine": "splade", "setting": "effort 1, batch", "threads": threads, "mean_ms": took / len(batch) * 1e3}
        | {"ratio": base / took}
        for threads, took in elapsed.items()
    ]


if __name__ == "__main__":
    main()
