"""From measured latencies of a few shards to those of 10 to 1,000 that answer a query together: a simulation.

    python scripts/benchmarks/bench_shards.py            # shards of 5,000 vectors, repeated from those of data/toy
    python scripts/benchmarks/bench_shards.py --vectors DOCS.npz --queries QUERIES.npz --docs 500000   # in full

Some shards are built and searched in turns, one query at a time by one thread, so that whatever else the machine does
is in the latencies. A simulated query takes one measured latency of that query for each of n shards, and waits for the
slowest; joining n rankings is measured, not simulated. Stragglers are answers that take ten times as long, by chance.
A hedged query is asked of a second copy of each shard once the first has taken longer than most answers take.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import results
from bench_common import RESULTS, make_parser
from bench_growth import repeated
from retrieval_engines import build_index
from vector_sources import add_vector_arguments, check_vector_arguments, given_vectors

from splade.inverted_index import InvertedIndex, SearchResults
from splade.inverted_index.sharded import merge_rankings
from splade.storage.atomic import replacing
from splade.vectors import SparseVectors

PICTURE = Path("docs") / "shard_latency.png"
NUMBERS = (1, 10, 30, 100, 300, 1000)
STRAGGLERS, SLOWER, HEDGED_AFTER = 0.01, 10.0, 95  # share of answers; times; percentile of latencies
WAYS = ("as measured", "1 % stragglers", "1 % stragglers, hedged")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add_vector_arguments(parser)
    parser.add_argument("--docs", type=int, default=5000, help="documents of a shard (%(default)s)")
    parser.add_argument("--shards", type=int, default=4, help="shards that are built and measured (%(default)s)")
    parser.add_argument("--k", type=int, default=10, help="how many documents to find (%(default)s)")
    parser.add_argument("--rounds", type=int, default=25, help="how often each query is measured (%(default)s)")
    parser.add_argument("--trials", type=int, default=20, help="simulated queries of each measured one (%(default)s)")
    given = parser.parse_args(arguments)
    check_vector_arguments(parser, given)
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure some shards, simulate many, record and draw the figures."""
    given = parse_arguments(arguments)
    entry = results.begin(1)
    name, vectors, queries = given_vectors(given)
    with tempfile.TemporaryDirectory(prefix="bench-shards-") as folder:
        shards = build_shards(vectors, given.docs, given.shards, Path(folder))
        took, answers = measure(shards, queries, given.k, given.rounds)
    entry["rows"] = simulate(took, answers, given.k, given.trials)
    setting = f"{name}, {given.shards} shards of {given.docs:,} documents, {len(queries)} queries, k {given.k}"
    results.save(given.results, "shards", setting, entry)
    root = RESULTS.parents[2] if given.results.resolve() == RESULTS else given.results.parent
    draw(entry["rows"], root / PICTURE, setting)


def build_shards(vectors: SparseVectors, n_docs: int, n_shards: int, folder: Path) -> list[InvertedIndex]:
    """Build shards of one collection, whose vectors are repeated with fresh terms where there are too few."""
    made = []
    stream = repeated(vectors, n_docs * n_shards)
    waiting: list[SparseVectors] = []
    for number in range(n_shards):
        print(f"building shard {number + 1} of {n_shards}", file=sys.stderr, flush=True)
        while sum(map(len, waiting)) < n_docs:
            waiting.append(next(stream))
        joined = SparseVectors.concatenate(waiting, vectors.vocab_size)
        waiting = [joined.rows(n_docs, len(joined))]
        made.append(build_index(joined.rows(0, n_docs), folder / str(number)))
    return made


def measure(
    shards: Sequence[InvertedIndex], queries: SparseVectors, k: int, rounds: int
) -> tuple[np.ndarray, list[SearchResults]]:
    """Return (n_queries, n_shards x rounds) milliseconds, and what the shards found for the first query."""
    single = [queries.rows(i, i + 1) for i in range(len(queries))]
    took = np.empty((len(single), len(shards), rounds))
    for shard in shards:
        shard.search(single[0], k)
    for turn in range(rounds):
        for i, query in enumerate(single):
            for number, shard in enumerate(shards):
                began = time.perf_counter()
                shard.search(query, k)
                took[i, number, turn] = 1e3 * (time.perf_counter() - began)
    return took.reshape(len(single), -1), [shard.search(single[0], k) for shard in shards]


def simulate(took: np.ndarray, answers: Sequence[SearchResults], k: int, trials: int) -> list[dict[str, object]]:
    """Return p50 and p99 of queries that wait for the slowest of n shards, a row for each n and way."""
    rng, rows = np.random.default_rng(0), []
    patience = float(np.percentile(took, HEDGED_AFTER))
    for n in NUMBERS:
        joined = merging_ms(answers, n, k)
        for way, share, hedged in zip(WAYS, (0.0, STRAGGLERS, STRAGGLERS), (False, False, True), strict=True):
            waits = np.concatenate([_slowest(row, n, share, hedged, patience, trials, rng) for row in took]) + joined
            row = {"shards": n, "way": way, "mean_ms": float(waits.mean()), "p50_ms": float(np.median(waits))}
            rows.append(row | {"p99_ms": float(np.percentile(waits, 99)), "merging_ms": joined, "load": results.load()})
    return rows


def _slowest(
    row: np.ndarray, n: int, share: float, hedged: bool, patience: float, trials: int, rng: np.random.Generator
) -> np.ndarray:
    """Return (trials,) milliseconds until the last of n shards has answered a query measured as `row`."""

    def drawn() -> np.ndarray:
        return rng.choice(row, (trials, n)) * np.where(rng.random((trials, n)) < share, SLOWER, 1.0)

    waits = drawn()
    if hedged:
        waits = np.where(waits > patience, np.minimum(waits, patience + drawn()), waits)
    return waits.max(axis=1)


def merging_ms(answers: Sequence[SearchResults], n: int, k: int) -> float:
    """Return milliseconds of joining n rankings of one query."""
    found, starts = [answers[i % len(answers)] for i in range(n)], np.arange(n, dtype=np.int64)
    took = []
    for _ in range(5):
        began = time.perf_counter()
        merge_rankings(found, starts, k)
        took.append(1e3 * (time.perf_counter() - began))
    return min(took)


def draw(rows: Sequence[dict[str, object]], path: Path, subject: str) -> None:
    """Draw p50 and p99 by number of shards."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for colour, way in enumerate(WAYS):
        for key, style in (("p50_ms", "-"), ("p99_ms", "--")):
            points = [(row["shards"], row[key]) for row in rows if row["way"] == way]
            label = f"{way}, {key.removesuffix('_ms')}"
            axes.plot(*zip(*points, strict=True), style, color=f"C{colour}", marker=".", label=label)
    axes.set(xscale="log", yscale="log", xlabel="shards, searched at once", ylabel="ms until the last has answered")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7, handlelength=4)
    axes.set_title(subject, fontsize=9)
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
