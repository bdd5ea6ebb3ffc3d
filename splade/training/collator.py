"""From training examples to a tokenised batch."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from splade.datasets.training_sets import TrainingExample
from splade.encoding.tokens import Tokenizer, padded_batch, padding_id, token_ids


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


class Collator:
    """Tokenises examples; tokens of a text beyond `max_length`, special tokens included, are cut off."""

    def __init__(self, tokenizer: Tokenizer, query_tokenizer: Tokenizer, max_length: int):
        self.tokenizer = tokenizer
        self.query_tokenizer = query_tokenizer
        self.max_length = max_length

    def __call__(self, examples: Sequence[TrainingExample]) -> Batch:
        """Return the batch of B examples with n negatives each."""
        documents = [example.positive for example in examples]
        documents += [negative for example in examples for negative in example.negatives]
        batch: Batch = {
            "queries": self._tokenize(self.query_tokenizer, [example.query for example in examples]),
            "documents": self._tokenize(self.tokenizer, documents),
        }
        if examples[0].positive_score is not None:
            batch["teacher"] = torch.tensor(
                [[example.positive_score, *(example.negative_scores or [])] for example in examples],
                dtype=torch.float32,
            )
        return batch

    def _tokenize(self, tokenizer: Tokenizer, texts: list[str]) -> dict[str, Tensor]:
        input_ids, attention_mask = padded_batch(token_ids(tokenizer, texts, self.max_length), padding_id(tokenizer))
        return {"input_ids": input_ids, "attention_mask": attention_mask}
