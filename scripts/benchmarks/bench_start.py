"""How long it takes until something happens: imports, --help, opening an index, the first query of a new process.

    python scripts/benchmarks/bench_start.py                        # 20,000 vectors mixed from those of data/toy
    python scripts/benchmarks/bench_start.py --vectors DOCS.npz     # the full figures

Each row is a new process, run `--repeats` times in turns with the others; the median counts. The vectors (CSR arrays
`indptr`, `indices`, `data`, `shape`) only make the index larger that is opened; queries are a text, encoded by the
model, or terms of a document. `--compile` also measures the first search on a machine, which compiles the kernels.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import results
from bench_common import MEBIBYTE, ROOT, EngineProcess, make_parser
from retrieval_engines import build_index
from vector_sources import TOY_DOCS, describe, read_vectors, resize, toy_vectors

from splade.inverted_index import InvertedIndex
from splade.vectors import SparseVectors

IMPORTS = "import sys, numpy as np; from splade.inverted_index import InvertedIndex; from splade.vectors import *"
OPEN = f"{IMPORTS}; index = InvertedIndex.open(sys.argv[1])"
SEARCH = (
    f"{OPEN}; ids = np.array([2000, 2001, 2002], np.int32) % index.vocab_size;"
    "ids.sort(); query = SparseVectors(np.array([0, 3]), ids, np.ones(3, np.float32), index.vocab_size);"
    "index.search(query, top_k=10)"
)
TEXT = (
    f"{OPEN}; from bench_common import Encoder; encoder = Encoder(sys.argv[2], 64);"
    "query = encoder.encode(['why is the sky blue']); index.search(query, top_k=10)"
)


ARRAYS = ("indptr", "term_ids", "weights")


class Builder:
    """Builds an index in a process of its own, to tell its memory."""

    name: ClassVar[str] = "building"
    needs: ClassVar[Sequence[str]] = ()
    install: ClassVar[str] = ""

    def __init__(self, source: tuple[Path, int, Path]) -> None:
        arrays, vocab_size, self.folder = source
        indptr, term_ids, weights = (np.load(arrays / f"{name}.npy") for name in ARRAYS)
        self.vectors = SparseVectors(indptr, term_ids, weights, vocab_size)

    def build(self) -> float:
        """Build the index twice, so that nothing is compiled the second time; return the seconds of that."""
        began = 0.0
        for part in (self.vectors.rows(0, min(100, len(self.vectors))), self.vectors):
            shutil.rmtree(self.folder, ignore_errors=True)
            began = time.perf_counter()
            build_index(part, self.folder)
        return time.perf_counter() - began


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--vectors", type=Path, metavar="NPZ", help="documents of the index")
    parser.add_argument("--docs", type=int, help=f"how many; the whole file, or {TOY_DOCS}")
    parser.add_argument("--name", help="what the vectors are called in the results; the file's name")
    parser.add_argument("--repeats", type=int, default=5, help="new processes for each row (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="also the first search on a machine (12 s or more)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build an index, time the processes, record the figures."""
    given = parse_arguments(arguments)
    entry = results.begin(os.cpu_count() or 1)
    if given.vectors is None:
        name, vectors, docs = "toy", toy_vectors(given.model)[0], given.docs or TOY_DOCS
    else:
        name, vectors = given.name or given.vectors.stem, read_vectors(given.vectors)
        docs = given.docs or len(vectors)
    name, vectors = describe(name, vectors, docs), resize(vectors, docs)
    with tempfile.TemporaryDirectory(prefix="bench-start-") as folder:
        index = Path(folder) / "index"
        entry["index"] = build_and_open(vectors, index)
        InvertedIndex.open(index).search(vectors.rows(0, 1), top_k=10)  # compiles, where that is still to do
        entry["processes"] = time_processes(commands(index, given.model), given.repeats)
        if given.compile:
            cache = {"NUMBA_CACHE_DIR": str(Path(folder) / "cache")}
            took = run([sys.executable, "-c", SEARCH, str(index)], cache)
            base = entry["processes"][0]["median_s"]
            row = {"what": "first search on a machine: kernels are compiled", "median_s": took, "fastest_s": took}
            entry["processes"].append(row | {"ratio": took / base, "load": results.load()})
    results.save(given.results, "start", f"{name}, an index of {len(vectors):,} documents, {given.model}", entry)


def commands(index: Path, model: str) -> dict[str, list[str]]:
    """Return the command line of each row."""
    return {
        "Python itself": ["-c", "pass"],
        "import splade": ["-c", "import splade"],
        "python -m splade.retrieve --help": ["-m", "splade.retrieve", "--help"],
        "import torch, transformers": ["-c", "import torch; from transformers import AutoModelForMaskedLM"],
        "open an index": ["-c", OPEN, str(index)],
        "open an index, search for terms": ["-c", SEARCH, str(index)],
        "open an index, load the model, search for a text": ["-c", TEXT, str(index), model],
    }


def time_processes(rows: dict[str, list[str]], repeats: int) -> list[dict[str, object]]:
    """Return a row for every command; `ratio` is to the first one."""
    took: dict[str, list[float]] = {what: [] for what in rows}
    for number in range(repeats + (repeats > 1)):
        for what, command in rows.items():
            elapsed = run([sys.executable, *command])
            if number or repeats == 1:  # else the first round, which fills the machine's file cache
                took[what].append(elapsed)
    base = statistics.median(next(iter(took.values())))
    return [
        {"what": what, "median_s": statistics.median(times), "fastest_s": min(times)}
        | {"ratio": statistics.median(times) / base, "load": results.load()}
        for what, times in took.items()
    ]


def run(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Return the seconds that a command takes.

    Raises:
        SystemExit: it failed; with what it said.
    """
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    settings = os.environ | {"PYTHONPATH": path} | (environment or {})
    began = time.perf_counter()
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]}: failed\n{done.stderr}")
    return took


def build_and_open(vectors: SparseVectors, folder: Path) -> dict[str, object]:
    """Build an index; return the costs of building it and of opening it, first as a copy and then again."""
    for name in ARRAYS:  # in files: handed over in memory, they would be there twice
        np.save(folder.with_name(f"{name}.npy"), getattr(vectors, name))
    builder = EngineProcess(Builder, (folder.parent, vectors.vocab_size, folder))
    took = builder.call("build")
    peak = builder.memory().get("peak_mib", 0.0)
    builder.stop()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    opened = [_open(copy) for _ in range(6)]
    arrays = sum(getattr(vectors, name).nbytes for name in ARRAYS)
    return {
        "documents": len(vectors),
        "postings": vectors.nnz,
        "build_s": took,
        "arrays_mib": arrays / MEBIBYTE,
        "peak_mib": peak,
        "bytes_per_posting": size / max(vectors.nnz, 1),
        "open_copy_ms": 1000 * opened[0],
        "open_again_ms": 1000 * statistics.median(opened[1:]),
        "load": results.load(),
    }


def _open(folder: Path) -> float:
    began = time.perf_counter()
    InvertedIndex.open(folder)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
