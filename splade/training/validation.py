"""What is measured while training: the loss on held-out examples, and retrieval on a validation collection."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from splade.datasets.collections import TextCollection
from splade.evaluation.metrics import evaluate_run
from splade.models.splade import Splade
from splade.pipeline import Retriever, index_collection
from splade.progress import progress


@dataclass(frozen=True)
class FullRankingData:
    """A small collection on which validation retrieves.

    Attributes:
        documents: the documents.
        queries: (query_id, text) of the judged queries.
        qrels: judgements.
        top_k: documents retrieved per query.
        metrics: names of the metrics.
    """

    documents: TextCollection
    queries: Sequence[tuple[str, str]]
    qrels: dict[str, dict[str, int]]
    top_k: int
    metrics: Sequence[str]


class Validation:
    """Measures a model. Either part may be absent.

    Args:
        held_out: examples for the validation loss.
        collator: tokenises them.
        full_ranking: data for validation by retrieval.
        max_length: tokens per text.
        batch_size: texts or examples per batch.
    """

    def __init__(
        self, held_out: Any, collator: Any, full_ranking: FullRankingData | None, max_length: int, batch_size: int
    ):
        self.held_out = held_out
        self.collator = collator
        self.full_ranking = full_ranking
        self.max_length = max_length
        self.batch_size = batch_size

    def __call__(self, model: Splade, objective: Any) -> dict[str, float]:
        """Return `loss` and its terms, and the full-ranking metrics with mean terms per query and document.

        The regularisers have their final weight in `loss`, whatever it is in training at the time: otherwise the loss
        would grow with the weight, and the best checkpoint would be an early one.
        """
        values = self._loss(model, objective) if self.held_out is not None else {}
        return values | (self._ranking(model, self.full_ranking) if self.full_ranking is not None else {})

    @torch.no_grad()
    def _loss(self, model: Splade, objective: Any) -> dict[str, float]:
        device = next(model.parameters()).device
        sums: dict[str, float] = {}
        for start in progress(range(0, len(self.held_out), self.batch_size), "validation loss", unit="batch"):
            rows = range(start, min(start + self.batch_size, len(self.held_out)))
            batch = to_device(self.collator([self.held_out[row] for row in rows]), device)
            loss, terms = objective(model, batch, step=math.inf, gather=False)
            for name, value in (terms | {"loss": loss}).items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(rows)
        return {name: total / len(self.held_out) for name, total in sums.items()}

    def _ranking(self, model: Splade, data: FullRankingData) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="splade-validation-") as folder:
            index = index_collection(model, data.documents, Path(folder), self.max_length, self.batch_size)
            retriever = Retriever(model, index, self.max_length, self.batch_size, data.top_k)
            run = dict(retriever.run(data.queries))
            found = {query_id: scores for query_id, scores in run.items() if scores}
            if not found:  # a collapsed model retrieves nothing at all: that is a score of zero, not a mistake of files
                return dict.fromkeys(data.metrics, 0.0)
            means = evaluate_run(run, data.qrels, data.metrics).means
            stats = retriever.stats()
            costs = {"ranking_L0_q": stats.L0_q, "ranking_L0_d": index.mean_terms, "ranking_flops": stats.flops}
        return dict(means) | costs


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors of a nested batch to a device."""
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    return batch.to(device)
