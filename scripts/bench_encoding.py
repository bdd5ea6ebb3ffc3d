"""Encode the same texts with this toolkit, sentence-transformers and the textbook formula, in one run.

    python scripts/bench_encoding.py --beir data/beir/scifact --docs 512 [--json FILE]
    python scripts/bench_encoding.py --docs 5000 --engines splade --no-limits    # is memory flat?

Vectors are compared before anything is timed. Two limits stand beside the engines: the bare matrix product of the same
number of tokens with the output embedding, without padding and without anything before or after it, once for the whole
vocabulary with as many tokens as a passage has, and once in pieces that fit the cache, as fast as the machine can.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_common import Engine, Process, default_device, installed, machine, read_beir_texts, seconds, table

Vectors = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Options:
    """What every engine gets."""

    model: str
    max_length: int
    batch_size: int
    threads: int
    device: str


class ModelEngine(Engine):
    """An engine that loads the model and its tokenizer."""

    def __init__(self, options: Options) -> None:
        import torch

        from splade.models.hub import model_folder

        torch.set_num_threads(options.threads)
        self.options = options
        self.folder = str(model_folder(options.model))
        self.load()

    def load(self) -> None:
        """Load the model."""
        raise NotImplementedError

    def encode(self, texts: list[str]) -> Vectors:
        """Return term ids and weights of each text."""
        raise NotImplementedError

    def encode_query(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return term ids and weights of one text."""
        return self.encode([text])[0]

    def timed(self, texts: list[str]) -> float:
        """Return the seconds that encoding takes."""
        return seconds(lambda: self.encode(texts), self.options.device)[0]

    def latencies(self, queries: list[str]) -> list[float]:
        """Return the seconds that each query takes, one at a time."""
        return [seconds(lambda query=query: self.encode_query(query), self.options.device)[0] for query in queries]


class Splade(ModelEngine):
    """This toolkit."""

    name = "splade"

    def load(self) -> None:  # noqa: D102
        from splade.encoding import QueryEncoder
        from splade.models.masked_lm import MaskedLMEncoder
        from splade.models.pretrained import load_masked_lm

        loaded = load_masked_lm(self.options.model)
        self.tokenizer = loaded.tokenizer
        self.encoder = MaskedLMEncoder(loaded.model.to(self.options.device))
        self.encode_query = QueryEncoder(self.encoder, self.tokenizer, self.options.max_length)

    def encode(self, texts: list[str]) -> Vectors:  # noqa: D102
        from splade.encoding import encode_texts

        options = self.options
        windows = encode_texts(self.encoder, self.tokenizer, texts, options.max_length, options.batch_size)
        return [row for vectors in windows for row in vectors]


class SentenceTransformers(ModelEngine):
    """The SparseEncoder of sentence-transformers."""

    name = "sentence-transformers"

    @staticmethod
    def available() -> bool:  # noqa: D102
        return installed("sentence_transformers")

    def load(self) -> None:  # noqa: D102
        from sentence_transformers import SparseEncoder
        from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer

        transformer = Transformer(self.folder, transformer_task="fill-mask")
        self.model = SparseEncoder(modules=[transformer, SpladePooling()], device=self.options.device)
        self.model.max_seq_length = self.options.max_length

    def encode(self, texts: list[str]) -> Vectors:  # noqa: D102
        matrix = self.model.encode_document(texts, batch_size=self.options.batch_size, show_progress_bar=False)
        return _rows(matrix.cpu().coalesce(), len(texts))

    def encode_query(self, text: str) -> tuple[np.ndarray, np.ndarray]:  # noqa: D102
        vector = self.model.encode_query(text, show_progress_bar=False).cpu().coalesce()
        return vector.indices()[-1].numpy(), vector.values().numpy()


class Textbook(ModelEngine):
    """The formula as it is written: all logits, activation, mask, maximum."""

    name = "textbook formula"

    def load(self) -> None:  # noqa: D102
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        self.model = AutoModelForMaskedLM.from_pretrained(self.folder).to(self.options.device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)

    def encode(self, texts: list[str]) -> Vectors:  # noqa: D102
        import torch

        vectors: Vectors = [(np.empty(0), np.empty(0))] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        size = self.options.batch_size
        for batch in (order[start : start + size] for start in range(0, len(order), size)):
            inputs = self.tokenizer(
                [texts[i] for i in batch],
                padding=True,
                truncation=True,
                max_length=self.options.max_length,
                return_tensors="pt",
            ).to(self.options.device)
            with torch.inference_mode():
                logits = self.model(**inputs).logits
                weights = torch.log1p(torch.relu(logits)) * inputs["attention_mask"].unsqueeze(-1)
                rows = _rows(weights.max(dim=1).values.cpu().to_sparse(), len(batch))
            for i, row in zip(batch, rows, strict=True):
                vectors[i] = row
        return vectors


class MatrixProduct(ModelEngine):
    """The product of the same tokens with the output embedding, and nothing else."""

    name = "bare matrix product"
    tokens_at_once = 256
    terms_at_once: int | None = None

    def load(self) -> None:  # noqa: D102
        import torch
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        model = AutoModelForMaskedLM.from_pretrained(self.folder)
        self.weight = model.get_output_embeddings().weight.detach().to(self.options.device)
        self.terms_at_once = self.terms_at_once or len(self.weight)
        self.hidden = torch.randn(self.tokens_at_once, self.weight.shape[1], device=self.options.device)
        self.out = torch.empty(self.tokens_at_once, self.terms_at_once, device=self.options.device)

    def timed(self, texts: list[str]) -> float:  # noqa: D102
        rows = self.tokenizer(texts, truncation=True, max_length=self.options.max_length)["input_ids"]
        return seconds(lambda: self._multiply(sum(len(row) for row in rows)), self.options.device)[0]

    def _multiply(self, tokens: int) -> None:
        import torch

        pieces = self.weight.split(self.terms_at_once)
        for start in range(0, tokens, self.tokens_at_once):
            hidden = self.hidden[: min(self.tokens_at_once, tokens - start)]
            for piece in pieces:
                out = self.out.flatten()[: len(hidden) * len(piece)].view(len(hidden), len(piece))
                torch.mm(hidden, piece.t(), out=out)


class CachedProduct(MatrixProduct):
    """The same product in pieces that fit the cache."""

    name = "bare product in pieces"
    tokens_at_once = 1024
    terms_at_once = 512


ENGINES = [Splade, SentenceTransformers, Textbook]
LIMITS = [MatrixProduct, CachedProduct]


def _rows(matrix: Any, n: int) -> Vectors:
    """Cut a coalesced sparse (n, vocabulary) tensor into rows."""
    (rows, terms), weights = matrix.indices().numpy(), matrix.values().numpy()
    ends = np.cumsum(np.bincount(rows, minlength=n))
    return [
        (terms[end - size : end], weights[end - size : end])
        for end, size in zip(ends, np.diff(ends, prepend=0), strict=True)
    ]


def largest_difference(ours: Vectors, theirs: Vectors) -> float:
    """Return the largest absolute difference of any weight."""
    worst = 0.0
    for (our_terms, our_weights), (their_terms, their_weights) in zip(ours, theirs, strict=True):
        dense = np.zeros(1 + max(our_terms.max(initial=0), their_terms.max(initial=0)))
        dense[our_terms] = our_weights
        dense[their_terms] -= their_weights
        worst = max(worst, float(np.abs(dense).max()))
    return worst


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beir", type=Path, default=Path("data/beir/scifact"), help="folder of a BEIR data set")
    parser.add_argument("--model", default="pkg://cognition/model", help="hub name, folder or pkg://package/path")
    parser.add_argument("--docs", type=int, default=512, help="how many documents")
    parser.add_argument("--queries", type=int, default=200, help="how many single queries")
    parser.add_argument("--rounds", type=int, default=4, help="portions in which the engines take turns")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--engines", nargs="+", default=[engine.name for engine in ENGINES], help="which engines")
    parser.add_argument("--limits", action=argparse.BooleanOptionalAction, default=True, help="time the bare products")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args(arguments)


def main() -> None:
    """Compare, time and report."""
    given = parse_arguments()
    options = Options(given.model, given.max_length, given.batch_size, given.threads, given.device)
    documents, queries = read_beir_texts(given.beir)
    documents, queries = documents[: given.docs], queries[: given.queries]

    wanted = [engine for engine in ENGINES if engine.name in given.engines]
    for engine in wanted:
        if not engine.available():
            print(f"{engine.name} is not installed: left out", file=sys.stderr)
    engines = [Process(engine, options) for engine in wanted if engine.available()]
    limits = [Process(limit, options) for limit in LIMITS if given.limits]

    differences = compare(engines, documents[:32] + queries[:32])
    rates, memory_over_time = encode_in_turns(engines, limits, documents, given.rounds)
    latencies = query_in_turns(engines, queries)
    report = {
        "benchmark": "encoding",
        "machine": machine(given.device, given.threads),
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in vars(given).items()},
        "largest_difference": differences,
        "documents_per_second": rates,
        "query_milliseconds": latencies,
        "memory": {process.name: process.memory() for process in engines},
        "resident_mib_after_each_round": memory_over_time,
    }
    print_report(report)
    if given.json is not None:
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    for process in engines + limits:
        process.stop()


def compare(engines: list[Process], texts: list[str]) -> dict[str, float]:
    """Hold the engines' vectors against those of the first one."""
    first, *others = [(process.name, process.call("encode", texts)) for process in engines]
    if any(len(terms) == 0 for terms, _ in first[1]):
        raise SystemExit("a text has no terms: such vectors compare nothing")
    return {name: largest_difference(first[1], vectors) for name, vectors in others}


def encode_in_turns(
    engines: list[Process], limits: list[Process], documents: list[str], rounds: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return documents per second of every process, and the resident memory of the engines after each round."""
    spent = {process.name: 0.0 for process in engines + limits}
    resident: dict[str, list[float]] = {process.name: [] for process in engines}
    for process in engines + limits:
        process.call("timed", documents[:8])
    for number in range(rounds):
        portion = documents[number::rounds]
        for process in engines + limits:
            time.sleep(0.2)
            spent[process.name] += process.call("timed", portion)
        for process in engines:
            resident[process.name].append(process.memory().get("rss_mib", 0.0))
    return {name: len(documents) / total for name, total in spent.items()}, resident


def query_in_turns(engines: list[Process], queries: list[str]) -> dict[str, dict[str, float]]:
    """Return the mean and median milliseconds of single queries."""
    latencies: dict[str, list[float]] = {process.name: [] for process in engines}
    for process in engines:
        process.call("latencies", queries[:10])
    for start in range(0, len(queries), 20):
        for process in engines:
            time.sleep(0.05)
            latencies[process.name] += process.call("latencies", queries[start : start + 20])
    return {
        name: {"mean": 1000 * statistics.mean(found), "median": 1000 * statistics.median(found)}
        for name, found in latencies.items()
        if found
    }


def print_report(report: dict[str, Any]) -> None:
    """Print the tables that a reader wants."""
    rates, memory, latencies = report["documents_per_second"], report["memory"], report["query_milliseconds"]
    ours = rates.get(Splade.name)
    print(f"\n{report['machine']}\n")
    for name, difference in report["largest_difference"].items():
        print(f"largest difference of a weight, {Splade.name} and {name}: {difference:.1e}")
    rows = []
    for name, rate in rates.items():
        ratio = "" if ours is None else f"{ours / rate:.2f} x"
        peak = f"{memory[name]['peak_mib']:,.0f}" if "peak_mib" in memory.get(name, {}) else ""
        gpu = f"{memory[name]['gpu_peak_mib']:,.0f}" if "gpu_peak_mib" in memory.get(name, {}) else ""
        rows.append([name, rate, ratio, peak, gpu])
    print("\n" + table(["documents", "per second", "ours / its", "peak MiB", "GPU MiB"], rows))
    first = latencies.get(Splade.name)
    rows = [
        [
            name,
            found["mean"],
            found["median"],
            1000 / found["mean"],
            "" if first is None else f"{found['mean'] / first['mean']:.2f} x",
        ]
        for name, found in latencies.items()
    ]
    print("\n" + table(["single queries", "mean ms", "median ms", "per second", "ours / its"], rows))
    for name, resident in report["resident_mib_after_each_round"].items():
        print(f"\n{name}: resident MiB after each round: {', '.join(f'{value:,.0f}' for value in resident)}")


if __name__ == "__main__":
    main()
