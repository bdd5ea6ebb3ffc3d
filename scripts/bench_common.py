"""What the benchmarks of the head share: engines in processes of their own, timed in turns.

Every engine lives in its own process, so that its peak memory is its own and one engine's buffers cannot help or hurt
another. Only one process works at a time, and the engines take turns on small portions of the work, so that whatever
else the machine does falls on all of them alike.
"""

import importlib.util
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

MEBIBYTE = 2**20


class Engine:
    """One way to do the work. Subclasses say how; everything runs in the engine's own process."""

    name = ""

    @staticmethod
    def available() -> bool:
        """Whether everything that the engine needs is installed."""
        return True


class Process:
    """An engine in its own process; `call` runs one of its methods there and returns what it returns."""

    def __init__(self, engine: type[Engine], options: Any) -> None:
        self.name = engine.name
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(engine, options, theirs), daemon=True)
        self._process.start()
        self._receive()

    def call(self, method: str, *args: Any) -> Any:
        """Run `engine.method(*args)`."""
        self._pipe.send((method, args))
        return self._receive()

    def memory(self) -> dict[str, float]:
        """Return resident memory now and at its highest, and that of the GPU if there is one, in MiB."""
        return self.call("__memory__")

    def stop(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()

    def _receive(self) -> Any:
        try:
            failure, value = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise SystemExit(f"{self.name}: its process ended with code {self._process.exitcode}") from None
        if failure is not None:
            raise SystemExit(f"{self.name}: {failure}")
        return value


def _serve(engine_class: type[Engine], options: Any, pipe: Any) -> None:
    try:
        engine = engine_class(options)
        pipe.send((None, None))
        while (request := pipe.recv()) is not None:
            method, args = request
            pipe.send((None, _memory() if method == "__memory__" else getattr(engine, method)(*args)))
    except Exception as error:  # whatever it is, the parent process must hear of it
        pipe.send((f"{type(error).__name__}: {error}", None))
        raise


def _memory() -> dict[str, float]:
    status = Path("/proc/self/status")
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
    memory = {
        key: int(fields[field].split()[0]) / 1024
        for key, field in {"rss_mib": "VmRSS", "peak_mib": "VmHWM"}.items()
        if field in fields
    }
    import torch

    if torch.cuda.is_available():
        memory["gpu_peak_mib"] = torch.cuda.max_memory_allocated() / MEBIBYTE
    return memory


def seconds(work: Callable[[], Any], device: str = "cpu") -> tuple[float, Any]:
    """Run `work` and return how long it took, the GPU's part included, and what it returned."""
    import torch

    start = time.perf_counter()
    result = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def default_device() -> str:
    """Return `cuda` where there is a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def installed(package: str) -> bool:
    """Whether a Python package can be imported."""
    return importlib.util.find_spec(package) is not None


def machine(device: str, threads: int) -> dict[str, Any]:
    """Describe what a benchmark ran on."""
    import torch

    found = {
        "processor": platform.processor() or platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    return {**found, "gpu": torch.cuda.get_device_name()} if device != "cpu" else found


def read_beir_texts(folder: Path) -> tuple[list[str], list[str]]:
    """Return the documents (title and text) and the queries of a BEIR folder."""

    def lines(name: str) -> Iterable[dict[str, str]]:
        with open(folder / name, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    documents = [f"{line.get('title', '')} {line['text']}".strip() for line in lines("corpus.jsonl")]
    return documents, [line["text"] for line in lines("queries.jsonl")]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Lay out rows under a header, text to the left and numbers to the right."""
    cells = [list(header), *([cell if isinstance(cell, str) else f"{cell:,.2f}" for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
