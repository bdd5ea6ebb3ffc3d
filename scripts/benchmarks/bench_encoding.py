"""Encode the same texts with this toolkit, sentence-transformers and the textbook formula, in one run.

    python scripts/benchmarks/bench_encoding.py                                        # the texts of data/toy
    python scripts/benchmarks/bench_encoding.py --beir data/beir/scifact               # the full figures
    python scripts/benchmarks/bench_encoding.py --beir data/beir/scifact --docs 5000 --engines splade --no-limits
    python scripts/benchmarks/bench_encoding.py --beir data/beir/scifact --docs 48 --queries 48 --random 12 768 \
        --engines splade "splade bf16" "splade int8" "splade onnx int8" sentence-transformers --no-limits

The third one tells whether memory stays flat, the last one how a model of real size fares. `pip install
sentence-transformers` for that engine. Vectors are compared before anything is timed. Two limits stand beside the
engines: the bare matrix product of the same number of tokens with the output embedding, without padding and without
anything before or after it, once for the whole vocabulary with as many tokens as a passage has, and once in pieces that
fit the cache, as fast as the machine can.
"""

import argparse
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np
import results
import torch
from bench_common import Encoder, Worker, add_text_options, choose, make_parser, read_texts, seconds, start
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM
from transformers.utils.logging import disable_progress_bar

from splade.models.exported_backbone import Backend
from splade.models.hub import model_folder
from splade.models.low_precision import Precision
from splade.vectors import SparseVectors

disable_progress_bar()

RANDOM_THRESHOLD = 4.0
"""Standard deviations of a random logit above which it counts."""


@dataclass(frozen=True)
class Options:
    """What every engine gets."""

    model: str
    max_length: int
    batch_size: int
    threads: int
    device: str


class EncodingEngine(ABC):
    """A model that encodes texts."""

    name: ClassVar[str]
    needs: ClassVar[Sequence[str]] = ()
    install: ClassVar[str] = ""

    def __init__(self, options: Options) -> None:
        torch.set_num_threads(options.threads)
        self.options = options
        self.folder = str(model_folder(options.model))
        self.load()

    @abstractmethod
    def load(self) -> None:
        """Load the model and its tokenizer."""

    @abstractmethod
    def encode(self, texts: list[str]) -> SparseVectors:
        """Return the vectors of the texts."""

    def encode_query(self, text: str) -> object:
        """Encode one text; in whatever form the engine returns it."""
        return self.encode([text])

    def timed(self, texts: list[str]) -> float:
        """Return the seconds that encoding takes."""
        return seconds(lambda: self.encode(texts), self.options.device)[0]

    def latencies(self, queries: list[str]) -> list[float]:
        """Return the seconds that each query takes, one at a time."""
        return [seconds(partial(self.encode_query, query), self.options.device)[0] for query in queries]


class Splade(EncodingEngine):
    """This toolkit."""

    name = "splade"
    precision: ClassVar[Precision] = "fp32"
    backend: ClassVar[Backend] = "torch"

    def load(self) -> None:  # noqa: D102
        options = self.options
        sizes = options.max_length, options.batch_size, options.device
        self.encoder = Encoder(options.model, *sizes, self.precision, self.backend)

    def encode(self, texts: list[str]) -> SparseVectors:  # noqa: D102
        return self.encoder.encode(texts)

    def encode_query(self, text: str) -> object:  # noqa: D102
        return self.encoder.encode_query(text)


class SpladeBf16(Splade):
    """This toolkit with linear layers in bfloat16."""

    name = "splade bf16"
    precision = "bf16"


class SpladeInt8(Splade):
    """This toolkit with linear layers in 8 bits."""

    name = "splade int8"
    precision = "int8"


class SpladeOnnx(Splade):
    """This toolkit with the backbone in ONNX Runtime."""

    name = "splade onnx"
    needs = ("onnxruntime", "onnxscript")
    install = "'splade[onnx]'"
    backend = "onnx"


class SpladeOnnxInt8(SpladeOnnx):
    """The same, in 8 bits."""

    name = "splade onnx int8"
    precision = "int8"


class SpladeOpenvinoBf16(Splade):
    """This toolkit with the backbone in OpenVINO, in bfloat16."""

    name = "splade openvino bf16"
    needs = ("openvino", "onnxscript")
    install = "'splade[openvino]'"
    backend = "openvino"
    precision = "bf16"


class SentenceTransformers(EncodingEngine):
    """The SparseEncoder of sentence-transformers."""

    name = "sentence-transformers"
    needs = ("sentence_transformers",)
    install = "sentence-transformers"

    def load(self) -> None:  # noqa: D102
        from sentence_transformers import SparseEncoder
        from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer

        transformer = Transformer(self.folder, transformer_task="fill-mask")
        self.model = SparseEncoder(modules=[transformer, SpladePooling()], device=self.options.device)
        self.model.max_seq_length = self.options.max_length

    def encode(self, texts: list[str]) -> SparseVectors:  # noqa: D102
        matrix = self.model.encode_document(texts, batch_size=self.options.batch_size, show_progress_bar=False)
        matrix = matrix.cpu().coalesce()
        (rows, terms), weights = matrix.indices().numpy(), matrix.values().numpy()
        return from_entries(rows, terms, weights, tuple(matrix.shape))

    def encode_query(self, text: str) -> object:  # noqa: D102
        vector = self.model.encode_query(text, show_progress_bar=False).cpu().coalesce()
        return vector.indices()[-1].numpy(), vector.values().numpy()


class Textbook(EncodingEngine):
    """The formula as it is written: all logits, activation, mask, maximum; texts sorted by length."""

    name = "textbook"

    def load(self) -> None:  # noqa: D102
        self.model = AutoModelForMaskedLM.from_pretrained(self.folder).to(self.options.device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)

    def encode(self, texts: list[str]) -> SparseVectors:  # noqa: D102
        parts = []
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        size = self.options.batch_size
        for batch in (order[first : first + size] for first in range(0, len(order), size)):
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
                found = weights.max(dim=1).values.cpu().to_sparse()
            (rows, terms), values = found.indices().numpy(), found.values().numpy()
            parts.append(from_entries(rows, terms, values, tuple(found.shape)))
        return SparseVectors.concatenate(parts, parts[0].vocab_size).take(np.argsort(order))


class MatrixProduct(EncodingEngine):
    """The product of the same tokens with the output embedding, and nothing else."""

    name = "bare matrix product"
    tokens_at_once = 256
    terms_at_once: int | None = None

    def load(self) -> None:  # noqa: D102
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        weight = AutoModelForMaskedLM.from_pretrained(self.folder).get_output_embeddings().weight
        self.weight = weight.detach().to(self.options.device)
        terms_at_once = self.terms_at_once or len(self.weight)
        self.pieces = self.weight.split(terms_at_once)
        self.hidden = torch.randn(self.tokens_at_once, self.weight.shape[1], device=self.options.device)
        self.out = torch.empty(self.tokens_at_once, terms_at_once, device=self.options.device)

    def encode(self, texts: list[str]) -> SparseVectors:  # noqa: D102
        raise NotImplementedError("a limit encodes nothing")

    def timed(self, texts: list[str]) -> float:  # noqa: D102
        rows = self.tokenizer(texts, truncation=True, max_length=self.options.max_length)["input_ids"]
        return seconds(lambda: self._multiply(sum(len(row) for row in rows)), self.options.device)[0]

    def _multiply(self, tokens: int) -> None:
        for first in range(0, tokens, self.tokens_at_once):
            hidden = self.hidden[: min(self.tokens_at_once, tokens - first)]
            for piece in self.pieces:
                out = self.out.flatten()[: len(hidden) * len(piece)].view(len(hidden), len(piece))
                torch.mm(hidden, piece.t(), out=out)


class CachedProduct(MatrixProduct):
    """The same product in pieces that fit the cache."""

    name = "bare product in pieces"
    tokens_at_once = 1024
    terms_at_once = 512


OTHER_WAYS: list[type[EncodingEngine]] = [SpladeBf16, SpladeInt8, SpladeOnnx, SpladeOnnxInt8, SpladeOpenvinoBf16]
ENGINES: list[type[EncodingEngine]] = [Splade, *OTHER_WAYS, SentenceTransformers, Textbook]
LIMITS: list[type[EncodingEngine]] = [MatrixProduct, CachedProduct]


def from_entries(rows: np.ndarray, terms: np.ndarray, weights: np.ndarray, shape: tuple[int, ...]) -> SparseVectors:
    """Make vectors of the sorted coordinates of a sparse (n, vocabulary) matrix."""
    indptr = np.zeros(shape[0] + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=shape[0]), out=indptr[1:])
    return SparseVectors(indptr, terms.astype(np.int32), weights.astype(np.float32), shape[1])


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, ENGINES)
    parser.set_defaults(engines=[engine.name for engine in ENGINES if engine not in OTHER_WAYS])
    add_text_options(parser, max_length=256)
    parser.add_argument("--docs", type=int, default=512, help="how many documents (%(default)s)")
    parser.add_argument("--queries", type=int, default=200, help="how many single queries (%(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="portions in which engines take turns (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="texts encoded at once (%(default)s)")
    parser.add_argument("--random", type=int, nargs=2, metavar=("LAYERS", "WIDTH"), help="a BERT of random weights")
    parser.add_argument("--limits", action=argparse.BooleanOptionalAction, default=True, help="time the bare products")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the model if there is none, and measure."""
    given = parse_arguments(arguments)
    with TemporaryDirectory(prefix="bench-encoding-") as folder:
        called = given.model
        if given.random is not None:
            called = "a BERT of {} layers x {} with random weights".format(*given.random)
            given.model = random_model(given.model, *given.random, folder)
        measure(given, called)


def random_model(model: str, layers: int, width: int, folder: str) -> str:
    """Save a BERT of random weights with the vocabulary of `model`, sparse enough to be like a trained one."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(model_folder(model)))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width,
    )
    made = BertForMaskedLM(config)
    with torch.no_grad():
        made.cls.predictions.bias -= RANDOM_THRESHOLD * width**0.5 * config.initializer_range
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measure(given: argparse.Namespace, called: str) -> None:
    """Compare the vectors, time the engines, record the figures."""
    texts = read_texts(given.beir)
    documents, queries = texts.documents[: given.docs], texts.queries[: given.queries]
    entry = results.begin(given.threads, given.device)
    options = Options(given.model, given.max_length, given.batch_size, given.threads, given.device)
    engines = [start(engine, options, given.one_process) for engine in choose(ENGINES, given.engines)]
    limits = [start(limit, options, given.one_process) for limit in LIMITS if given.limits]

    entry["largest_difference"] = compare(engines, documents[:32] + queries[:32])
    entry["documents"] = encode_in_turns(engines, limits, documents, given.rounds)
    entry["queries"] = query_in_turns(engines, queries)
    for worker in engines + limits:
        worker.stop()
    setting = f"{texts.name}, {len(documents)} documents of at most {given.max_length} tokens in batches of "
    setting += f"{given.batch_size}, {len(queries)} single queries, {called}, {given.device}"
    results.save(given.results, "encoding", setting, entry)


def compare(engines: list[Worker], texts: list[str]) -> dict[str, float]:
    """Return the largest absolute difference between any weight of the first engine and of each other one."""
    first, *others = [(worker.name, worker.call("encode", texts)) for worker in engines]
    if (first[1].lengths == 0).any():
        raise SystemExit("a text has no terms: such vectors compare nothing")
    expected = first[1].to_dense()
    return {name: float(np.abs(expected - vectors.to_dense()).max()) for name, vectors in others}


def encode_in_turns(
    engines: list[Worker], limits: list[Worker], documents: list[str], rounds: int
) -> list[dict[str, object]]:
    """Return a row for every engine and limit; `ratio` is how many times as fast the first engine is."""
    workers = engines + limits
    spent = {worker.name: 0.0 for worker in workers}
    resident: dict[str, list[float]] = {worker.name: [] for worker in engines}
    for worker in workers:
        worker.call("timed", documents[:8])
    for number in range(rounds):
        for worker in workers:
            time.sleep(0.2)
            spent[worker.name] += worker.call("timed", documents[number::rounds])
        for worker in engines:
            resident[worker.name].append(round(worker.memory().get("rss_mib", 0.0), 1))
    ours = spent[workers[0].name]
    rows: list[dict[str, object]] = []
    for worker in workers:
        row: dict[str, object] = {"engine": worker.name, "per_second": len(documents) / spent[worker.name]}
        row |= {"ratio": spent[worker.name] / ours, "load": results.load()}
        if worker.name in resident:
            row |= {"resident_mib": resident[worker.name], **worker.memory()}
        rows.append(row)
    return rows


def query_in_turns(engines: list[Worker], queries: list[str]) -> list[dict[str, object]]:
    """Return a row for every engine; `ratio` is how many times as fast the first engine is, by the means."""
    latencies: dict[str, list[float]] = {worker.name: [] for worker in engines}
    for worker in engines:
        worker.call("latencies", queries[:10])
    for first in range(0, len(queries), 20):
        for worker in engines:
            time.sleep(0.05)
            latencies[worker.name] += worker.call("latencies", queries[first : first + 20])
    means = {name: 1000 * statistics.mean(found) for name, found in latencies.items()}
    ours = means[engines[0].name]
    return [
        {"engine": name, "mean_ms": means[name], "median_ms": 1000 * statistics.median(found)}
        | {"ratio": means[name] / ours, "load": results.load()}
        for name, found in latencies.items()
    ]


if __name__ == "__main__":
    main()
