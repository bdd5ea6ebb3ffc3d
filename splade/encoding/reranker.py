"""A reranker ready for use: a query and documents in, a score for each document out."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from splade.distributed import pick_device
from splade.encoding.batching import TOKEN_BUDGET, batches_by_length, is_small
from splade.encoding.lengths import own_max_length
from splade.encoding.pairs import PairRow, PairTokenizer, check_pair_length
from splade.encoding.tokens import Tokenizer, padding_id
from splade.errors import ModelError
from splade.models.pair_scorer import KINDS, LoadedReranker, RerankerType, load_reranker
from splade.models.splade import digest_weights
from splade.models.threads import map_in_threads

logger = logging.getLogger(__name__)

DEFAULT_MAX_LENGTH = 512
LENGTH_STEP = 8
# Tokens of a batch that one thread scores: more would not stay in its cache between layers.
CACHED_TOKENS = 2048
_TIE_BREAK = 0.25


class Reranker:
    """Scores documents for queries by a model that reads both.

    Args:
        loaded: the model with its tokenizer.
        max_length: most tokens of a query with its document; None: as many as the model takes, at most 512.
        batch_size: most rows of a batch.
        prompt_q: template of the query, with `{}` for its text; None: that of the type.
        prompt_d: the same of the document.
        precision: of autocast; None: float32.

    Raises:
        ConfigError: a template without its places, or a length beyond the model's positions.
    """

    def __init__(
        self,
        loaded: LoadedReranker,
        max_length: int | None = None,
        batch_size: int = 64,
        prompt_q: str | None = None,
        prompt_d: str | None = None,
        precision: torch.dtype | None = None,
    ):
        self.name = loaded.name
        self.kind = loaded.kind
        self.scorer = loaded.scorer.eval()
        most = own_max_length(loaded.scorer, loaded.tokenizer)
        length = max_length if max_length is not None else min(most or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)
        check_pair_length(length, most, loaded.name)
        self.pairs = PairTokenizer(loaded.tokenizer, loaded.kind, length, prompt_q, prompt_d)
        self.batch_size = batch_size
        self.precision = precision

    @classmethod
    def load(cls, name: str, kind: RerankerType = "cross-encoder", max_length: int | None = None) -> "Reranker":
        """Load a trained reranker onto this process's GPU, or the CPU.

        Raises:
            ModelError: no such model, weights missing, or several labels.
        """
        loaded = load_reranker(name, kind)
        loaded.scorer.to(pick_device())
        return cls(loaded, max_length)

    def __repr__(self) -> str:
        return f"Reranker('{self.name}', {self.kind}, {self.scorer.n_parameters / 1e6:.1f} M parameters)"

    @property
    def pairwise(self) -> bool:
        """Whether it compares two documents at a time."""
        return KINDS[self.kind].pairwise

    def settings(self) -> dict[str, object]:
        """Return what its scores depend on."""
        return {
            "weights": digest_weights(self.scorer),
            "type": self.kind,
            "max_length": self.pairs.max_length,
            "prompt_q": self.pairs.query_template,
            "prompt_d": self.pairs.document_template,
            "precision": str(self.precision),
        }

    def rows(self, query_id: str, query: str, documents: Sequence[str]) -> list[PairRow]:
        """Return the rows that `score` needs for a query's documents."""
        if not self.pairwise:
            return self.pairs.rows(query_id, query, [(document,) for document in documents])
        return self.pairs.rows(query_id, query, list(permutations(documents, 2)))

    def score(self, queries: Mapping[str, str], documents: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
        """Return (documents,) float32 scores for each query, by id; rows of similar length share a batch."""
        of_query = {query_id: self.rows(query_id, queries[query_id], texts) for query_id, texts in documents.items()}
        scores = self.score_rows([row for rows in of_query.values() for row in rows])
        parts = np.split(scores, np.cumsum([len(rows) for rows in of_query.values()])[:-1]) if of_query else []
        found = dict(zip(of_query, parts, strict=True))
        if not self.pairwise:
            return found
        return {query_id: self._wins(values, len(documents[query_id])) for query_id, values in found.items()}

    def score_rows(self, rows: Sequence[PairRow]) -> np.ndarray:
        """Return (rows,) float32 scores.

        Raises:
            ModelError: a score is not a finite number.
        """
        scores = np.zeros(len(rows), np.float32)
        lengths = np.array([-(-len(row.input_ids) // LENGTH_STEP) * LENGTH_STEP for row in rows], np.int64)
        order = np.argsort(-lengths, kind="stable")
        small = is_small(self.scorer)
        budget = CACHED_TOKENS if small else TOKEN_BUDGET
        batches = list(batches_by_length(order, lengths, self.batch_size, budget))

        def score(batch: Sequence[int]) -> np.ndarray:
            return self._score_batch([rows[i] for i in batch])

        found = map_in_threads(score, batches) if small else map(score, batches)
        for batch, values in zip(batches, found, strict=True):
            scores[batch] = values
        if not np.isfinite(scores).all():
            raise ModelError(f"the reranker '{self.name}' gave scores that are not finite numbers")
        return scores

    @torch.inference_mode()
    def _score_batch(self, rows: Sequence[PairRow]) -> np.ndarray:
        device = next(self.scorer.parameters()).device
        inputs = {name: values.to(device) for name, values in padded_rows(rows, self.pairs.tokenizer).items()}
        half = torch.autocast(device.type, dtype=self.precision) if self.precision is not None else nullcontext()
        with half:
            scores: np.ndarray = self.scorer(inputs).float().cpu().numpy()
        return scores

    def _wins(self, scores: np.ndarray, n: int) -> np.ndarray:
        """Add up what the comparisons say of each document.

        duoT5: `sum_j p_ij + (1 - p_ji)` (SYM-SUM, arXiv 2101.05667). Prompting: 1 for a document that is preferred in
        both orders, 0.5 for both where the orders disagree (arXiv 2306.17563); of as many wins the document
        that was given first comes first, by less than half a win.
        """
        first = np.full((n, n), 0.5)
        for (i, j), score in zip(permutations(range(n), 2), scores.tolist(), strict=True):
            first[i, j] = np.exp(score)
        if self.kind == "duoT5":
            won = first + 1 - first.T
        else:
            won = ((first > 0.5).astype(float) + (first.T < 0.5).astype(float)) / 2
        np.fill_diagonal(won, 0)
        total: np.ndarray = won.sum(1)
        if self.kind == "PairwisePrompt":
            total -= np.arange(n) * (_TIE_BREAK / n)
        return total.astype(np.float32)


def padded_rows(rows: Sequence[PairRow], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Return the tensors of a batch, (rows, length) int64 each, padded to a multiple of eight."""
    length = -(-max(len(row.input_ids) for row in rows) // LENGTH_STEP) * LENGTH_STEP
    ids = np.full((len(rows), length), padding_id(tokenizer), np.int64)
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row.input_ids)], mask[i, : len(row.input_ids)] = row.input_ids, 1
        if row.token_types is not None:
            types[i, : len(row.input_ids)] = row.token_types
    tensors = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    return tensors | ({"token_type_ids": torch.from_numpy(types)} if rows[0].token_types is not None else {})
