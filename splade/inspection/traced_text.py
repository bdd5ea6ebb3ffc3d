"""Which tokens of a text made each weight of its vector."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splade.encoding.bag_of_words import bag_of_words
from splade.encoding.text_encoder import TextEncoder
from splade.inspection.explanation import Explanation, InputToken, SparseVector, explain

_SAME_WEIGHT = 0.02


@dataclass(frozen=True)
class TracedText:
    """A vector and, where its text is known, what each token of the text gave to it.

    Attributes:
        term_ids: (n,) terms.
        weights: (n,) float32 weights.
        vocabulary: the token of each term id.
        inputs: the tokens that the model reads; none where the text is not known, or the encoder cannot tell.
        parts: (n_inputs, n) float32; a column adds up to the term's weight. With max-pooling one token has all of it.
        unpooled: (n_inputs, n) float32, what each token would give to each term alone.
        agrees: whether the text's own vector has these weights; False: another text, or another length, was indexed.
    """

    term_ids: np.ndarray
    weights: np.ndarray
    vocabulary: Sequence[str]
    inputs: tuple[str, ...] = ()
    parts: np.ndarray | None = None
    agrees: bool = True
    unpooled: np.ndarray | None = None

    @property
    def vector(self) -> SparseVector:
        """The terms and their weights."""
        return self.term_ids, self.weights

    @property
    def sources(self) -> list[InputToken | None]:
        """For each term the token that gave most of its weight."""
        if self.parts is None:
            return [None] * len(self.term_ids)
        largest = self.parts.argmax(axis=0).tolist()
        return [
            InputToken(self.inputs[position], position, float(self.parts[position, column]))
            for column, position in enumerate(largest)
        ]

    @property
    def input_totals(self) -> list[float]:
        """For each token what it gave to all terms together."""
        return [] if self.parts is None else self.parts.sum(axis=1).tolist()

    @property
    def own(self) -> frozenset[str]:
        """The terms that are tokens of the text; the others are the model's expansion."""
        return frozenset(self.inputs)

    def bag(self, top: int | None = None) -> list[tuple[str, float, InputToken | None]]:
        """Return (term, weight, the token that gave it), heaviest first."""
        from_token = dict(zip((self.vocabulary[int(term)] for term in self.term_ids), self.sources, strict=True))
        words = bag_of_words(self.term_ids, self.weights, self.vocabulary, top)
        return [(token, weight, from_token[token]) for token, weight in words]


def trace(
    encoder: TextEncoder, vocabulary: Sequence[str], text: str | None, vector: SparseVector | None = None
) -> TracedText:
    """Return a text's vector with the tokens that made it.

    Args:
        encoder: of the text's side, query or document.
        vocabulary: the token of each term id.
        text: the text, or None where only its vector is known.
        vector: as it is in an index; None: the text is encoded.

    Example:
        >>> import splade
        >>> model = splade.load("pkg://cognition/model")
        >>> traced = trace(model.documents, model.tokens, "honey bees")
        >>> [(term, str(source)) for term, weight, source in traced.bag(top=3)]
        [('honey', 'honey@1'), ('bees', 'bees@2'), ('bee', 'bees@2')]
    """
    if vector is None:
        vector = encoder.encode_one(text or "").row(0)
    term_ids, weights = vector
    if text is None or not len(term_ids):
        return TracedText(term_ids, weights, vocabulary)
    inputs, given = encoder.token_weights(text, term_ids)
    if given is None:
        return TracedText(term_ids, weights, vocabulary)
    summed = getattr(encoder.encoder, "agg", "max") == "sum"
    pooled = given.sum(axis=0) if summed else given.max(axis=0)
    agrees = bool(np.allclose(pooled, weights, rtol=_SAME_WEIGHT, atol=_SAME_WEIGHT))
    if summed:
        parts = given * (weights / np.maximum(pooled, np.finfo(np.float32).tiny))
    else:
        columns = np.arange(len(term_ids))
        parts = np.zeros_like(given)
        parts[given.argmax(axis=0), columns] = weights
    return TracedText(term_ids, weights, vocabulary, tuple(inputs), parts, agrees, given)


def explain_traced(query: TracedText, document: TracedText) -> Explanation:
    """Split the score of two texts into its terms, each with the tokens that gave its weights."""
    return explain(query.vector, document.vector, query.vocabulary, query.sources, document.sources)
