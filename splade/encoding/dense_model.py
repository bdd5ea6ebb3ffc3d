"""A dense model ready for use: texts in, one vector each out."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np

from splade.distributed import pick_device
from splade.encoding.batching import encode_batches, one_at_a_time
from splade.encoding.lengths import check_max_length
from splade.encoding.tokens import Tokenizer, checked_text
from splade.evaluation.checks import Finding
from splade.models.dense_encoder import DenseEncoder, DenseSettings, Pooling, load_dense
from splade.models.splade import digest_weights

DEFAULT_MAX_LENGTH = 256


class DenseModel:
    """A dense bi-encoder for inference. Safe to use from several threads.

    Args:
        name: what the user called the model.
        encoder: in evaluation mode on its device.
        tokenizer: belongs to it.
        settings: lengths and prompts.
        batch_size: most texts of a batch.

    Attributes:
        findings: what looks wrong: a length beyond what the model was trained on.
    """

    def __init__(
        self, name: str, encoder: DenseEncoder, tokenizer: Tokenizer, settings: DenseSettings, batch_size: int = 64
    ):
        self.name = name
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.max_length = settings.max_length or DEFAULT_MAX_LENGTH
        self.prompts = settings.prompts
        self.batch_size = batch_size
        self.findings: list[Finding] = check_max_length(encoder, self.max_length, name, "document")
        self._lock = Lock()

    @classmethod
    def load(
        cls,
        name: str | Path,
        pooling: Pooling | None = None,
        normalise: bool | None = None,
        max_length: int | None = None,
        batch_size: int = 64,
    ) -> "DenseModel":
        """Load a dense model onto this process's GPU, or the CPU; None: as its folder says (see `load_dense`).

        Raises:
            ModelError: no such model, weights missing, or it is no encoder of texts.
        """
        loaded = load_dense(str(name), pooling, normalise)
        settings = loaded.settings
        own = DenseSettings(settings.pooling, settings.normalise, max_length or settings.max_length, settings.prompts)
        return cls(str(name), loaded.encoder.to(pick_device()), loaded.tokenizer, own, batch_size)

    def __repr__(self) -> str:
        return f"DenseModel('{self.name}', {self.encoder.pooling}, {self.dimensions} dimensions)"

    @property
    def dimensions(self) -> int:
        """Number of components of a vector."""
        return self.encoder.vocab_size

    @cached_property
    def fingerprint(self) -> dict[str, object]:
        """What an index of this model depends on."""
        vocabulary = repr(sorted(self.tokenizer.get_vocab().items())).encode()
        return {
            "pooling": self.encoder.pooling,
            "normalise": self.encoder.normalise,
            "prompt": self.prompts.get("document", ""),
            "tokenizer": hashlib.sha256(vocabulary).hexdigest()[:16],
            "encoder": digest_weights(self.encoder),
        }

    def encode_documents(self, texts: Iterable[str]) -> np.ndarray:
        """Return the vectors of documents, (texts, dimensions) float32."""
        return self._all(self.stream(texts, "document"))

    def encode_queries(self, texts: Iterable[str]) -> np.ndarray:
        """Return the vectors of queries, (texts, dimensions) float32."""
        return self._all(self.stream(texts, "query"))

    def stream(self, texts: Iterable[str], side: str) -> Iterator[np.ndarray]:
        """Yield the vectors of the next texts, in their order, in constant memory."""
        prompt = checked_text(self.prompts.get(side, ""))
        prompted = (prompt + checked_text(text) for text in texts)
        batches = encode_batches(self.encoder, self.tokenizer, prompted, self.max_length, self.batch_size)
        return one_at_a_time(batches, self._lock)

    def _all(self, groups: Iterator[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.zeros((0, self.dimensions), np.float32), *groups])
