"""Texts to token ids."""

from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase as Tokenizer

from splade.errors import ConfigError

# Truncation is a setting of the tokenizer, which must not change while another thread uses it.
_tokenizing = Lock()


def token_ids(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int, special_tokens: bool = True
) -> list[list[int]]:
    """Tokenise texts, with the special tokens at their ends if there shall be any, cut after `max_length` tokens."""
    _check_length(max_length)
    with _tokenizing:
        encoded = tokenizer(
            list(texts),
            truncation=True,
            max_length=max_length,
            add_special_tokens=special_tokens,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
    return encoded["input_ids"]


def single_text_tokenizer(
    tokenizer: Tokenizer, max_length: int, special_tokens: bool = True
) -> Callable[[str], list[int]]:
    """Return a function that tokenises one text as `token_ids` does, without the cost of preparing for a batch."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return lambda text: token_ids(tokenizer, [text], max_length, special_tokens)[0]
    _check_length(max_length)
    # A copy: the settings of the caller's tokenizer are its own.
    own = type(backend).from_str(backend.to_str())
    own.enable_truncation(max_length, direction=tokenizer.truncation_side)
    own.no_padding()
    return lambda text: own.encode(text, add_special_tokens=special_tokens).ids


def _check_length(max_length: int) -> None:
    if max_length < 1:
        raise ConfigError(f"max_length={max_length}: a text needs at least one token")


def padding_id(tokenizer: Tokenizer) -> int:
    """Return the id to fill short rows with; any will do where the tokenizer has none, since padding is masked."""
    return 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def padded_batch(rows: Sequence[Sequence[int]], pad_id: int, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Return (batch, length) int64 token ids and their attention mask; by default as long as the longest row."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max(initial=0) if length is None else length) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, dtype=np.int64)
    input_ids[mask] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return torch.from_numpy(input_ids), torch.from_numpy(mask.astype(np.int64))
