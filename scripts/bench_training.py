"""Train on the same triplets with this toolkit, sentence-transformers and the textbook formula, in one run.

    python scripts/bench_training.py --beir data/beir/scifact --triplets 16 --max-length 128 [--json FILE]
    python scripts/bench_training.py --beir data/beir/scifact --memory-limit 4096    # largest batch in so many MiB

All start from the same weights, see the same batches, use the same AdamW and the same loss (in-batch negatives with
FLOPS on queries and on documents; dropout off), and the losses of every step are compared. sentence-transformers runs
its own trainer with SpladeLoss; the others a plain loop. With `--memory-limit` the address space of a process is
limited and the batch doubled until a step fails.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench_common import MEBIBYTE, Engine, Process, default_device, installed, machine, read_beir_texts, seconds, table

Triplets = list[tuple[str, str, str]]


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


class TrainingEngine(Engine):
    """A model in training."""

    def __init__(self, options: Options) -> None:
        import torch

        from splade.models.hub import model_folder

        torch.manual_seed(0)
        torch.set_num_threads(options.threads)
        self.options = options
        self.folder = str(model_folder(options.model))
        self.load()
        if options.memory_limit_mib is not None:
            limit_memory(options.memory_limit_mib)

    def load(self) -> None:
        """Load the model, without dropout."""
        raise NotImplementedError

    def train(self, batches: list[Triplets]) -> tuple[list[float], list[float]]:
        """Take one step per batch; return the seconds and the loss of each."""
        raise NotImplementedError


class PlainLoop(TrainingEngine):
    """Forward, loss, backward, AdamW step."""

    def load(self) -> None:  # noqa: D102
        import torch
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        model = AutoModelForMaskedLM.from_pretrained(self.folder, **without_dropout(self.folder))
        self.model = model.to(self.options.device).train()
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.encoder = self.make_encoder()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.options.lr, weight_decay=0.0)

    def make_encoder(self) -> Any:
        """Return a function (input_ids, attention_mask) -> (batch, vocabulary) weights."""
        raise NotImplementedError

    def train(self, batches: list[Triplets]) -> tuple[list[float], list[float]]:  # noqa: D102
        timed = [seconds(lambda batch=batch: self.step(batch), self.options.device) for batch in batches]
        return [duration for duration, _ in timed], [float(loss) for _, loss in timed]

    def step(self, batch: Triplets) -> Any:
        """Take one step and return the loss."""
        import torch

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

    def vectors(self, texts: Sequence[str]) -> Any:
        """Encode a batch for training."""
        inputs = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.options.max_length, return_tensors="pt"
        ).to(self.options.device)
        return self.encoder(inputs["input_ids"], inputs["attention_mask"])

    def loss(self, query_vectors: Any, document_vectors: Any) -> Any:
        """Return in-batch cross-entropy over all documents of the batch, plus FLOPS."""
        import torch

        from splade.losses import flops_loss

        scores = query_vectors @ document_vectors.t()
        ranking = torch.nn.functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))
        options = self.options
        return ranking + options.lambda_q * flops_loss(query_vectors) + options.lambda_d * flops_loss(document_vectors)


class Splade(PlainLoop):
    """This toolkit's head."""

    name = "splade"

    def make_encoder(self) -> Any:  # noqa: D102
        from splade.models.masked_lm import MaskedLMEncoder

        return MaskedLMEncoder(self.model)


class Textbook(PlainLoop):
    """The formula as it is written: all logits, activation, mask, maximum."""

    name = "textbook formula"

    def make_encoder(self) -> Any:  # noqa: D102
        import torch

        def encode(input_ids: Any, attention_mask: Any) -> Any:
            logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
            weights = torch.log1p(torch.relu(logits)) * attention_mask.unsqueeze(-1)
            return weights.max(dim=1).values

        return encode


class SentenceTransformers(TrainingEngine):
    """SparseEncoderTrainer of sentence-transformers with SpladeLoss."""

    name = "sentence-transformers"

    @staticmethod
    def available() -> bool:  # noqa: D102
        return installed("sentence_transformers") and installed("datasets")

    def load(self) -> None:  # noqa: D102
        from sentence_transformers import SparseEncoder
        from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer

        transformer = Transformer(self.folder, transformer_task="fill-mask", config_kwargs=without_dropout(self.folder))
        self.model = SparseEncoder(modules=[transformer, SpladePooling()], device=self.options.device)
        self.model.max_seq_length = self.options.max_length

    def train(self, batches: list[Triplets]) -> tuple[list[float], list[float]]:  # noqa: D102
        from datasets import Dataset
        from sentence_transformers import SparseEncoderTrainer, SparseEncoderTrainingArguments
        from sentence_transformers.sparse_encoder.callbacks.splade_callbacks import (
            SpladeRegularizerWeightSchedulerCallback as Schedule,
        )
        from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
        from torch.utils.data import SequentialSampler
        from transformers import TrainerCallback

        options = self.options
        durations: list[float] = []
        losses: list[float] = []

        class Clock(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                self.start = time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                durations.append(seconds(lambda: None, options.device)[0] + time.perf_counter() - self.start)

            def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **__: Any) -> None:
                if "loss" in logs:
                    losses.append(logs["loss"])

        class ConstantWeights(Schedule):
            def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
                self.warmup_steps = 0
                super().on_step_begin(*args, **kwargs)

        class InOrder(SparseEncoderTrainer):
            def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> Any:
                from sentence_transformers.sampler import DefaultBatchSampler

                return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)

        columns = zip(*[triplet for batch in batches for triplet in batch], strict=True)
        dataset = Dataset.from_dict(dict(zip(("anchor", "positive", "negative"), columns, strict=True)))
        base = SparseMultipleNegativesRankingLoss(self.model)
        loss = SpladeLoss(
            self.model, base, document_regularizer_weight=options.lambda_d, query_regularizer_weight=options.lambda_q
        )
        with tempfile.TemporaryDirectory() as folder:
            arguments = SparseEncoderTrainingArguments(
                folder,
                per_device_train_batch_size=len(batches[0]),
                max_steps=len(batches),
                learning_rate=options.lr,
                weight_decay=0.0,
                lr_scheduler_type="constant",
                bf16=options.dtype == "bf16",
                use_cpu=options.device == "cpu",
                logging_steps=1,
                logging_nan_inf_filter=False,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            callbacks = [ConstantWeights(loss), Clock()]
            trainer = InOrder(self.model, arguments, train_dataset=dataset, loss=loss, callbacks=callbacks)
            trainer.train()
        return durations, losses


ENGINES = [Splade, SentenceTransformers, Textbook]


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beir", type=Path, default=Path("data/beir/scifact"), help="folder of a BEIR data set")
    parser.add_argument("--model", default="pkg://cognition/model", help="hub name, folder or pkg://package/path")
    parser.add_argument("--triplets", type=int, default=16, help="triplets of a batch")
    parser.add_argument("--steps", type=int, default=3, help="steps in each round; the first of a process is not timed")
    parser.add_argument("--rounds", type=int, default=2, help="rounds in which the engines take turns")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--queries", choices=["documents", "short"], default="documents", help="see make_batches")
    parser.add_argument("--dtype", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--lambda-q", type=float, default=5e-4)
    parser.add_argument("--lambda-d", type=float, default=3e-4)
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--engines", nargs="+", default=[engine.name for engine in ENGINES], help="which engines")
    parser.add_argument("--memory-limit", type=int, help="find the largest batch within so many MiB instead")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args(arguments)


def make_batches(given: argparse.Namespace, triplets: int, batches: int) -> list[list[Triplets]]:
    """Make triplets of real texts.

    With `documents` as queries, all three texts of a triplet are documents, long enough to fill `max_length`: the
    largest work that a batch of this shape can be. With `short`, queries are the data set's.
    """
    documents, queries = read_beir_texts(given.beir)
    queries = documents[::-1] if given.queries == "documents" else queries

    def triplet(i: int) -> tuple[str, str, str]:
        return queries[i % len(queries)], documents[2 * i % len(documents)], documents[(2 * i + 1) % len(documents)]

    made = [triplet(i) for i in range(triplets * batches)]
    return [made[start : start + triplets] for start in range(0, len(made), triplets)]


def main() -> None:
    """Compare, time and report."""
    given = parse_arguments()
    options = Options(
        given.model,
        given.max_length,
        given.threads,
        given.device,
        given.dtype,
        given.lambda_q,
        given.lambda_d,
        given.lr,
    )
    wanted = [engine for engine in ENGINES if engine.name in given.engines]
    for engine in wanted:
        if not engine.available():
            print(f"{engine.name} is not installed: left out", file=sys.stderr)
    available = [engine for engine in wanted if engine.available()]
    report: dict[str, Any] = {
        "benchmark": "training",
        "machine": machine(given.device, given.threads),
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in vars(given).items()},
    }
    if given.memory_limit is None:
        report |= train_in_turns(available, options, given)
    else:
        limited = replace(options, memory_limit_mib=given.memory_limit)
        report["largest_batch"] = {engine.name: largest_batch(engine, limited, given) for engine in available}
    print_report(report)
    if given.json is not None:
        given.json.write_text(json.dumps(report, indent=2) + "\n")


def train_in_turns(available: list[type[Engine]], options: Options, given: argparse.Namespace) -> dict[str, Any]:
    """Return the step times, losses and peak memory of every engine."""
    processes = [Process(engine, options) for engine in available]
    batches = make_batches(given, given.triplets, given.steps * given.rounds)
    durations: dict[str, list[float]] = {process.name: [] for process in processes}
    losses: dict[str, list[float]] = {process.name: [] for process in processes}
    for number in range(given.rounds):
        portion = batches[number * given.steps : (number + 1) * given.steps]
        for process in processes:
            time.sleep(0.2)
            took, found = process.call("train", portion)
            durations[process.name] += took
            losses[process.name] += found
    memory = {process.name: process.memory() for process in processes}
    for process in processes:
        process.stop()
    return {
        "step_seconds": {name: statistics.median(took[1:]) for name, took in durations.items()},
        "all_step_seconds": durations,
        "losses": losses,
        "memory": memory,
    }


def largest_batch(engine: type[Engine], options: Options, given: argparse.Namespace) -> int:
    """Double the batch, each time in a new process, until a step does not fit into memory."""
    fits, triplets = 0, 1
    while True:
        process = None
        try:
            process = Process(engine, options)
            process.call("train", make_batches(given, triplets, 1))
        except SystemExit as reason:
            print(f"{engine.name}: {triplets} triplets do not fit: {str(reason)[:120]}")
            return fits
        finally:
            if process is not None:
                process.stop()
        fits, triplets = triplets, 2 * triplets


def print_report(report: dict[str, Any]) -> None:
    """Print the tables that a reader wants."""
    print(f"\n{report['machine']}\n")
    if "largest_batch" in report:
        limit = f"in {report['options']['memory_limit']:,} MiB"
        print(table([f"largest batch {limit}", "triplets"], [[n, str(t)] for n, t in report["largest_batch"].items()]))
        return
    losses, memory, steps = report["losses"], report["memory"], report["step_seconds"]
    ours = next(iter(steps))
    for name in list(losses)[1:]:
        worst = max(abs(a - b) for a, b in zip(losses[ours], losses[name], strict=True))
        print(f"largest difference of a step's loss, {ours} and {name}: {worst:.1e} (losses {losses[name][0]:.4f} ...)")
    rows = []
    for name, step in steps.items():
        peak, our_peak = memory[name].get("peak_mib", 0.0), memory[ours].get("peak_mib", 0.0)
        share = f"{100 * our_peak / peak:.0f} %" if peak else ""
        gpu = f"{memory[name]['gpu_peak_mib']:,.0f}" if "gpu_peak_mib" in memory[name] else ""
        rows.append([name, step, f"{step / steps[ours]:.2f} x", f"{peak:,.0f}", share, gpu])
    print("\n" + table(["training step", "seconds", "its / ours", "peak MiB", "ours / its", "GPU MiB"], rows))


if __name__ == "__main__":
    main()
