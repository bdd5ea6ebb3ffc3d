"""Texts to token ids."""

from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase as Tokenizer

from splade.errors import ConfigError, DataError

# Truncation is a setting of the tokenizer, which must not change while another thread uses it.
_tokenizing = Lock()


def token_ids(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int, special_tokens: bool = True
) -> list[list[int]]:
    """Tokenise texts, with the special tokens at their ends if there shall be any, cut after `max_length` tokens."""
    _check_length(tokenizer, max_length, special_tokens)
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
    _check_length(tokenizer, max_length, special_tokens)
    # A copy: the settings of the caller's tokenizer are its own.
    own = type(backend).from_str(backend.to_str())
    own.enable_truncation(max_length, direction=tokenizer.truncation_side)
    own.no_padding()
    return lambda text: own.encode(text, add_special_tokens=special_tokens).ids


def checked_text(text: object) -> str:
    """Return a text that can be tokenised.

    Raises:
        DataError: it is no string, or holds half a character.
    """
    if not isinstance(text, str):
        raise DataError(f"a text to encode must be a string, got {str(text)[:60]!r} ({type(text).__name__})")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            shown = ascii(text[max(0, error.start - 20) : error.end + 20])
            raise DataError(f"a text to encode holds {ascii(text[error.start])}, half a character: {shown}") from error
    return text


def _check_length(tokenizer: Tokenizer, max_length: int, special_tokens: bool) -> None:
    taken = tokenizer.num_special_tokens_to_add() if special_tokens else 0
    if max_length <= taken:
        raise ConfigError(
            f"max_length={max_length}: the tokenizer itself adds {taken} tokens to every text; {taken + 1} or more are "
            "needed"
        )


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
