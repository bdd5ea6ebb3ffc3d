"""A sparse model ready for use: texts in, vectors and words out."""

from collections.abc import Iterable
from functools import cached_property
from threading import Lock
from typing import Literal

from splade.encoding.bag_of_words import bag_of_words
from splade.encoding.lengths import text_length
from splade.encoding.text_encoder import TextEncoder
from splade.encoding.tokens import Tokenizer
from splade.evaluation.checks import Finding
from splade.models.encoder import EncoderSettings, SparseEncoder
from splade.models.splade import Fingerprint, Splade
from splade.vectors import SparseVectors


class SparseModel:
    """A SPLADE model for inference. `splade.load` makes one.

    Safe to use from several threads.

    Args:
        network: the encoders, in evaluation mode on their device.
        max_length: tokens of a text beyond this, special tokens included, are cut off, and beyond what the model's
            folder says; None: what it says, 256 where it says nothing.
        batch_size: most texts of a batch.

    Attributes:
        documents: encoder of documents.
        queries: encoder of queries.

    Example:
        >>> import splade
        >>> model = splade.load("pkg://cognition/model")
        >>> model.encode_documents(["a cat sat", "dogs bark"])
        SparseVectors(2 vectors, 23 entries, 30522 terms)
        >>> [token for token, weight in model.bag_of_words("a cat sat", top=3)]
        ['cat', 'sat', 'cats']
    """

    def __init__(self, network: Splade, max_length: int | None = None, batch_size: int = 64):
        self.network = network
        lock = Lock()

        def side(
            encoder: SparseEncoder, tokenizer: Tokenizer, settings: EncoderSettings, name: Literal["document", "query"]
        ) -> TextEncoder:
            length, findings = text_length(encoder, max_length, settings.max_length, network.name, name)
            made = TextEncoder(encoder, tokenizer, length, batch_size, network.name, name, lock, settings)
            made.findings += findings
            return made

        self.documents = side(network.document_encoder, network.tokenizer, network.document_settings, "document")
        self.queries = side(network.query_encoder, network.query_tokenizer, network.query_settings, "query")

    def __repr__(self) -> str:
        return f"SparseModel('{self.name}', {self.network.matching_type}, {self.vocab_size} terms)"

    @property
    def name(self) -> str:
        """What the user called the model."""
        return self.network.name

    @property
    def vocab_size(self) -> int:
        """Number of terms of a vector."""
        return self.network.vocab_size

    @property
    def findings(self) -> list[Finding]:
        """What looks wrong about the model's settings."""
        return self.documents.findings + ([] if self.network.shared else self.queries.findings)

    @cached_property
    def tokens(self) -> list[str]:
        """The vocabulary: the token of each term id."""
        return list(self.network.tokenizer.convert_ids_to_tokens(list(range(self.vocab_size))))

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What an index of this model depends on."""
        return self.network.fingerprint()

    def encode_documents(self, texts: str | Iterable[str]) -> SparseVectors:
        """Return the vectors of one document or of several, in their order.

        Raises:
            DataError: something that is not a string.
        """
        return self.documents.encode(texts)

    def encode_queries(self, texts: str | Iterable[str]) -> SparseVectors:
        """Return the vectors of one query or of several, in their order.

        Raises:
            DataError: something that is not a string.
        """
        return self.queries.encode(texts)

    def bag_of_words(
        self, text: str, top: int | None = None, side: Literal["document", "query"] = "document"
    ) -> list[tuple[str, float]]:
        """Return the words that stand for a text and their weights, heaviest first.

        Args:
            text: a text.
            top: number of words; None: all.
            side: encode it as a document or as a query.
        """
        encoder = self.documents if side == "document" else self.queries
        return bag_of_words(*encoder.encode_one(text).row(0), self.tokens, top)
