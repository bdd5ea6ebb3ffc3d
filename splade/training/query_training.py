"""Training of the query encoder alone: the documents' vectors, and so their index, stay as they are.

Queries are short. A step costs a small part of one that encodes documents too, and every document of the collection is
a negative of every query. The loss is the cross-entropy of a query's own document among all of them, plus a share of
the score that a query has with a document on average: that is what searching costs, weighted.

Before the first step, the weights of a query's terms are multiplied by how rare the terms are in the documents, as in
BM25: a model trained on web pages does not know which words tell the documents of this collection apart.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import set_seed

from splade.config.schema import RunConfig
from splade.encoding.tokens import padded_batch, padding_id, token_ids
from splade.errors import ConfigError
from splade.models.masked_lm import MaskedLMEncoder
from splade.models.rescaling import scale_logits
from splade.models.splade import Splade
from splade.progress import progress_bar
from splade.vectors import SparseVectors

_QUERIES_PER_STEP = 32
_WARMUP_SHARE = 0.1
_COST_SHARE = 0.5
"""Weight of the average score, which is 1 before training."""


@dataclass(frozen=True)
class AnsweredQuery:
    """A query and the number of the document that answers it."""

    text: str
    document: int


def train_queries(
    model: Splade, documents: SparseVectors, queries: Sequence[AnsweredQuery], run: RunConfig
) -> tuple[Splade, int]:
    """Train on each query once.

    Args:
        model: what the vectors come from.
        documents: all that a query may be answered by.
        queries: in any order.
        run: learning rate, weight decay, lengths and seed.

    Returns:
        A model with the same document encoder and a query encoder of its own, and the steps done.

    Raises:
        ConfigError: the queries are encoded without a language model.
    """
    if not isinstance(model.query_encoder, MaskedLMEncoder):
        raise ConfigError(f"'{model.name}' encodes queries without a language model: there is nothing to train")
    set_seed(run.seed)
    device = next(model.parameters()).device
    encoder = deepcopy(model.query_encoder).requires_grad_(True)
    scale_logits(encoder.model, rarity(documents))
    encoder.to(device).train()
    matrix, average = _matrix(documents).to(device), _average(documents).to(device)
    steps = -(-len(queries) // _QUERIES_PER_STEP)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=run.lr, weight_decay=run.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step, steps))
    first_cost: float | None = None
    with progress_bar("training the query encoder", steps, "step") as bar:
        for chosen in np.array_split(np.random.default_rng(run.seed).permutation(len(queries)), steps):
            batch = [queries[i] for i in chosen]
            vectors = encoder(*(part.to(device) for part in _tokenized(model, [query.text for query in batch], run)))
            own = torch.tensor([query.document for query in batch], device=device)
            cost = vectors.mean(dim=0) @ average
            first_cost = first_cost or cost.item() or 1.0
            loss = functional.cross_entropy((matrix @ vectors.T).T, own) + _COST_SHARE * cost / first_cost
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
            bar.show(loss=loss.item())
    adapted = Splade(
        model.document_encoder,
        encoder.eval(),
        model.tokenizer,
        model.query_tokenizer,
        model.matching_type,
        model.agg,
        model.name,
        model.document_settings,
        model.query_settings,
    )
    return adapted, steps


def rarity(documents: SparseVectors) -> Tensor:
    """Return (vocab_size,) float32 factors: the inverse document frequency of each term, 1 for that of a mean entry.

    Example:
        >>> rarity(SparseVectors.from_rows([([0, 1], [1, 1]), ([0], [1])], vocab_size=2)).tolist()
        [0.8717114329338074, 1.2565771341323853]
    """
    counts = np.bincount(documents.term_ids, minlength=documents.vocab_size)
    idf = np.log1p(len(documents) / (0.5 + counts))
    return torch.from_numpy(idf * counts.sum() / max(1e-9, float(idf @ counts))).float()


def _learning_rate(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step: it rises at first, then falls to zero."""
    return min((step + 1) / max(1.0, _WARMUP_SHARE * steps), 1 - step / steps)


def _matrix(vectors: SparseVectors) -> Tensor:
    rows = np.repeat(np.arange(len(vectors)), vectors.lengths)
    places = torch.from_numpy(np.stack([rows, vectors.term_ids]))
    shape = len(vectors), vectors.vocab_size
    weights = torch.from_numpy(vectors.weights)
    return torch.sparse_coo_tensor(places, weights, shape, is_coalesced=True, check_invariants=True)


def _average(vectors: SparseVectors) -> Tensor:
    sums = np.bincount(vectors.term_ids, vectors.weights, vectors.vocab_size)
    return torch.from_numpy(sums / max(1, len(vectors))).float()


def _tokenized(model: Splade, texts: list[str], run: RunConfig) -> tuple[Tensor, Tensor]:
    said = model.query_settings
    length = min(limit for limit in (run.max_length, said.max_length) if limit is not None)
    rows = token_ids(model.query_tokenizer, [said.prompt + text for text in texts], length, said.special_tokens)
    return padded_batch(rows, padding_id(model.query_tokenizer))
