"""Load a server: answers per second and latencies of one client and of many, compared with offline results.

    python scripts/benchmarks/bench_server.py                             # the collection of data/toy
    python scripts/benchmarks/bench_server.py --beir data/beir/scifact    # the full figures

The server runs in a process of its own; the clients share the processors with it. One client waits for each answer
before it asks again, so that every query is encoded alone. Clients keep their connections open. The server keeps no
queries, so that each one is encoded every time.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import results
from bench_common import add_text_options, make_parser, read_texts

import splade


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add_text_options(parser, max_length=256)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (%(default)s)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 50], help="at a time (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="times that they take turns (%(default)s)")
    parser.add_argument("--index", help="of an earlier run; default: it is built")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, compare, record the figures."""
    given = parse_arguments(arguments)
    texts = read_texts(given.beir)
    entry = results.begin(given.threads, given.device)
    with tempfile.TemporaryDirectory() as folder:
        model = splade.load(given.model, max_length=given.max_length)
        place = Path(given.index or folder)
        pairs = [(str(i), text) for i, text in enumerate(texts.documents)]
        index = splade.Index.build(place, model, pairs, store_texts=True)
        retriever = splade.Retriever(model, index)
        expected = [[hit.doc_id for hit in retriever.search(query, 10)] for query in texts.queries]
        bodies = [json.dumps({"query": query}).encode() for query in texts.queries]
        process, port = _start(place)
        try:
            asyncio.run(_load(port, bodies, expected, 4, 1.0))  # nothing is measured cold
            measured: dict[int, list[tuple[list[float], float]]] = {clients: [] for clients in given.clients}
            for _ in range(given.rounds):
                for clients in given.clients:
                    measured[clients].append(asyncio.run(_load(port, bodies, expected, clients, given.seconds)))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    rows = []
    for clients, rounds in measured.items():
        latencies = sorted(seconds for found, _ in rounds for seconds in found)
        per_second = len(latencies) / sum(seconds for _, seconds in rounds)
        median, p99 = statistics.median(latencies), latencies[int(0.99 * len(latencies))]
        rows.append({"clients": clients, "per_second": per_second, "p50_ms": 1e3 * median, "p99_ms": 1e3 * p99})
        print(f"{clients} clients: {per_second:.0f} answers/s, p50 {1e3 * median:.1f} ms, p99 {1e3 * p99:.1f} ms")
    entry["rows"] = rows
    setting = f"{texts.name}, {len(pairs)} documents, {len(bodies)} queries, {given.model}, every answer as offline"
    results.save(given.results, "server", setting, entry)


def _start(index: Path) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "splade.serve", str(index), "serve.port=0", "serve.kept_queries=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout is not None
    for line in process.stdout:
        if "documents at http" in line:
            return process, int(line.rstrip("/\n").rpartition(":")[2])
    raise RuntimeError("the server has not started")


async def _load(
    port: int, bodies: Sequence[bytes], expected: Sequence[Sequence[str]], clients: int, seconds: float
) -> tuple[list[float], float]:
    """Return the seconds of each answer, and of the whole.

    Raises:
        RuntimeError: an answer is not the one that search gives offline.
    """
    latencies: list[float] = []
    start = time.perf_counter()
    answers: dict[int, bytes] = {}

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        place = number
        while time.perf_counter() < start + seconds:
            place = (place + clients) % len(bodies)
            asked = time.perf_counter()
            head = f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(bodies[place])}\r\n\r\n"
            writer.write(head.encode() + bodies[place])
            head_of_answer = await reader.readuntil(b"\r\n\r\n")
            length = int(head_of_answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            latencies.append(time.perf_counter() - asked)
            if not head_of_answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{head_of_answer!r} {body!r}")
            _compare(place, body, answers, expected)
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return latencies, time.perf_counter() - start


def _compare(place: int, body: bytes, answers: dict[int, bytes], expected: Sequence[Sequence[str]]) -> None:
    """Compare an answer: parsed the first time, its hits byte by byte after that, so that clients cost little."""
    hits = body[body.find(b'"hits"') : body.find(b'"documents"')]
    if answers.get(place) == hits:
        return
    found = [hit["doc_id"] for hit in json.loads(body)["hits"]]
    if found != list(expected[place]):
        raise RuntimeError(f"query {place}: {found} instead of {expected[place]}")
    answers[place] = hits


if __name__ == "__main__":
    main()
