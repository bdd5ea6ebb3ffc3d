"""From training examples to a tokenised batch."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from typing_extensions import NotRequired, TypedDict

from splade.datasets.training_sets import TrainingExample
from splade.encoding.tokens import Tokenizer, padded_batch, padding_id, token_ids
from splade.models.encoder import NOTHING_SAID, EncoderSettings


class Batch(TypedDict):
    """A tokenised batch of B queries with n negatives each.

    Attributes:
        queries: `input_ids` and `attention_mask`, (B, length) int64 each, padded to the longest.
        documents: the same of B * (1 + n) documents: all positives, then all negatives, query by query.
        teacher: (B, 1 + n) float32 scores, where the examples carry some.
    """

    queries: dict[str, Tensor]
    documents: dict[str, Tensor]
    teacher: NotRequired[Tensor]


Given = TypeVar("Given", contravariant=True)
Made = TypeVar("Made", covariant=True)


class BatchMaker(Protocol[Given, Made]):
    """Makes batches of training examples; tokens of a text beyond `max_length` are cut off."""

    max_length: int

    def __call__(self, examples: Sequence[Given]) -> Made:
        """Return the batch of some examples."""


class Collator:
    """Tokenises examples; tokens of a text beyond `max_length`, special tokens included, are cut off.

    The settings are what the model's folder says of texts: a prompt before each, an earlier cut.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        query_tokenizer: Tokenizer,
        max_length: int,
        document_settings: EncoderSettings = NOTHING_SAID,
        query_settings: EncoderSettings = NOTHING_SAID,
    ):
        self.tokenizer = tokenizer
        self.query_tokenizer = query_tokenizer
        self.max_length = max_length
        self.document_settings = document_settings
        self.query_settings = query_settings

    def __call__(self, examples: Sequence[TrainingExample]) -> Batch:
        """Return the batch of B examples with n negatives each."""
        documents = [example.positive for example in examples]
        documents += [negative for example in examples for negative in example.negatives]
        batch: Batch = {
            "queries": self._tokenize(
                self.query_tokenizer, [example.query for example in examples], self.query_settings
            ),
            "documents": self._tokenize(self.tokenizer, documents, self.document_settings),
        }
        if examples[0].positive_score is not None:
            batch["teacher"] = torch.tensor(
                [[example.positive_score, *(example.negative_scores or [])] for example in examples],
                dtype=torch.float32,
            )
        return batch

    def _tokenize(self, tokenizer: Tokenizer, texts: list[str], settings: EncoderSettings) -> dict[str, Tensor]:
        length = min(self.max_length, settings.max_length or self.max_length)
        rows = token_ids(tokenizer, [settings.prompt + text for text in texts], length, settings.special_tokens)
        input_ids, attention_mask = padded_batch(rows, padding_id(tokenizer))
        return {"input_ids": input_ids, "attention_mask": attention_mask}
