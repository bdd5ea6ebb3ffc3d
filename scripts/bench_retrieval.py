"""Build indexes of the same vectors with several engines and search them with the same queries, in one run.

    python scripts/bench_retrieval.py                                            # vectors of its own making
    python scripts/bench_retrieval.py --vectors docs.npz --queries queries.npz --k 10,1000 --threads 1,2
    python scripts/bench_retrieval.py --docs 25000,100000,500000,2000000 --json growth.json --plot growth.png

Vectors are CSR arrays (`indptr`, `indices`, `data`, `shape`); of a file, the first `--docs` are taken. Engines: this
toolkit at several efforts, the plain loop over posting lists, SciPy's sparse product, and Seismic and BMP where they
are installed (`pip install pyseismic-lsr bmp`); `--engines` chooses. Engines take turns on each query, so that whatever
else the machine does falls on all alike, and the fastest of `--repeats` rounds counts for each query: on a busy
machine, that is its time without the others. More than one thread is measured as a batch: elapsed time / queries.
"""

import argparse
import importlib.util
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numba  # noqa: E402  (the number of threads is read at import)
import numpy as np  # noqa: E402
import scipy.sparse  # noqa: E402

from splade.inverted_index import IndexBuilder, InvertedIndex, read_npz_vectors  # noqa: E402
from splade.vectors import SparseVectors  # noqa: E402

Row = dict[str, Any]


class Engine(ABC):
    """A retrieval engine: the constructor builds its index, `search` answers one query."""

    name = ""
    needs = ""
    settings: Sequence[dict[str, float]] = ({},)

    @abstractmethod
    def __init__(self, documents: SparseVectors, folder: Path):
        """Build the index; files go to `folder`."""

    def prepare(self, term_ids: np.ndarray, weights: np.ndarray) -> Any:
        """Return the query in the engine's own form; not timed."""
        return term_ids, weights

    @abstractmethod
    def search(self, query: Any, k: int, **setting: float) -> Any:
        """Return the engine's own form of the best k documents; timed."""

    def numbers(self, found: Any) -> list[int]:
        """Return document numbers; not timed."""
        return [int(doc) for doc in found]


class Ours(Engine):
    """This toolkit."""

    name = "splade"
    settings = tuple({"effort": effort} for effort in (1.0, 0.7, 0.6, 0.55, 0.5))

    def __init__(self, documents: SparseVectors, folder: Path):
        builder = IndexBuilder(folder, documents.vocab_size)
        builder.add([str(i) for i in range(len(documents))], documents)
        builder.finish()
        self.index = InvertedIndex.open(folder)

    def prepare(self, term_ids: np.ndarray, weights: np.ndarray) -> SparseVectors:
        """See `Engine.prepare`."""
        return SparseVectors(np.array([0, len(term_ids)]), term_ids, weights, self.index.vocab_size)

    def search(self, query: SparseVectors, k: int, **setting: float) -> np.ndarray:
        """See `Engine.search`."""
        return self.index.search(query, k, **setting).doc_idx


@numba.njit(nogil=True)
def _add_lists(starts, docs, weights, terms, query_weights, n_docs):  # type: ignore[no-untyped-def]
    scores = np.zeros(n_docs, np.float32)
    for i in range(len(terms)):
        for posting in range(starts[terms[i]], starts[terms[i] + 1]):
            scores[docs[posting]] += query_weights[i] * weights[posting]
    return scores


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k highest positive scores, best first."""
    hits = np.flatnonzero(scores > 0)
    if len(hits) > k:
        hits = hits[np.argpartition(-scores[hits], k)[:k]]
    return hits[np.argsort(-scores[hits], kind="stable")]


class Exhaustive(Engine):
    """A compiled loop over all posting lists of a query."""

    name = "exhaustive"

    def __init__(self, documents: SparseVectors, folder: Path):
        order = np.argsort(documents.term_ids, kind="stable")
        self.docs = np.repeat(np.arange(len(documents), dtype=np.int32), documents.lengths)[order]
        self.weights = documents.weights[order]
        self.starts = np.zeros(documents.vocab_size + 1, np.int64)
        np.cumsum(np.bincount(documents.term_ids, minlength=documents.vocab_size), out=self.starts[1:])
        self.n_docs = len(documents)

    def search(self, query: Any, k: int, **setting: float) -> np.ndarray:
        """See `Engine.search`."""
        return _best(_add_lists(self.starts, self.docs, self.weights, *query, self.n_docs), k)


class SciPy(Engine):
    """The product of a sparse matrix and the query."""

    name = "scipy"

    def __init__(self, documents: SparseVectors, folder: Path):
        shape = (len(documents), documents.vocab_size)
        self.matrix = scipy.sparse.csr_matrix(
            (documents.weights, documents.term_ids, documents.indptr), shape
        ).T.tocsr()

    def prepare(self, term_ids: np.ndarray, weights: np.ndarray) -> scipy.sparse.csr_matrix:
        """See `Engine.prepare`."""
        rows = np.zeros(len(term_ids), np.int32)
        return scipy.sparse.csr_matrix((weights, (rows, term_ids)), (1, self.matrix.shape[0]))

    def search(self, query: scipy.sparse.csr_matrix, k: int, **setting: float) -> np.ndarray:
        """See `Engine.search`."""
        return _best((query @ self.matrix).toarray()[0], k)


class Seismic(Engine):
    """Seismic, with the build parameters of its README."""

    name, needs = "seismic", "seismic"
    settings = tuple({"query_cut": cut, "heap_factor": heap} for cut, heap in ((5, 0.9), (10, 0.8), (20, 0.7)))

    def __init__(self, documents: SparseVectors, folder: Path):
        import seismic

        self.string_type = seismic.get_seismic_string()
        path = folder / "documents.jsonl"
        with open(path, "w") as file:
            for number, (terms, weights) in enumerate(documents):
                vector = dict(zip(map(str, terms.tolist()), np.round(weights.astype(float), 5).tolist(), strict=True))
                file.write(json.dumps({"id": number, "content": "", "vector": vector}) + "\n")
        options = {"n_postings": 3500, "centroid_fraction": 0.1, "summary_energy": 0.4}
        self.index = seismic.SeismicIndex.build(str(path), load_content=False, num_threads=1, **options)

    def prepare(self, term_ids: np.ndarray, weights: np.ndarray) -> Any:
        """See `Engine.prepare`."""
        return np.array([str(term) for term in term_ids], dtype=self.string_type), weights

    def search(self, query: Any, k: int, **setting: float) -> Any:
        """See `Engine.search`."""
        return self.index.search("0", *query, k, int(setting["query_cut"]), setting["heap_factor"])

    def numbers(self, found: Any) -> list[int]:
        """See `Engine.numbers`."""
        return [int(doc) for _, _, doc in found]


class Bmp(Engine):
    """Block-max pruning on 8-bit weights."""

    name, needs = "bmp", "bmp"
    settings = ({"alpha": 1.0}, {"alpha": 0.8})

    def __init__(self, documents: SparseVectors, folder: Path):
        import bmp

        levels = np.maximum(1, np.rint(documents.weights * (255 / documents.weights.max()))).astype(int)
        indexer = bmp.Indexer(str(folder / "bmp"), bsize=32, compress_range=False)
        for number in range(len(documents)):
            span = slice(documents.indptr[number], documents.indptr[number + 1])
            terms = map(str, documents.term_ids[span].tolist())
            indexer.add_document(str(number), dict(zip(terms, levels[span].tolist(), strict=True)))
        indexer.finish()
        self.searcher = bmp.Searcher(str(folder / "bmp"))

    def prepare(self, term_ids: np.ndarray, weights: np.ndarray) -> dict[str, float]:
        """See `Engine.prepare`."""
        return {str(term): float(weight) for term, weight in zip(term_ids, weights, strict=True)}

    def search(self, query: dict[str, float], k: int, **setting: float) -> Any:
        """See `Engine.search`."""
        return self.searcher.search(query, k=k, alpha=setting["alpha"], beta=1.0)[0]


ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (Exhaustive, Ours, SciPy, Seismic, Bmp)}


def make_vectors(n: int, mean_terms: int, seed: int, vocab_size: int = 30522, n_topics: int = 2000) -> SparseVectors:
    """Make vectors in which a few thousand topics share terms and term frequencies follow Zipf's law."""
    topics = np.random.default_rng(0)
    share = 1 / np.arange(10, vocab_size + 10)
    share /= share.sum()
    topic_terms = topics.choice(vocab_size, (n_topics, 150), p=share)
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, n, 20_000):
        size = min(20_000, n - start)
        topic = topic_terms[rng.integers(0, n_topics, size)]
        rows, columns = np.nonzero(rng.random(topic.shape) < 0.75 * mean_terms / 150)
        others = rng.poisson(0.3 * mean_terms, size)
        terms = np.concatenate([topic[rows, columns], rng.choice(vocab_size, others.sum(), p=share)])
        keys = np.unique(np.concatenate([rows, np.repeat(np.arange(size), others)]) * vocab_size + terms)
        weights = np.log1p(rng.gamma(1.0, 1.2, len(keys))).astype(np.float32) + np.float32(1e-3)
        indptr = np.zeros(size + 1, np.int64)
        np.cumsum(np.bincount(keys // vocab_size, minlength=size), out=indptr[1:])
        parts.append(SparseVectors(indptr, (keys % vocab_size).astype(np.int32), weights, vocab_size))
    return SparseVectors.concatenate(parts, vocab_size)


def read_vectors(path: Path) -> SparseVectors:
    """Read all vectors of a file."""
    batches = [vectors for _, vectors in read_npz_vectors(path)]
    return SparseVectors.concatenate(batches, batches[0].vocab_size)


def compare(documents: SparseVectors, queries: SparseVectors, options: argparse.Namespace) -> list[Row]:
    """Build every engine on the documents and search; one row per engine, setting, k and number of threads."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-retrieval-") as folder:
        engines, builds = {}, {}
        for name in options.engines:
            print(f"building {name} on {len(documents)} documents", file=sys.stderr, flush=True)
            scratch = Path(folder) / name
            for warm in (True, False):  # the first time only compiles
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir()
                start = time.perf_counter()
                engines[name] = ENGINES[name](
                    documents.rows(0, min(100, len(documents))) if warm else documents, scratch
                )
                builds[name] = time.perf_counter() - start
        for k in options.k:
            for name, setting, milliseconds, overlap in _search(engines, queries, k, options.repeats):
                row = {"docs": len(documents), "engine": name, "setting": setting, "k": k, "threads": 1}
                row |= {"build_s": builds[name], "mpostings_per_s": documents.nnz / builds[name] / 1e6}
                row |= {"mean_ms": milliseconds.mean(), "p50_ms": float(np.median(milliseconds))}
                rows.append(row | {"p99_ms": float(np.percentile(milliseconds, 99)), "overlap": overlap})
            if "splade" in engines:
                rows += _threaded(engines["splade"].index, queries, k, options)  # type: ignore[attr-defined]
    return rows


def _search(
    engines: dict[str, Engine], queries: SparseVectors, k: int, repeats: int
) -> list[tuple[str, str, np.ndarray, float]]:
    """Return engine, setting, best milliseconds of each query, and overlap@k with the first engine."""
    ways = [(name, engine, setting) for name, engine in engines.items() for setting in engine.settings]
    best = np.full((len(ways), len(queries)), np.inf)
    found: list[list[Any]] = [[None] * len(queries) for _ in ways]
    for number, query in enumerate(queries):
        for way, (_, engine, setting) in enumerate(ways):
            prepared = engine.prepare(*query)
            for _ in range(repeats):
                start = time.perf_counter()
                result = engine.search(prepared, k, **setting)
                best[way, number] = min(best[way, number], time.perf_counter() - start)
            found[way][number] = set(engine.numbers(result))
    overlaps = [
        float(np.mean([len(one & truth) / max(1, len(truth)) for one, truth in zip(found[way], found[0], strict=True)]))
        for way in range(len(ways))
    ]
    labels = [" ".join(f"{key} {value:g}" for key, value in setting.items()) for _, _, setting in ways]
    return [(way[0], labels[i], best[i] * 1e3, overlaps[i]) for i, way in enumerate(ways)]


def _threaded(index: InvertedIndex, queries: SparseVectors, k: int, options: argparse.Namespace) -> list[Row]:
    """Measure batches of queries over threads, one thread first to compare with."""
    rows = []
    batch = queries.take(np.tile(np.arange(len(queries)), 4))
    for threads in options.threads if max(options.threads) > 1 else ():
        elapsed = []
        for _ in range(options.repeats):
            start = time.perf_counter()
            index.search(batch, k, n_threads=threads)
            elapsed.append(time.perf_counter() - start)
        row = {"docs": index.n_docs, "engine": "splade", "setting": "batch", "k": k, "threads": threads}
        rows.append(row | {"mean_ms": min(elapsed) / len(batch) * 1e3})
    return rows


def table(rows: Sequence[Row]) -> str:
    """Lay out the rows; `x` is the speed relative to the first engine at the same size and k."""
    columns = ["docs", "engine", "setting", "k", "threads", "build_s", "mpostings_per_s"]
    columns += ["mean_ms", "p50_ms", "p99_ms", "overlap", "x"]
    base = {(row["docs"], row["k"]): row["mean_ms"] for row in reversed(rows) if row["engine"] == rows[0]["engine"]}
    cells = [columns]
    for row in rows:
        values = row | {"x": base[row["docs"], row["k"]] / row["mean_ms"]}
        texts = {
            key: f"{value:.4f}" if key == "overlap" else f"{value:.3f}" if isinstance(value, float) else str(value)
            for key, value in values.items()
        }
        cells.append([texts.get(column, "") for column in columns])
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw time per query over the number of documents."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    single = [row for row in rows if row["setting"] != "batch"]
    # One colour for each way of searching, one style for each k.
    ways = list(dict.fromkeys((row["engine"], row["setting"]) for row in single))
    for k, style in zip(dict.fromkeys(row["k"] for row in single), itertools.cycle(["-", "--", ":"]), strict=False):
        for colour, way in enumerate(ways):
            mine = [row for row in single if row["k"] == k and (row["engine"], row["setting"]) == way]
            points = sorted((row["docs"], row["mean_ms"]) for row in mine)
            if points:
                label = f"{' '.join(way).strip()}, k = {k}"
                axes.plot(*zip(*points, strict=True), style, color=f"C{colour % 10}", marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="documents", ylabel="ms per query, one thread")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Read the command line, compare, print the table."""

    def integers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, help="documents; made when left out")
    parser.add_argument("--queries", type=Path, help="queries; needed with --vectors")
    parser.add_argument(
        "--docs", type=integers, help="sizes of the collection, e.g. 25000,500000; default all, or 100000"
    )
    parser.add_argument("--k", type=integers, default=[10])
    parser.add_argument("--threads", type=integers, default=[1])
    parser.add_argument("--engines", type=lambda text: text.split(","), default=["exhaustive", "splade", "scipy"])
    parser.add_argument("--efforts", type=lambda text: [float(part) for part in text.split(",")])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    unknown = [name for name in options.engines if name not in ENGINES]
    if unknown or (options.vectors is None) != (options.queries is None):
        parser.error(f"engines: {', '.join(ENGINES)}; --vectors and --queries go together")
    for name in [name for name in options.engines if ENGINES[name].needs]:
        if importlib.util.find_spec(ENGINES[name].needs) is None:
            print(f"{name}: not installed, left out", file=sys.stderr)
            options.engines.remove(name)
    if options.efforts:
        Ours.settings = tuple({"effort": effort} for effort in options.efforts)
    if options.vectors:
        documents, queries = read_vectors(options.vectors), read_vectors(options.queries)
    else:
        documents = make_vectors(max(options.docs or [100_000]), 100, seed=1)
        queries = make_vectors(200, 30, seed=2)
    rows: list[Row] = []
    for size in options.docs or [len(documents)]:
        rows += compare(documents.rows(0, min(size, len(documents))), queries, options)
        print(table(rows) if size == (options.docs or [len(documents)])[-1] else "", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
