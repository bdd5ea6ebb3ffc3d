"""Encode while other processes want the processors, too: threads that sleep while they wait against threads that spin.

    python scripts/benchmarks/bench_busy.py                              # the texts of data/toy
    python scripts/benchmarks/bench_busy.py --beir data/beir/scifact     # the full figures

Short texts are the first 90 characters of the documents. Each other process does nothing but keep a processor busy.
`sleeping` is what `import splade` sets where the user has not (OMP_WAIT_POLICY=passive); `spinning` is how threads of
OpenMP wait by default. The two take turns on the same texts.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import results
from bench_common import Worker, add_text_options, make_parser, read_texts, start
from bench_encoding import Options, Splade

SHORT = 90  # characters
WAITING = {"sleeping": {"OMP_WAIT_POLICY": "passive"}, "spinning": {"OMP_WAIT_POLICY": "", "GOMP_SPINCOUNT": "300000"}}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add_text_options(parser, max_length=256)
    parser.add_argument("--short", type=int, default=1000, help="how many short texts (%(default)s)")
    parser.add_argument("--docs", type=int, default=64, help="how many whole documents (%(default)s)")
    parser.add_argument("--queries", type=int, default=100, help="how many single queries (%(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="portions in which the two take turns (%(default)s)")
    parser.add_argument("--others", type=int, nargs="+", default=[0, os.cpu_count() or 1], help="busy processes")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Time both ways of waiting without and with other processes, record the figures."""
    given = parse_arguments(arguments)
    texts = read_texts(given.beir)
    entry = results.begin(given.threads, given.device)
    options = Options(given.model, given.max_length, 32, given.threads, given.device)
    workers = {waiting: _start(options, settings, given.one_process) for waiting, settings in WAITING.items()}
    short = [text[:SHORT] for text in texts.documents[: given.short]]
    rows: list[dict[str, object]] = []
    for others in given.others:
        with busy_processes(others):
            rows += _in_turns(
                workers, others, short, texts.documents[: given.docs], texts.queries[: given.queries], given
            )
    entry["rows"] = rows
    for worker in workers.values():
        worker.stop()
    setting = f"{texts.name}, {len(short)} texts of at most {SHORT} characters, {given.docs} documents of at most "
    setting += f"{given.max_length} tokens, {given.queries} single queries, {given.model}, {given.device}"
    results.save(given.results, "busy", setting, entry)


def _start(options: Options, settings: dict[str, str], one_process: bool) -> Worker:
    before = dict(os.environ)
    for name, value in settings.items():
        os.environ[name] = value
        if not value:
            del os.environ[name]
    try:
        return start(Splade, options, one_process)
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Keep so many processors busy meanwhile."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def _in_turns(
    workers: dict[str, Worker],
    others: int,
    short: list[str],
    documents: list[str],
    queries: list[str],
    given: argparse.Namespace,
) -> list[dict[str, object]]:
    spent = {waiting: {"short": 0.0, "documents": 0.0} for waiting in workers}
    latencies: dict[str, list[float]] = {waiting: [] for waiting in workers}
    for worker in workers.values():
        worker.call("timed", short[:16] + documents[:2])
        worker.call("latencies", queries[:2])
    for turn in range(given.rounds):
        for waiting, worker in workers.items():
            spent[waiting]["short"] += worker.call("timed", short[turn :: given.rounds])
            spent[waiting]["documents"] += worker.call("timed", documents[turn :: given.rounds])
            latencies[waiting] += worker.call("latencies", queries[turn :: given.rounds])
    ours = spent["sleeping"]["short"]
    return [
        {
            "others": others,
            "waiting": waiting,
            "short_per_second": len(short) / spent[waiting]["short"],
            "documents_per_second": len(documents) / spent[waiting]["documents"],
            "query_ms": 1000 * statistics.mean(latencies[waiting]),
            "ratio": spent[waiting]["short"] / ours,
            "load": results.load(),
        }
        for waiting in workers
    ]


if __name__ == "__main__":
    main()
