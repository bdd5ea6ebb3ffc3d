"""Plain texts as training examples of masked-language modelling: which tokens are hidden, and what stands there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from splade.datasets.text_collection import TextCollection
from splade.encoding.tokens import Tokenizer, padded_batch, token_ids
from splade.errors import ModelError

NOT_ASKED = -100  # the label of a token that is not to be guessed
_REPLACED, _RANDOM = 0.8, 0.1  # of the chosen tokens; the rest stays as it is


@dataclass(frozen=True)
class PlainText:
    """A text, its number in the collection, and how often it was drawn before."""

    text: str
    row: int
    draw: int


class PlainTexts:
    """The texts of a collection by number."""

    def __init__(self, collection: TextCollection):
        self.collection = collection

    def __len__(self) -> int:
        return len(self.collection)

    def example(self, index: int, draw: int = 0) -> PlainText:
        """Return text `index`; `draw` tells its repetitions (epochs) apart: other tokens are hidden in each."""
        return PlainText(self.collection[index][1], index, draw)


class MaskedBatch(TypedDict):
    """A tokenised batch of B texts.

    Attributes:
        input_ids: (B, length) int64, with some tokens hidden.
        attention_mask: (B, length) int64, zero for padding.
        labels: (B, length) int64, the token that stood there where it is to be guessed, elsewhere -100.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


class MaskingCollator:
    """Tokenises texts and hides a share of their tokens (BERT, arXiv 1810.04805, section 3.1).

    Of the chosen tokens 80 % are replaced by the mask token, 10 % by a random one, 10 % stay. Which ones is a function
    of the seed, the text's number and its draw: one that resumes, or shares its texts among processes, hides the same.

    Args:
        tokenizer: must have a mask token.
        max_length: tokens of a text beyond this, special tokens included, are cut off.
        share: of the tokens that are chosen.
        seed: of the choice.
        in_spans: make two texts of each, cut somewhere in its middle half: first all beginnings, then all ends.

    Raises:
        ModelError: the tokenizer has no mask token.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, share: float, seed: int, in_spans: bool = False):
        if tokenizer.mask_token_id is None:
            raise ModelError("the tokenizer has no mask token: only masked-language models can be trained so")
        self.tokenizer, self.max_length, self.share, self.seed = tokenizer, max_length, share, seed
        self.in_spans = in_spans
        self._special = np.array(sorted(tokenizer.all_special_ids))
        self._ordinary = np.setdiff1d(np.arange(len(tokenizer)), self._special)

    def __call__(self, examples: Sequence[PlainText]) -> MaskedBatch:
        """Return the batch of some texts."""
        keys = [[self.seed, example.row, example.draw] for example in examples]
        texts = [example.text for example in examples]
        if self.in_spans:
            spans = [_cut(text, np.random.default_rng(key)) for text, key in zip(texts, keys, strict=True)]
            texts = [span[part] for part in (0, 1) for span in spans]
            keys = [[*key, part] for part in (1, 2) for key in keys]
        rows = token_ids(self.tokenizer, texts, self.max_length)
        masked = (self._mask(np.array(ids), np.random.default_rng(key)) for ids, key in zip(rows, keys, strict=True))
        shown, labels = zip(*masked, strict=True)
        input_ids, attention_mask = padded_batch(shown, int(self.tokenizer.pad_token_id or 0))
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": padded_batch(labels, NOT_ASKED)[0]}

    def _mask(self, ids: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        chosen = (random.random(len(ids)) < self.share) & ~np.isin(ids, self._special)
        fate, others = random.random(len(ids)), random.choice(self._ordinary, len(ids))
        shown = np.where(chosen & (fate < _REPLACED), self.tokenizer.mask_token_id, ids)
        shown = np.where(chosen & (fate >= 1 - _RANDOM), others, shown)
        return shown, np.where(chosen, ids, NOT_ASKED)


def _cut(text: str, random: np.random.Generator) -> tuple[str, str]:
    """Cut a text into two in its middle half, where a word begins if one does."""
    place = int(len(text) * random.uniform(0.25, 0.75))
    between_words = text.find(" ", place, place + len(text) // 4)
    place = place if between_words < 0 else between_words
    return text[:place], text[place:]


def n_asked(labels: Tensor) -> Tensor:
    """Return how many tokens of a batch are to be guessed, a scalar."""
    return torch.count_nonzero(labels != NOT_ASKED)
