"""What is measured while training: the loss on held-out examples, and retrieval on a validation collection."""

import logging
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from splade.datasets.dataset import Dataset
from splade.distributed import gather, n_processes, on_first_process, process_rank, shard_range
from splade.encoding.sparse_model import SparseModel
from splade.errors import CollapseError, DataError
from splade.evaluation.protocols import TrecProtocol
from splade.models.masked_lm import MaskedLMEncoder
from splade.models.splade import Splade
from splade.progress import progress
from splade.retrieval.collection_index import Index
from splade.retrieval.evaluate_retriever import evaluate_retriever
from splade.retrieval.sparse import SparseRetriever
from splade.training.collator import BatchMaker
from splade.training.objective import RegularizedObjective
from splade.training.sampler import HeldOut

TEXTS_AT_ONCE = 128  # through the model on a CPU: published batches are those of large GPUs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FullRankingData:
    """Documents, judged queries and their qrels on which validation retrieves `top_k` documents per query."""

    dataset: Dataset
    protocol: TrecProtocol
    top_k: int


class Validation:
    """Measures a model: the loss on held-out examples, and the metrics of a full ranking; either may be absent.

    Several processes share the examples, the documents and the queries; the first one searches.

    Args:
        held_out: examples for the loss.
        collator: makes batches of them.
        full_ranking: what is retrieved.
        max_length: tokens per text.
        batch_size: counts examples in the first, texts in the second.
        precision: of autocast in training; None: there is none.
        folder: where several machines can exchange files; None: all processes are on this one.
    """

    def __init__(
        self,
        held_out: HeldOut | None,
        collator: BatchMaker,
        full_ranking: FullRankingData | None,
        max_length: int,
        batch_size: int,
        precision: torch.dtype | None = None,
        folder: Path | None = None,
    ):
        self.held_out = held_out
        self.collator = collator
        self.full_ranking = full_ranking
        self.max_length = max_length
        self.batch_size = batch_size
        self.precision = precision
        self.folder = folder

    def __call__(self, model: nn.Module, objective: RegularizedObjective) -> dict[str, float]:
        """Return `loss` and its terms, and the full-ranking metrics with mean terms per query and document.

        The regularisers have their final weight in `loss`, whatever it is in training at the time: otherwise the loss
        would grow with the weight, and the best checkpoint would be an early one.
        """
        values = self._loss(model, objective, self.held_out) if self.held_out is not None else {}
        return values | (self._ranking(model, self.full_ranking) if self.full_ranking is not None else {})

    @torch.no_grad()
    def _loss(self, model: nn.Module, objective: RegularizedObjective, held_out: HeldOut) -> dict[str, float]:
        device = next(model.parameters()).device
        in_pieces = model
        if isinstance(model, Splade) and device.type == "cpu":
            in_pieces = _InPieces(model, TEXTS_AT_ONCE)
        starts = range(0, len(held_out), self.batch_size)
        share = shard_range(len(starts), process_rank(), n_processes())
        batches: list[dict[str, float]] = []
        for start in progress(starts[share.start : share.stop], "validation loss", unit="batch"):
            rows = range(start, min(start + self.batch_size, len(held_out)))
            batch = send_to_device(self.collator([held_out[row] for row in rows]), device)
            with torch.autocast(device.type, dtype=self.precision, enabled=self.precision is not None):
                loss, terms = objective(in_pieces, batch, step=math.inf, gather=False)
            batches.append({name: value.item() * len(rows) for name, value in (terms | {"loss": loss}).items()})
        every = list(chain.from_iterable(gather(batches)))
        return {name: sum(batch[name] for batch in every) / len(held_out) for name in every[0]}

    def _ranking(self, network: nn.Module, data: FullRankingData) -> dict[str, float]:
        assert isinstance(network, Splade), "nothing else is retrieved with"
        for encoder in (network.document_encoder, network.query_encoder):
            if isinstance(encoder, MaskedLMEncoder):
                encoder.precision = self.precision
        model = SparseModel(network, self.max_length, self.batch_size)
        with self._shared_folder() as folder:
            try:
                index = Index.build(folder, model, data.dataset.documents)
            except CollapseError as error:  # before training, perhaps; at its end this is an error
                logger.warning("validation counts as zero: %s", error)
                return dict.fromkeys(data.protocol.metrics, 0.0)
            retriever = SparseRetriever(model, index, n_threads=1)
            retriever.share(data.dataset.queries, data.top_k)
            return on_first_process(lambda: _metrics(retriever, data, folder / "run"))

    @contextmanager
    def _shared_folder(self) -> Iterator[Path]:
        """Make a folder for as long as the block runs, the same for all processes."""
        with ExitStack() as stack:
            name = ""
            if process_rank() == 0:
                made = tempfile.TemporaryDirectory(prefix="splade-validation-", dir=self.folder)
                name = stack.enter_context(made)
            yield Path(gather(name)[0])


def _metrics(retriever: SparseRetriever, data: FullRankingData, folder: Path) -> dict[str, float]:
    try:
        found = evaluate_retriever(retriever, data.dataset, data.protocol, data.top_k, folder)
    except DataError:
        costs = retriever.costs()
        if costs.n_empty_results != costs.n_queries:
            raise
        # A collapsed model retrieves nothing at all: that is a score of zero, not a mistake of files.
        return dict.fromkeys(data.protocol.metrics, 0.0)
    costs = found.costs
    known = {"ranking_L0_q": costs.L0_q, "ranking_L0_d": costs.L0_d, "ranking_flops": costs.flops}
    return found.metrics | {name: value for name, value in known.items() if value is not None}


class _InPieces(nn.Module):
    """A model that encodes a few texts of a batch after the others: the same vectors in less memory, without gradients.

    The loss still sees the whole batch.
    """

    def __init__(self, model: Splade, n_texts: int):
        super().__init__()
        self.model = model
        self.n_texts = n_texts

    def forward(self, queries: Mapping[str, Tensor], documents: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return what the model does."""
        encoders = (self.model.query_encoder, queries), (self.model.document_encoder, documents)
        query_vectors, document_vectors = (
            torch.cat([encoder(*piece) for piece in zip(*self._pieces(texts), strict=True)])
            for encoder, texts in encoders
        )
        return query_vectors, document_vectors

    def _pieces(self, texts: Mapping[str, Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        return texts["input_ids"].split(self.n_texts), texts["attention_mask"].split(self.n_texts)
