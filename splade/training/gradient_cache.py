"""Batches larger than memory: gradients of a whole batch from encoding a few of its texts at a time.

In-batch negatives and FLOPS need the vectors of all texts at once, but not what the encoder keeps for its backward
pass. So all texts are encoded without it; the loss gives the gradient of each vector; then the texts are encoded once
more, a few at a time, and their vectors' gradients are passed back (GradCache, arXiv 2101.06983). The gradients are
those of the plain step within rounding, at the cost of a second forward pass.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from splade.training.collator import Batch

RandomState = tuple[Tensor, Tensor | None]  # of the CPU, and of the GPU that is used


def encode_cached(model: nn.Module, batch: Batch, chunk_size: int) -> tuple[Tensor, Tensor]:
    """Encode a batch `chunk_size` queries with their share of the documents at a time.

    Args:
        model: a `Splade`, possibly wrapped for several processes.
        batch: what the collator made.
        chunk_size: queries whose activations are kept at a time.

    Returns:
        (B, V) and (B * (1 + n), V) vectors, as of the model itself. Their gradients reach the parameters.
    """
    chunks = _Chunks(model, batch, chunk_size)
    hook = torch.zeros((), requires_grad=True)  # without an input that needs a gradient there is no backward pass
    queries, documents = _Cached.apply(hook, chunks)
    return queries, documents


class _Chunks:
    """A batch in parts, each of some queries and as large a share of the documents."""

    def __init__(self, model: nn.Module, batch: Batch, chunk_size: int):
        self._model, self._batch = model, batch
        n_queries = len(batch["queries"]["input_ids"])
        share = len(batch["documents"]["input_ids"]) // n_queries
        self._device = batch["queries"]["input_ids"].device
        self._slices = [
            (slice(start, start + chunk_size), slice(start * share, (start + chunk_size) * share))
            for start in range(0, n_queries, chunk_size)
        ]
        self._states: list[RandomState] = []

    @torch.no_grad()
    def forward(self) -> tuple[Tensor, Tensor]:
        """Encode all, chunk by chunk, and remember what dropout drew."""
        vectors = []
        for queries, documents in self._slices:
            self._states.append(_random_state(self._device))
            vectors.append(self._encode(queries, documents))
        return torch.cat([queries for queries, _ in vectors]), torch.cat([documents for _, documents in vectors])

    @torch.enable_grad()
    def backward(self, of_queries: Tensor, of_documents: Tensor) -> None:
        """Encode all once more and add up the gradients of the parameters."""
        now = _random_state(self._device)
        for (queries, documents), state, synchronised in zip(
            self._slices, self._states, self._synchronisation(), strict=True
        ):
            _set_random_state(state, self._device)
            with synchronised:
                vectors = self._encode(queries, documents)
                pairs = zip(vectors, (of_queries[queries], of_documents[documents]), strict=True)
                known = [(vector, grad) for vector, grad in pairs if vector.requires_grad]  # not frozen documents
                torch.autograd.backward([vector for vector, _ in known], [grad for _, grad in known])
        _set_random_state(now, self._device)

    def _encode(self, queries: slice, documents: slice) -> tuple[Tensor, Tensor]:
        own_queries = {name: rows[queries] for name, rows in self._batch["queries"].items()}
        own_documents = {name: rows[documents] for name, rows in self._batch["documents"].items()}
        vectors: tuple[Tensor, Tensor] = self._model(own_queries, own_documents)
        return vectors

    def _synchronisation(self) -> Iterator[AbstractContextManager[object]]:
        """Yield for each chunk the context in which several processes add up gradients only in the last one."""
        model = self._model
        for number, _ in enumerate(self._slices, 1):
            waits = number < len(self._slices) and isinstance(model, nn.parallel.DistributedDataParallel)
            yield model.no_sync() if waits else nullcontext()  # type: ignore[operator]  # a module has any attribute


class _Cached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: "_Context", hook: Tensor, chunks: _Chunks) -> tuple[Tensor, Tensor]:
        ctx.chunks = chunks
        return chunks.forward()

    @staticmethod
    def backward(ctx: "_Context", of_queries: Tensor, of_documents: Tensor) -> tuple[None, None]:
        ctx.chunks.backward(of_queries, of_documents)
        return None, None


class _Context:
    chunks: _Chunks


def _random_state(device: torch.device) -> RandomState:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: RandomState, device: torch.device) -> None:
    cpu, cuda = state
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state(cuda, device)
