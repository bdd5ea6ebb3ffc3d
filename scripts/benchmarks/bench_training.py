"""Train on the same triplets with this toolkit, sentence-transformers and the textbook formula, in one run.

    python scripts/benchmarks/bench_training.py                                      # the texts of data/toy
    python scripts/benchmarks/bench_training.py --beir data/beir/scifact             # the full figures
    python scripts/benchmarks/bench_training.py --beir data/beir/scifact --memory-limit 4096
    python scripts/benchmarks/bench_training.py --random 12 768 --triplets 4 --steps 2 --rounds 2 \
        --engines splade "splade bf16" sentence-transformers

The third one finds the largest batch that trains in so many MiB, the last one tells what bfloat16 gives a model of real
size. `pip install sentence-transformers datasets` for that
engine. All start from the same weights, see the same batches, use the same AdamW and the same loss (in-batch negatives
with FLOPS on queries and on documents; dropout off), and the losses of every step are compared. sentence-transformers
runs its own trainer with SpladeLoss; the others a plain loop. With `--memory-limit` the address space of a process is
limited and the batch doubled until a step fails.
"""

import argparse
import json
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import results
import torch
from bench_common import (
    MEBIBYTE,
    EngineProcess,
    Texts,
    add_text_options,
    choose,
    make_parser,
    read_texts,
    seconds,
    start,
)
from bench_encoding import random_model
from transformers import AutoModelForMaskedLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from splade.losses import flops_loss
from splade.models.hub import model_folder
from splade.models.masked_lm import MaskedLMEncoder

disable_progress_bar()

Triplets = list[tuple[str, str, str]]
VectorFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Options:
    """What every engine gets."""

    model: str
    max_length: int
    threads: int
    device: str
    dtype: str
    lambda_q: float
    lambda_d: float
    lr: float
    memory_limit_mib: int | None = None


class TrainingEngine(ABC):
    """A model in training."""

    name: ClassVar[str]
    needs: ClassVar[Sequence[str]] = ()
    install: ClassVar[str] = ""

    def __init__(self, options: Options) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(options.threads)
        self.options = options
        self.folder = str(model_folder(options.model))
        self.load()
        if options.memory_limit_mib is not None:
            limit_memory(options.memory_limit_mib)

    @abstractmethod
    def load(self) -> None:
        """Load the model, without dropout."""

    @abstractmethod
    def train(self, batches: list[Triplets]) -> tuple[list[float], list[float]]:
        """Take one step per batch, with a new optimiser; return the seconds and the loss of each."""


class PlainLoop(TrainingEngine):
    """Forward, loss, backward, AdamW step."""

    def load(self) -> None:  # noqa: D102
        model = AutoModelForMaskedLM.from_pretrained(self.folder, **without_dropout(self.folder))
        self.model = model.to(self.options.device).train()
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.encoder = self.make_encoder()

    @abstractmethod
    def make_encoder(self) -> VectorFunction:
        """Return a function (input_ids, attention_mask) -> (batch, vocabulary) weights."""

    def train(self, batches: list[Triplets]) -> tuple[list[float], list[float]]:  # noqa: D102
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.options.lr, weight_decay=0.0)
        timed = [seconds(partial(self.step, batch), self.options.device) for batch in batches]
        return [duration for duration, _ in timed], [float(loss) for _, loss in timed]

    def step(self, batch: Triplets) -> torch.Tensor:
        """Take one step and return the loss."""
        queries, positives, negatives = zip(*batch, strict=True)
        self.optimizer.zero_grad()
        with torch.autocast(self.options.device, dtype=torch.bfloat16, enabled=self.options.dtype == "bf16"):
            query_vectors = self.vectors(queries)
            document_vectors = self.vectors(positives + negatives)
        loss = self.loss(query_vectors, document_vectors)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()

    def vectors(self, texts: Sequence[str]) -> torch.Tensor:
        """Encode a batch for training."""
        inputs = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.options.max_length, return_tensors="pt"
        ).to(self.options.device)
        return self.encoder(inputs["input_ids"], inputs["attention_mask"])

    def loss(self, query_vectors: torch.Tensor, document_vectors: torch.Tensor) -> torch.Tensor:
        """Return in-batch cross-entropy over all documents of the batch, plus FLOPS."""
        scores = query_vectors @ document_vectors.t()
        ranking = torch.nn.functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))
        options = self.options
        return ranking + options.lambda_q * flops_loss(query_vectors) + options.lambda_d * flops_loss(document_vectors)


class Splade(PlainLoop):
    """This toolkit's head."""

    name = "splade"

    def make_encoder(self) -> VectorFunction:  # noqa: D102
        return MaskedLMEncoder(self.model)


class SpladeBf16(Splade):
    """The same under bfloat16 autocast."""

    name = "splade bf16"

    def load(self) -> None:  # noqa: D102
        self.options = replace(self.options, dtype="bf16")
        super().load()


class Textbook(PlainLoop):
    """The formula as it is written: all logits, activation, mask, maximum."""

    name = "textbook"

    def make_encoder(self) -> VectorFunction:  # noqa: D102
        def encode(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
            weights = torch.log1p(torch.relu(logits)) * attention_mask.unsqueeze(-1)
            return weights.max(dim=1).values

        return encode


class SentenceTransformers(TrainingEngine):
    """SparseEncoderTrainer of sentence-transformers with SpladeLoss."""

    name = "sentence-transformers"
    needs = ("sentence_transformers", "datasets")
    install = "sentence-transformers datasets"

    def load(self) -> None:  # noqa: D102
        from sentence_transformers import SparseEncoder
        from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer

        transformer = Transformer(self.folder, transformer_task="fill-mask", config_kwargs=without_dropout(self.folder))
        self.model = SparseEncoder(modules=[transformer, SpladePooling()], device=self.options.device)
        self.model.max_seq_length = self.options.max_length

    def train(self, batches: list[Triplets]) -> tuple[list[float], list[float]]:  # noqa: D102
        from sentence_transformers_training import train

        options = self.options
        weights = {"lambda_q": options.lambda_q, "lambda_d": options.lambda_d, "lr": options.lr}
        return train(self.model, batches, bf16=options.dtype == "bf16", device=options.device, **weights)


ENGINES: list[type[TrainingEngine]] = [Splade, SpladeBf16, SentenceTransformers, Textbook]


def without_dropout(folder: str) -> dict[str, float]:
    """Return the settings that switch dropout off in the model of a folder."""
    config = json.loads((Path(folder) / "config.json").read_text())
    return {key: 0.0 for key in config if "dropout" in key and isinstance(config[key], float)}


def limit_memory(mebibytes: int) -> None:
    """Let this process have at most so much address space beyond what it has now."""
    import resource

    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now = int(status["VmSize"].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (now + mebibytes * MEBIBYTE, resource.RLIM_INFINITY))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, ENGINES)
    parser.set_defaults(engines=[engine.name for engine in ENGINES if engine is not SpladeBf16])
    add_text_options(parser, max_length=128)
    parser.add_argument("--random", type=int, nargs=2, metavar=("LAYERS", "WIDTH"), help="a BERT of random weights")
    parser.add_argument("--triplets", type=int, default=16, help="triplets of a batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="steps in each round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds in which engines take turns (%(default)s)")
    parser.add_argument("--queries", choices=["documents", "short"], default="documents", help="see make_batches")
    parser.add_argument("--dtype", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--lambda-q", type=float, default=5e-4)
    parser.add_argument("--lambda-d", type=float, default=3e-4)
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--memory-limit", type=int, metavar="MIB", help="find the largest batch in so much memory")
    return parser.parse_args(arguments)


def make_batches(texts: Texts, queries: str, triplets: int, batches: int) -> list[Triplets]:
    """Make triplets of real texts.

    With `documents` as queries, all three texts of a triplet are documents, the largest work that a batch of this shape
    can be where documents fill `max_length`. With `short`, queries are the data set's.
    """
    documents = texts.documents
    anchors = documents[::-1] if queries == "documents" else texts.queries

    def triplet(i: int) -> tuple[str, str, str]:
        return anchors[i % len(anchors)], documents[2 * i % len(documents)], documents[(2 * i + 1) % len(documents)]

    made = [triplet(i) for i in range(triplets * batches)]
    return [made[first : first + triplets] for first in range(0, len(made), triplets)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the model if there is none, and measure."""
    given = parse_arguments(arguments)
    with TemporaryDirectory(prefix="bench-training-") as folder:
        called = given.model
        if given.random is not None:
            called = "a BERT of {} layers x {} with random weights".format(*given.random)
            given.model = random_model(given.model, *given.random, folder)
        measure(given, called)


def measure(given: argparse.Namespace, called: str) -> None:
    """Train with every engine, compare the losses, record the figures."""
    texts = read_texts(given.beir)
    entry = results.begin(given.threads, given.device)
    options = Options(
        *(given.model, given.max_length, given.threads, given.device),
        *(given.dtype, given.lambda_q, given.lambda_d, given.lr),
    )
    chosen = choose(ENGINES, given.engines)
    shape = f"triplets of {given.max_length} tokens, queries: {given.queries}, {given.dtype}, {called}"
    if given.memory_limit is None:
        setting = f"{texts.name}, {given.triplets} {shape}, {given.device}"
        entry |= train_in_turns(chosen, options, texts, given)
    else:
        setting = f"{texts.name}, largest batch in {given.memory_limit} MiB, {shape}, {given.device}"
        limited = replace(options, memory_limit_mib=given.memory_limit)
        largest = {engine.name: largest_batch(engine, limited, texts, given.queries) for engine in chosen}
        ours = largest[chosen[0].name]
        entry["largest_batch"] = [
            {"engine": name, "triplets": found, "ratio": ours / max(found, 1), "load": results.load()}
            for name, found in largest.items()
        ]
    results.save(given.results, "training", setting, entry)


def train_in_turns(
    chosen: list[type[TrainingEngine]], options: Options, texts: Texts, given: argparse.Namespace
) -> dict[str, Any]:
    """Return a row for every engine, and the largest difference of any step's loss from the first engine's.

    `ratio` is how many times as fast the first engine is, by the medians; the first step of an engine is not timed.
    """
    workers = [start(engine, options, given.one_process) for engine in chosen]
    batches = make_batches(texts, given.queries, given.triplets, given.steps * given.rounds)
    durations: dict[str, list[float]] = {worker.name: [] for worker in workers}
    losses: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for number in range(given.rounds):
        portion = batches[number * given.steps : (number + 1) * given.steps]
        for worker in workers:
            time.sleep(0.2)
            took, found = worker.call("train", portion)
            durations[worker.name] += took
            losses[worker.name] += found
    steps = {name: statistics.median(took[1:]) for name, took in durations.items()}
    ours = workers[0].name
    rows = [
        {"engine": worker.name, "step_s": steps[worker.name], "ratio": steps[worker.name] / steps[ours]}
        | {"all_steps_s": [round(step, 4) for step in durations[worker.name]]}
        | {"load": results.load(), **worker.memory()}
        for worker in workers
    ]
    for worker in workers:
        worker.stop()
    differences = {
        name: max(abs(a - b) for a, b in zip(losses[ours], found, strict=True))
        for name, found in losses.items()
        if name != ours
    }
    return {"steps": rows, "largest_difference": differences}


def largest_batch(engine: type[TrainingEngine], options: Options, texts: Texts, queries: str) -> int:
    """Double the batch, each time in a new process, until a step does not fit into memory."""
    fits, triplets = 0, 1
    while True:
        process = None
        try:
            process = EngineProcess(engine, options)
            process.call("train", make_batches(texts, queries, triplets, 1))
        except SystemExit as reason:
            print(f"{engine.name}: {triplets} triplets do not fit: {str(reason)[:120]}")
            return fits
        finally:
            if process is not None:
                process.stop()
        fits, triplets = triplets, 2 * triplets


if __name__ == "__main__":
    main()
