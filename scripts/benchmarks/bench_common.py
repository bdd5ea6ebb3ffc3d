"""What the benchmarks share: one command line, texts, and engines in processes of their own, timed in turns.

Every engine lives in its own process, so that its peak memory is its own and one engine's buffers cannot help or hurt
another. Only one process works at a time, and the engines take turns on small portions of the work, so that whatever
else the machine does falls on all of them alike.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np

from splade.vectors import SparseVectors

if TYPE_CHECKING:
    from splade.models.exported_backbone import Backend
    from splade.models.low_precision import Precision

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / "data" / "toy"
RESULTS = Path(__file__).resolve().with_name("results.json")
MODEL = "pkg://cognition/model"
MEBIBYTE = 2**20

Result = TypeVar("Result")


class Engine(Protocol):
    """One way to do the work: its name, the modules that it needs, and what to `pip install` for them."""

    name: ClassVar[str]
    needs: ClassVar[Sequence[str]]
    install: ClassVar[str]


EngineType = TypeVar("EngineType", bound=type[Engine])


def choose(engines: Sequence[EngineType], names: Sequence[str]) -> list[EngineType]:
    """Return the named engines; those that are not installed are left out, with a line that says so."""
    chosen = []
    for engine in engines:
        if engine.name not in names:
            continue
        if all(importlib.util.find_spec(module) is not None for module in engine.needs):
            chosen.append(engine)
        else:
            print(f"{engine.name}: not installed, left out; pip install {engine.install}", file=sys.stderr)
    return chosen


def make_parser(description: str | None, engines: Sequence[type[Engine]] = ()) -> argparse.ArgumentParser:
    """Make a command line with the options of every benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [engine.name for engine in engines]
    if names:
        parser.add_argument("--engines", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--model", default=MODEL, help="hub name, folder or pkg://package/path (%(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="merge the figures into this file")
    return parser


def add_text_options(parser: argparse.ArgumentParser, max_length: int) -> None:
    """Add the options of the benchmarks that work on texts."""
    parser.add_argument("--beir", type=Path, metavar="FOLDER", help="a BEIR data set instead of data/toy")
    parser.add_argument("--max-length", type=int, default=max_length, help="tokens of a text (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of PyTorch (%(default)s)")
    parser.add_argument("--device", default=default_device(), help="cpu or cuda (%(default)s)")
    parser.add_argument("--one-process", action="store_true", help="all engines in this process: for tests, profiling")


@dataclass(frozen=True)
class Texts:
    """Texts to work on, and what they are called in the results."""

    name: str
    documents: list[str]
    queries: list[str]


def read_texts(beir: Path | None) -> Texts:
    """Read the documents (title and text) and the queries of a BEIR folder, or those of data/toy."""
    if beir is None:
        documents = _second_column(TOY / "collection" / "raw.tsv")
        return Texts("toy", documents, [q for part in ("train", "heldout") for q in _toy_queries(part)])
    for name in ("corpus.jsonl", "queries.jsonl"):
        if not (beir / name).is_file():
            raise SystemExit(f"{beir / name}: no such file; --beir takes the folder of a BEIR data set")
    documents = [f"{line.get('title', '')} {line['text']}".strip() for line in _json_lines(beir / "corpus.jsonl")]
    return Texts(beir.resolve().name, documents, [line["text"] for line in _json_lines(beir / "queries.jsonl")])


def _toy_queries(part: str) -> list[str]:
    return _second_column(TOY / "queries" / part / "raw.tsv")


def _second_column(path: Path) -> list[str]:
    return [line.split("\t", 1)[1] for line in path.read_text(encoding="utf-8").splitlines()]


def _json_lines(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Encoder:
    """This toolkit's encoder, as a program would use it.

    Args:
        model: hub name, folder or pkg://package/path.
        max_length: tokens of a text beyond this are cut off.
        batch_size: texts encoded at once.
        device: where.
        precision: of the linear layers.
    """

    def __init__(
        self,
        model: str,
        max_length: int,
        batch_size: int = 32,
        device: str = "cpu",
        precision: "Precision" = "fp32",
        backend: "Backend" = "torch",
    ) -> None:
        from splade.encoding.text_encoder import TextEncoder
        from splade.models.exported_backbone import exported_backbone
        from splade.models.masked_lm import MaskedLMEncoder
        from splade.models.pretrained import load_masked_lm
        from splade.models.splade import digest_weights

        loaded = load_masked_lm(model)
        encoder = MaskedLMEncoder(loaded.model).to(device)
        encoder.eval()
        if backend == "torch":
            encoder.lower_precision(precision)
        else:
            encoder.backbone = exported_backbone(encoder, digest_weights(encoder.model), backend, precision)
        self._encoder = TextEncoder(encoder, loaded.tokenizer, max_length, batch_size)

    def encode_query(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return term ids and weights of one text."""
        return self._encoder.encode_one(text).row(0)

    def encode(self, texts: list[str]) -> SparseVectors:
        """Return the vectors of the texts."""
        return self._encoder.encode(texts)


class EngineProcess:
    """An engine in its own process; `call` runs one of its methods there and returns what it returns.

    Args:
        engine: the engine's class; its constructor takes `options`.
        options: whatever the engine wants to know; pickled.
    """

    def __init__(self, engine: type[Engine], options: object) -> None:
        self.name = engine.name
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(engine, options, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def call(self, method: str, *arguments: object) -> Any:
        """Run `engine.method(*arguments)`."""
        self._pipe.send((method, arguments))
        return self._receive()

    def memory(self) -> dict[str, float]:
        """Return resident memory now and at its highest, and that of the GPU if there is one, in MiB."""
        return self.call("__memory__")

    def stop(self) -> None:
        """End the process."""
        if self._process.is_alive():
            self._pipe.send(None)
        self._process.join()

    def _receive(self) -> Any:
        try:
            failure, value = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise SystemExit(f"{self.name}: its process ended with code {self._process.exitcode}") from None
        if failure is not None:
            self._process.join()
            raise SystemExit(f"{self.name}: {failure}")
        return value


class EngineHere:
    """An engine in this process, with the methods of `EngineProcess`."""

    def __init__(self, engine: type[Engine], options: object) -> None:
        self.name = engine.name
        self._engine = engine(options)  # type: ignore[call-arg]

    def call(self, method: str, *arguments: object) -> Any:
        """Run `engine.method(*arguments)`."""
        return getattr(self._engine, method)(*arguments)

    def memory(self) -> dict[str, float]:
        """Return the memory of this process."""
        return _memory()

    def stop(self) -> None:
        """Do nothing: the process is ours."""


Worker = EngineProcess | EngineHere


def start(engine: type[Engine], options: object, one_process: bool) -> Worker:
    """Start an engine."""
    return EngineHere(engine, options) if one_process else EngineProcess(engine, options)


def _serve(engine_class: Callable[[object], object], options: object, pipe: Connection) -> None:
    try:
        engine = engine_class(options)
        pipe.send((None, None))
        while (request := pipe.recv()) is not None:
            method, arguments = request
            pipe.send((None, _memory() if method == "__memory__" else getattr(engine, method)(*arguments)))
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
    torch = sys.modules.get("torch")  # who has not imported it has nothing there
    if torch is not None and torch.cuda.is_available():
        memory["gpu_peak_mib"] = torch.cuda.max_memory_allocated() / MEBIBYTE
    return memory


def seconds(work: Callable[[], Result], device: str = "cpu") -> tuple[float, Result]:
    """Run `work` and return how long it took, the GPU's part included, and what it returned."""
    began = time.perf_counter()
    result = work()
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter() - began, result


def default_device() -> str:
    """Return `cuda` where there is a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
