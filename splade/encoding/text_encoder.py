"""Texts to sparse vectors: an encoder with its tokenizer and its limits, for one text, many, or a whole collection."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import chain
from threading import Lock

import numpy as np
import torch

from splade.encoding.batching import encode_batches, one_at_a_time
from splade.encoding.lengths import check_max_length
from splade.encoding.tokens import Tokenizer, checked_text, single_text_tokenizer, token_ids
from splade.evaluation.checks import Finding
from splade.models.encoder import NOTHING_SAID, EncoderSettings, SparseEncoder
from splade.models.threads import one_thread
from splade.models.token_lookup import TokenLookupEncoder
from splade.vectors import SparseVectors

_TRUNCATION_SAMPLE = 200
_NEARLY_ALL = 0.9
_LITTLE_WORK = 1_000_000_000
"""Multiplications of a text up to which waking other threads takes longer than what they would save."""


class TextEncoder:
    """One side of a sparse model: encodes documents, or queries.

    Safe to use from several threads: batches go through the model one at a time.

    Args:
        encoder: turns batches of token ids into sparse vectors.
        tokenizer: belongs to it.
        max_length: tokens of a text beyond this, special tokens included, are cut off.
        batch_size: most texts of a batch.
        name: of the model, for messages.
        side: `document` or `query`, for messages.
        lock: held while the model runs; shared by the encoders of one model.
        settings: what the model's folder says of texts: a prompt before each, whether it has special tokens.

    Attributes:
        findings: what looks wrong: a length beyond what the model was trained on.

    Raises:
        ModelError: the model has no positions for `max_length` tokens.
    """

    def __init__(
        self,
        encoder: SparseEncoder,
        tokenizer: Tokenizer,
        max_length: int,
        batch_size: int = 64,
        name: str = "model",
        side: str = "document",
        lock: "Lock | None" = None,
        settings: EncoderSettings = NOTHING_SAID,
    ):
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.batch_size = batch_size
        self.side = side
        self.findings: list[Finding] = check_max_length(encoder, max_length, name, side)
        self._n_weights = sum(weight.numel() for weight in chain(encoder.parameters(), encoder.buffers()))
        self.settings = settings
        self._token_ids = single_text_tokenizer(tokenizer, max_length, settings.special_tokens)
        self._lock = lock if lock is not None else Lock()

    @property
    def vocab_size(self) -> int:
        """Number of terms of a vector."""
        return self.encoder.vocab_size

    def encode(self, texts: str | Iterable[str]) -> SparseVectors:
        """Return the vectors of one text or of several, in their order; a DataError for what is not a string."""
        if isinstance(texts, str):
            return self.encode_one(texts)
        return SparseVectors.concatenate(list(self.encode_stream(texts)), self.vocab_size)

    def encode_one(self, text: str) -> SparseVectors:
        """Return the vector of one text, as fast as possible: no padding, no batching."""
        token_ids = self._token_ids(self._prompted(text))
        if isinstance(self.encoder, TokenLookupEncoder):
            return self.encoder.encode_tokens(token_ids)
        input_ids = torch.tensor([token_ids], dtype=torch.int64)
        little = input_ids.numel() * self._n_weights <= _LITTLE_WORK
        with self._lock, one_thread() if little else nullcontext():
            return self.encoder.encode(input_ids, torch.ones_like(input_ids))

    def input_tokens(self, text: str) -> list[str]:
        """Return the tokens that the model reads of a text, prompt and special tokens included."""
        return list(self.tokenizer.convert_ids_to_tokens(self._token_ids(self._prompted(text))))

    def token_weights(self, text: str, term_ids: np.ndarray) -> tuple[list[str], np.ndarray | None]:
        """Return the tokens that the model reads of a text, and what each gives to some terms, before pooling.

        Returns:
            The tokens, prompt and special tokens included; (n_tokens, n_terms) float32, or None where the encoder
            cannot tell.
        """
        token_ids = self._token_ids(self._prompted(text))
        with self._lock:
            weights = self.encoder.token_weights(
                torch.tensor(token_ids, dtype=torch.int64), torch.from_numpy(term_ids.astype(np.int64))
            )
        return list(self.tokenizer.convert_ids_to_tokens(token_ids)), None if weights is None else weights.numpy()

    def encode_stream(self, texts: Iterable[str]) -> Iterator[SparseVectors]:
        """Yield the vectors of the next texts, in their order, in constant memory."""
        prompted, special = map(self._prompted, texts), self.settings.special_tokens
        batches = encode_batches(
            *(self.encoder, self.tokenizer, prompted, self.max_length, self.batch_size), special_tokens=special
        )
        return one_at_a_time(batches, self._lock)

    def encode_pairs(self, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[list[str], SparseVectors]]:
        """Yield ids and vectors of the next (id, text) pairs, in their order, in constant memory."""
        ids: deque[str] = deque()

        def texts() -> Iterator[str]:
            for text_id, text in pairs:
                ids.append(text_id)  # texts are read ahead of the vectors
                yield text

        for vectors in self.encode_stream(texts()):
            yield [ids.popleft() for _ in range(len(vectors))], vectors

    def check_truncation(self, texts: Iterable[str]) -> list[Finding]:
        """Does `max_length` cut nearly every text? That is rarely meant: settings for short texts, for instance."""
        sample = [self._prompted(text) for _, text in zip(range(_TRUNCATION_SAMPLE), texts, strict=False)]
        # One token more than allowed tells that there are more.
        special = self.settings.special_tokens
        ids = token_ids(self.tokenizer, sample, self.max_length + 1, special)
        n_cut = sum(len(row) > self.max_length for row in ids)
        if n_cut <= _NEARLY_ALL * len(sample):
            return []
        message = (
            f"{n_cut} of the first {len(sample)} documents are longer than config.max_length={self.max_length} tokens "
            "and lose their ends; raise it, unless the model was trained on texts this short"
        )
        return [Finding("warning", "documents-cut", message)]

    def _prompted(self, text: object) -> str:
        return self.settings.prompt + checked_text(text)
