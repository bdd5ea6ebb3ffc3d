"""Collections of any size to sparse vectors, in constant memory.

Texts are read a window at a time. While one window is encoded, a thread tokenises the next. Within a window, texts of
similar length share a batch, so that little padding is computed; the vectors leave in the order of the texts.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Lock
from typing import Protocol, TypeVar

import numpy as np
from torch import Tensor

from splade.encoding.tokens import Tokenizer, padded_batch, padding_id, token_ids
from splade.errors import ConfigError
from splade.models.threads import is_small, map_in_threads

V = TypeVar("V")

# Texts of a window: many enough to find others of the same length, few enough to hold their vectors.
WINDOW = 512
# Tokens of a batch, padding included: more would only cost memory.
TOKEN_BUDGET = 8192
# Lengths of batches are multiples of the first number, up to 64 tokens of the second.
LENGTH_STEP, SHORT_LENGTH_STEP = 16, 8
# For a small model, a window of few texts is cut into up to so many batches, each of about so many texts or more:
# threads then have one each, and little padding is computed. The same on every machine, so that the vectors are.
FEW_BATCHES, FEW_TEXTS = 4, 12


class BatchEncoder(Protocol[V]):
    """Turns batches of token ids into vectors of some kind."""

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> V:
        """Return the vectors of a (batch, length) batch, one per row."""

    def gather(self, parts: Sequence[V], order: np.ndarray) -> V:
        """Return the rows of several batches in an order."""


def encode_batches(
    encoder: BatchEncoder[V],
    tokenizer: Tokenizer,
    texts: Iterable[str],
    max_length: int,
    batch_size: int,
    token_budget: int = TOKEN_BUDGET,
    window: int = WINDOW,
    special_tokens: bool = True,
) -> Iterator[V]:
    """Encode texts as they come.

    Tokens of a text beyond `max_length`, `special_tokens` included if there are any, are cut off. A batch has at most
    `batch_size` texts and `token_budget` tokens, padding included; a single text may have more. `window` texts are
    read, sorted by length and returned together.

    Yields:
        The vectors of the next texts, in the order of the texts; one group per window.

    Raises:
        ConfigError: a size is less than one.
    """
    for name, value in {"batch_size": batch_size, "token_budget": token_budget, "window": window}.items():
        if value < 1:
            raise ConfigError(f"{name}={value}: must be at least 1")
    pad_id, small = padding_id(tokenizer), is_small(encoder)
    for rows in _tokenised_ahead(tokenizer, texts, max_length, window, special_tokens):
        lengths = _rounded([len(row) for row in rows], max_length)
        # Longest first: if memory is short, it is so at once.
        order = np.argsort(-lengths, kind="stable")
        n_batches = min(FEW_BATCHES, max(1, len(rows) // FEW_TEXTS)) if small else 1
        most = min(batch_size, -(-len(rows) // n_batches))
        batches = [(batch, lengths[batch[0]]) for batch in batches_by_length(order, lengths, most, token_budget)]

        def encode(batch: tuple[Sequence[int], int], rows: list[list[int]] = rows) -> V:
            numbers, length = batch
            return encoder.encode(*padded_batch([rows[i] for i in numbers], pad_id, length=length))

        vectors = map_in_threads(encode, batches) if small else [encode(batch) for batch in batches]
        yield encoder.gather(vectors, np.argsort(order))


def one_at_a_time(batches: Iterator[V], lock: Lock) -> Iterator[V]:
    """Yield what `batches` does; while a group is made, the lock is held."""
    while True:
        with lock:
            vectors = next(batches, None)
        if vectors is None:
            return
        yield vectors


def _tokenised_ahead(
    tokenizer: Tokenizer, texts: Iterable[str], max_length: int, window: int, special_tokens: bool
) -> Iterator[list[list[int]]]:
    """Yield the token ids of each window, while a thread makes those of the next."""
    stream = iter(texts)

    def tokenise_next() -> list[list[int]]:
        taken = list(islice(stream, window))
        return token_ids(tokenizer, taken, max_length, special_tokens) if taken else []

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenise") as thread:
        coming = thread.submit(tokenise_next)
        while rows := coming.result():
            coming = thread.submit(tokenise_next)
            yield rows


def _rounded(lengths: Sequence[int], max_length: int) -> np.ndarray:
    """Round lengths up, so that batches have few different shapes: libraries keep memory for each shape they meet."""
    given = np.array(lengths)
    steps = np.where(given <= 64, SHORT_LENGTH_STEP, LENGTH_STEP)
    return np.minimum(-(-given // steps) * steps, max_length)


def batches_by_length(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, token_budget: int
) -> Iterator[Sequence[int]]:
    """Cut texts, longest first, into batches within both limits, never empty."""
    start = 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        stop = start + max(1, min(batch_size, token_budget // longest))
        yield order[start:stop].tolist()
        start = stop
