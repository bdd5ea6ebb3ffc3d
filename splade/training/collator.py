"""From training examples to a tokenised batch."""

from collections.abc import Sequence
from typing import Any

import torch

from splade.datasets.training_sets import TrainingExample


class Collator:
    """Tokenises a batch of examples.

    A batch holds `queries` and `documents` (`input_ids` and `attention_mask`, int64, padded to the longest of each)
    and, when the examples carry scores, `teacher`: (B, 1 + n) float32. Documents are in the order that the losses
    expect: all positives, then all negatives, query by query.
    """

    def __init__(self, tokenizer: Any, query_tokenizer: Any, max_length: int):
        self.tokenizer = tokenizer
        self.query_tokenizer = query_tokenizer
        self.max_length = max_length

    def __call__(self, examples: Sequence[TrainingExample]) -> dict[str, Any]:
        """Return the batch of B examples with n negatives each."""
        documents = [example.positive for example in examples]
        documents += [negative for example in examples for negative in example.negatives]
        batch: dict[str, Any] = {
            "queries": self._tokenize(self.query_tokenizer, [example.query for example in examples]),
            "documents": self._tokenize(self.tokenizer, documents),
        }
        if examples[0].positive_score is not None:
            batch["teacher"] = torch.tensor(
                [[example.positive_score, *(example.negative_scores or [])] for example in examples],
                dtype=torch.float32,
            )
        return batch

    def _tokenize(self, tokenizer: Any, texts: list[str]) -> dict[str, torch.Tensor]:
        tokens = tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_token_type_ids=False,
            return_tensors="pt",
        )
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
