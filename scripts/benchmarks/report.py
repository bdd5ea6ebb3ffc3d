"""Makes docs/speed.md and its picture of `results.json`; the benchmarks print their tables with it, too.

python scripts/benchmarks/report.py              # writes docs/speed.md and docs/search_growth.png
python scripts/benchmarks/report.py --check      # exit code 1 if docs/speed.md is not what the results give
"""

import argparse
import itertools
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from splade.storage.atomic import read_json, replacing, write_text

Entry = dict[str, Any]
Rows = Sequence[Sequence[str]]

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs"
PAGE, PICTURE = "speed.md", "search_growth.png"

HEAD = """\
# Speed

<!-- Made by scripts/benchmarks/report.py of scripts/benchmarks/results.json; change those. -->

All figures were measured by the scripts in `scripts/benchmarks`. They run from a checkout without arguments, on
`data/toy`, in a minute or two each; what they need for the full figures stands at the top of each script. Each run
replaces its entry in `scripts/benchmarks/results.json`, from which this page is made.

<!-- not run: minutes each; tests/unit/test_benchmarks.py runs them on less -->
```bash
python scripts/benchmarks/bench_encoding.py     # --beir data/beir/scifact for the full figures
python scripts/benchmarks/bench_training.py     # --beir data/beir/scifact
python scripts/benchmarks/bench_retrieval.py    # --vectors DOCS.npz --queries QUERIES.npz
python scripts/benchmarks/bench_growth.py       # --vectors DOCS.npz --queries QUERIES.npz --docs 25000 ... 8000000
python scripts/benchmarks/bench_shards.py       # --vectors DOCS.npz --queries QUERIES.npz --docs 500000
python scripts/benchmarks/bench_start.py        # --vectors DOCS.npz
python scripts/benchmarks/bench_busy.py         # --beir data/beir/scifact
python scripts/benchmarks/bench_server.py       # --beir data/beir/scifact
python scripts/benchmarks/bench_rerank.py       # --beir data/beir/scifact --pairs 640
```

**Read the ratios.** Whatever is compared ran in one run on one machine: each engine in a process of its own, taking
turns on small portions of the work, so that other work on the machine falls on all alike. Absolute times hold for that
machine and its load alone. *Load* is the load average over one minute when a row was finished, the benchmark's own
threads included; above the number of cores, processes waited for one another. Engines that are not installed are left
out. Before anything is timed, results are compared: vectors, losses, or the documents found.
"""

INTRODUCTIONS = {
    "encoding": """\
## Encoding

Documents in batches, and queries one at a time. `textbook` is the formula as it is written, in PyTorch: all logits,
activation, mask, maximum. The two bare products are the multiplication of the same tokens with the output embedding
and nothing else, once whole and once in pieces that fit the cache. The head can be faster than the product of its size
because most terms of a text are ruled out by a product of 8-bit integers with an error bound; what remains is computed
in float32, so weights are those of the float32 product. `splade bf16` and `splade int8` run the linear layers of the
backbone in fewer bits (`init_dict.precision`), by which models of real size gain; `onnx` and `openvino` run the
backbone in ONNX Runtime and OpenVINO (`init_dict.backend`). *Ratio*: how many times as fast `splade` is.
""",
    "training": """\
## Training

Optimiser steps on the same batches from the same weights: in-batch negatives, FLOPS on queries and documents, AdamW,
no dropout; the median without the first step. The largest batch is the largest power of two that trains under a limit
of the process's address space. `splade bf16` computes under bfloat16 autocast (`config.bf16`). *Ratio*: how many times
as fast `splade` is, or how many times as large its batch.
""",
    "retrieval": """\
## Search

One query at a time on one thread, from term ids and weights to the numbers of the best k documents. `exhaustive` is a
plain compiled loop over posting lists. `effort` is `config.search_effort`: 1 is exact (float32 dot products, ties go to
the document indexed first); below, the search takes into account only that share of what the unread terms of a query
could at most add to a document's score, and the scores of what it finds are exact. *Overlap* is overlap@k with the
exhaustive search; `bmp` has impacts of 8 bits, `seismic` is approximate. In a *batch*, several threads share the
queries. Building starts from arrays and ends with an index that answers queries. Mixed vectors have near-duplicates,
which flatter every search that prunes by a threshold, ours too. *Ratio*: how many times as fast as `exhaustive` at the
same number of documents and k; of a batch, as the same batch on its first number of threads.

What was tried and did not pay, on 150,000 distinct texts where not said otherwise:

- Dense rows of 8-bit upper bounds for terms that one in eight documents has, as a screen: no faster, 0.6 bytes per
  posting more.
- Bitmaps with ranks for frequent terms, to look documents up in one step: 9 % faster at k = 10, slower at k = 1000.
- Documents in the order of their L1 or L2 norm, largest weight or length: 10 to 30 % slower at k = 10, half as fast at
  k = 1000.
- Windows of 2^11 to 2^16 documents: 1.07 to 0.75 ns per posting, level from 2^15 on.
- A first threshold from the sums of the heaviest terms of the first window, before the others are read: 6 % slower to
  1 % faster at k = 10, 8 to 23 % slower at k = 1000.
- Fewer bytes without loss. A posting takes 6 bytes, and documents, ids and block tables another 0.8 (35 terms a
  document) or 0.3 (99 terms). Offsets of 8 bits in groups of 256 documents, wherever the counts of the groups cost less
  than they save, take 1.5 bytes for 2; float32 weights have 23 random bits and some 2.5 of an exponent. So 26 bits for
  a weight would make 5.0 bytes per posting in half a million documents of 99 terms, and 4.5 asks for offsets coded by
  their gaps, which cannot be looked up without decoding a block, as the search does some 100 times a window. With
  weights of 16 bits, which lose something, the same would make 3.8 there, and 4.4 with 35 terms a document. The file
  stays as it is.
""",
    "growth": """\
## Growth

One index on one machine, larger and larger. Beyond the vectors of the file, the same are repeated with fresh terms:
each term is exchanged for one of nearly the same document frequency, drawn anew for each repetition, so that no two
are alike and terms stay as frequent as they are. Vectors are made while the index is built, as part of its time. The
peaks of memory are those of a process that only builds and of one that only searches, the pages of the mapped index
that it has touched included. Queries one at a time, by one thread. Time grows nearly as the collection does: documents
come in no order that would let whole windows of them be passed over.
""",
    "shards": """\
## Many shards

How long a query waits for the slowest of many shards that are searched at once, simulated from measured latencies of a
few: one measured latency of the query is drawn for each shard. *Stragglers* are one answer of a hundred that takes ten
times as long. *Hedged* queries ask a second copy of a shard that has not answered after the 95th percentile of all
latencies. Joining the rankings is measured and included; the network is not.

![milliseconds by number of shards](shard_latency.png)
""",
    "busy": """\
## Busy machines

Encoding while other processes keep processors busy. `import splade` lets the threads of PyTorch sleep while they wait
for work (`OMP_WAIT_POLICY=passive`, unless it is set); the default of OpenMP is to spin. A single text of a small model
is encoded by one thread. *Ratio*: how many times as many short texts per second as `spinning` encodes with as many
other processes are encoded by threads that sleep.
""",
    "server": """\
## Server

Answers of `splade.serve` per second, over connections that stay open; server and clients share the processors. With one
client every query is encoded alone, with more those that wait are encoded and searched together. Every answer is
compared with what search finds offline. *Ratio*: times as many answers per second as one client gets.
""",
    "rerank": """\
## Reranking

Pairs of a query and a document, scored by a cross-encoder: the encoder of the model with a new head. Pairs of similar
length share a batch. `splade bf16` is `config.bf16`. *Ratio*: how many times as fast `splade` is, the median over
rounds.
""",
    "start": """\
## Start

New processes, from their start to their end, with the machine's file cache warm. An index is opened by memory mapping;
the first time that a file is opened after it was copied, its checksums are verified. Peak memory of building includes
the arrays and the interpreter. *Ratio*: to a Python process that does nothing.
""",
}


def page(results: dict[str, dict[str, Entry]]) -> str:
    """Return docs/speed.md."""
    lines = [HEAD]
    for benchmark, introduction in INTRODUCTIONS.items():
        lines.append(introduction)
        # Full figures first; the small runs on the toy data are there to compare a quick run with.
        settings = sorted(results.get(benchmark, {}), key=lambda setting: setting.startswith("toy,"))
        for setting in settings:
            lines += [*entry_lines(benchmark, setting, results[benchmark][setting]), ""]
        if benchmark == "retrieval" and growth(results) is not None:
            lines += [f"![milliseconds per query by number of documents]({PICTURE})", ""]
    return "\n".join(lines).rstrip() + "\n"


def entry_lines(benchmark: str, setting: str, entry: Entry) -> list[str]:
    """Return the lines of one run: its setting, the machine, its tables."""
    return [f"### {setting}", "", machine_line(entry), "", *SECTIONS[benchmark](entry)]


def machine_line(entry: Entry) -> str:
    """Say when, where and with what a run was made."""
    machine = entry["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f", {machine['gpu']}" if "gpu" in machine else ""
    commit = f", commit {entry['commit']}" if entry["commit"] else ""
    return (
        f"{entry['date']}{commit}. {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads{gpu}; load "
        f"{machine['load_before']} at the start, {machine['load_after']} at the end; OMP_WAIT_POLICY "
        f"{machine['omp_wait_policy']}. Python {machine['python']}, {versions}."
    )


def _encoding(entry: Entry) -> list[str]:
    documents = [
        [row["engine"], _number(row["per_second"]), _ratio(row), _memory(row), _resident(row), _load(row)]
        for row in entry["documents"]
    ]
    queries = [
        [row["engine"], _number(row["mean_ms"]), _number(row["median_ms"]), _ratio(row), _load(row)]
        for row in entry["queries"]
    ]
    return [
        *_differences("weight", entry["largest_difference"]),
        *table(["documents", "per second", "ratio", "peak MiB", "MiB, first and last round", "load"], documents),
        "",
        *table(["single queries", "mean ms", "median ms", "ratio", "load"], queries),
    ]


def _training(entry: Entry) -> list[str]:
    if "largest_batch" in entry:
        found = [[row["engine"], str(row["triplets"]), _ratio(row), _load(row)] for row in entry["largest_batch"]]
        return table(["engine", "triplets that fit", "ratio", "load"], found)
    steps = entry["steps"]
    peak = steps[0].get("peak_mib")
    rows = [
        [row["engine"], _number(row["step_s"]), _ratio(row), _memory(row)]
        + [f"{row['peak_mib'] / peak:.1f}" if peak else "", _load(row)]
        for row in steps
    ]
    header = ["engine", "s per step", "ratio", "peak MiB", "ratio of memory", "load"]
    return [*_differences("step's loss", entry["largest_difference"]), *table(header, rows)]


def _retrieval(entry: Entry) -> list[str]:
    header = ["documents", "engine", "k", "threads", "mean ms", "p50", "p99", "overlap", "ratio"]
    header += ["build s", "M postings/s", "load"]
    rows = [
        [f"{row['docs']:,}", f"{row['engine']} {row['setting']}".strip(), str(row["k"]), str(row["threads"])]
        + [f"{row[key]:.3f}" if key in row else "" for key in ("mean_ms", "p50_ms", "p99_ms")]
        + [f"{row['overlap']:.4f}" if "overlap" in row else "", _ratio(row), f"{row['build_s']:.2f}"]
        + [f"{row['postings'] / row['build_s'] / 1e6:.1f}", _load(row)]
        for row in entry["rows"]
    ]
    return table(header, rows, texts=2)


def _growth(entry: Entry) -> list[str]:
    header = ["documents", "M postings", "build s", "M postings/s", "build peak MiB", "MB", "bytes per posting"]
    header += ["k", "mean ms", "p50", "p99", "search peak MiB", "load"]
    rows = [
        [f"{row['docs']:,}", f"{row['postings'] / 1e6:.1f}", _number(row["build_s"])]
        + [f"{row['postings'] / row['build_s'] / 1e6:.1f}", f"{row['build_peak_mib']:,.0f}"]
        + [f"{row['bytes'] / 1e6:,.0f}", f"{row['bytes'] / row['postings']:.2f}", str(row["k"])]
        + [f"{row[key]:.3f}" for key in ("mean_ms", "p50_ms", "p99_ms")]
        + [f"{row['search_peak_mib']:,.0f}", _load(row)]
        for row in entry["rows"]
    ]
    return table(header, rows, texts=0)


def _shards(entry: Entry) -> list[str]:
    header = ["shards", "way", "mean ms", "p50", "p99", "joining ms", "load"]
    rows = [
        [f"{row['shards']:,}", row["way"], *(f"{row[key]:.2f}" for key in ("mean_ms", "p50_ms", "p99_ms"))]
        + [f"{row['merging_ms']:.2f}", _load(row)]
        for row in entry["rows"]
    ]
    return table(header, rows, texts=2)


def _busy(entry: Entry) -> list[str]:
    rows = [
        [row["waiting"], str(row["others"]), _number(row["short_per_second"]), _number(row["documents_per_second"])]
        + [_number(row["query_ms"]), _ratio(row), _load(row)]
        for row in entry["rows"]
    ]
    return table(["threads", "others", "short texts/s", "documents/s", "query mean ms", "ratio", "load"], rows)


def _server(entry: Entry) -> list[str]:
    alone = entry["rows"][0]["per_second"]
    rows = [
        [str(row["clients"]), _number(row["per_second"]), f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}"]
        + [f"{row['per_second'] / alone:.1f}"]
        for row in entry["rows"]
    ]
    return table(["clients", "answers/s", "median ms", "p99 ms", "ratio"], rows, texts=0)


def _rerank(entry: Entry) -> list[str]:
    rows = [[row["engine"], _number(row["per_second"]), _ratio(row), _memory(row), _load(row)] for row in entry["rows"]]
    return [
        *_differences("score", entry["largest_difference"]),
        *table(["pairs", "per second", "ratio", "peak MiB", "load"], rows),
    ]


def _start(entry: Entry) -> list[str]:
    rows = [
        [row["what"], f"{row['median_s']:.3f}", f"{row['fastest_s']:.3f}", _ratio(row), _load(row)]
        for row in entry["processes"]
    ]
    index = entry["index"]
    header = ["postings", "build s", "M postings/s", "arrays MiB", "peak MiB", "ratio", "bytes per posting"]
    figures = [f"{index['postings']:,}", f"{index['build_s']:.2f}", f"{index['postings'] / index['build_s'] / 1e6:.1f}"]
    figures += [f"{index['arrays_mib']:.0f}", f"{index['peak_mib']:.0f}"]
    figures += [f"{index['peak_mib'] / index['arrays_mib']:.1f}", f"{index['bytes_per_posting']:.2f}"]
    opening = [f"{index[key]:.2f}" for key in ("open_copy_ms", "open_again_ms")]
    return [
        *table(["new process", "median s", "fastest s", "ratio", "load"], rows),
        "",
        *table(["index", *header, "open a copy ms", "open again ms", "load"], [["", *figures, *opening, _load(index)]]),
    ]


SECTIONS: dict[str, Callable[[Entry], list[str]]] = {
    "encoding": _encoding,
    "training": _training,
    "retrieval": _retrieval,
    "growth": _growth,
    "shards": _shards,
    "busy": _busy,
    "server": _server,
    "rerank": _rerank,
    "start": _start,
}


def table(header: Sequence[str], rows: Rows, texts: int = 1) -> list[str]:
    """Lay out a Markdown table that can also be read as it is; the first `texts` columns are not numbers."""
    cells = [list(header), *map(list, rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in cells
    ]
    rule = "|".join(
        "-" * (width + 2) if column < texts else "-" * (width + 1) + ":" for column, width in enumerate(widths)
    )
    return [lines[0], f"|{rule}|", *lines[1:]]


def _number(value: float) -> str:
    """Format a number with three significant digits, but all digits before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(row: Entry) -> str:
    return f"{row['ratio']:.2f}"


def _load(row: Entry) -> str:
    return "" if row["load"] is None else f"{row['load']:.1f}"


def _memory(row: Entry) -> str:
    gpu = f" + {row['gpu_peak_mib']:,.0f} GPU" if "gpu_peak_mib" in row else ""
    return f"{row['peak_mib']:,.0f}{gpu}" if "peak_mib" in row else ""


def _resident(row: Entry) -> str:
    found = row.get("resident_mib")
    return f"{found[0]:,.0f}, {found[-1]:,.0f}" if found else ""


def _differences(what: str, found: dict[str, float]) -> list[str]:
    if not found:
        return []
    pairs = ", ".join(f"{difference:.0e} ({name})" for name, difference in found.items())
    return [f"Largest difference of a {what} from that of `splade`: {pairs}.", ""]


def growth(results: dict[str, dict[str, Entry]]) -> list[Entry] | None:
    """Return the rows of the run with most sizes, if it has three or more."""
    runs = [entry["rows"] for entry in results.get("retrieval", {}).values()]
    largest: list[Entry] = max(runs, key=lambda rows: len({row["docs"] for row in rows}), default=[])
    return largest if len({row["docs"] for row in largest}) > 2 else None


def draw(rows: Sequence[Entry], path: Path, subject: str = "") -> None:
    """Draw time per query over the number of documents: a colour for each way of searching, a style for each k.

    `subject`, the collection and its vectors, is the title.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4.5))
    single = [row for row in rows if "overlap" in row]
    ways = list(dict.fromkeys((row["engine"], row["setting"]) for row in single))
    for k, style in zip(dict.fromkeys(row["k"] for row in single), itertools.cycle(["-", "--", ":"]), strict=False):
        for colour, (way, marker) in enumerate(zip(ways, itertools.cycle("osD^vP*X"), strict=False)):
            mine = [row for row in single if row["k"] == k and (row["engine"], row["setting"]) == way]
            points = sorted((row["docs"], row["mean_ms"]) for row in mine)
            if points:
                label = f"{' '.join(way).strip()}, k = {k}"
                axes.plot(*zip(*points, strict=True), style, color=f"C{colour % 10}", marker=marker, label=label)
    axes.set(xscale="log", yscale="log", xlabel="documents", ylabel="ms per query, one thread")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7, handlelength=4, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.set_title("\n".join(textwrap.wrap(subject, 80)), fontsize=9)
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    pyplot.close(figure)


def write(results: dict[str, dict[str, Entry]], folder: Path) -> list[Path]:
    """Write the page and its picture; return what was written."""
    write_text(folder / PAGE, page(results))
    rows = growth(results)
    if rows is None:
        return [folder / PAGE]
    subject = next(name for name, entry in results["retrieval"].items() if entry["rows"] is rows)
    draw(rows, folder / PICTURE, subject)
    return [folder / PAGE, folder / PICTURE]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or with --check compare it with the one that is there; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the page")
    parser.add_argument("--check", action="store_true", help="change nothing")
    given = parser.parse_args(arguments)
    results = read_json(given.results)
    if given.check:
        path = given.docs / PAGE
        same = path.is_file() and path.read_text(encoding="utf-8") == page(results)
        print(f"{path}: {'up to date' if same else 'differs; run this script without --check'}")
        return 0 if same else 1
    print(json.dumps([str(made) for made in write(results, given.docs)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
