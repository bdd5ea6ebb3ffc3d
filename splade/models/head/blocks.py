"""A batch of hidden states as blocks of whole passages, whose logits are made and pooled piece by piece.

Nobody needs the batch x length x vocabulary tensor of logits. A block's tokens are multiplied with one piece of the
vocabulary at a time; the tile that comes out is pooled over the tokens of each passage at once and its memory is used
again for the next piece. On the CPU a tile stays in the cache, padding is left out of the multiplication, and every
core has a block of its own. On other devices padding stays, so that nothing has to wait for the lengths, and tiles are
as large as the device needs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from splade.models.head.kernels import segment_argmax, segment_max, segment_sum
from splade.models.threads import map_in_threads

# Tokens of a CPU block: enough for one core's matrix product to run at full speed.
CPU_BLOCK_TOKENS = 256
# Logits of a CPU tile: 1 MiB in float32, which fits a second-level cache.
CPU_TILE_LOGITS = 2**18
# On a GPU a tile must be large to be worth its launch: 256 MiB in float32.
DEVICE_BLOCK_TOKENS = 2**15
DEVICE_TILE_LOGITS = 2**26

Result = TypeVar("Result")
Block = TypeVar("Block", bound="TokenBlock")
Packed = TypeVar("Packed", bound="PackedBlock")


class TokenBlock(ABC):
    """The tokens of some consecutive passages of a batch.

    Attributes:
        passages: which passages of the batch, a slice.
        tile_logits: how many logits a tile may have.
        logit_dtype: dtype of a tile; None for that of the hidden states.
    """

    tile_logits: int
    logit_dtype: torch.dtype | None = None

    def __init__(self, passages: slice) -> None:
        self.passages = passages

    @property
    def size(self) -> int:
        """Number of passages."""
        return self.passages.stop - self.passages.start

    @property
    @abstractmethod
    def hidden(self) -> Tensor:
        """(tokens, dim) hidden states of the tokens."""

    def tiles(self, weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Multiply the block with one piece of the vocabulary after the other.

        Args:
            weight: (vocabulary, dim) output embedding, in the dtype of the hidden states.

        Yields:
            The piece, a slice of terms, and its (tokens, terms) logits without bias. The next piece overwrites them.
        """
        hidden = self.hidden
        tokens, vocab_size = len(hidden), len(weight)
        width = min(vocab_size, max(16, self.tile_logits // max(1, tokens) // 16 * 16))
        buffer = hidden.new_empty(tokens * width, dtype=self.logit_dtype)
        for start in range(0, vocab_size, width):
            terms = slice(start, min(start + width, vocab_size))
            yield terms, self._tile(hidden, weight[terms], buffer[: tokens * (terms.stop - start)])

    def _tile(self, hidden: Tensor, weight: Tensor, buffer: Tensor) -> Tensor:
        """Return the (tokens, terms) logits for a piece of the output embedding, in the memory of `buffer`."""
        return torch.mm(hidden, weight.t(), out=buffer.view(len(hidden), len(weight)))

    @abstractmethod
    def max_into(self, logits: Tensor, terms: slice, values: Tensor, argmax: Tensor | None) -> None:
        """Write each passage's maximum, and the token that reached it first.

        Args:
            logits: (tokens, terms) tile.
            terms: the tile's place in the vocabulary.
            values: (passages, vocabulary) maxima; -inf for a passage whose tokens are all masked.
            argmax: (passages, vocabulary) int32 index into the batch x length tokens of the batch, or None. Not
                meaningful for a passage whose tokens are all masked.
        """

    @abstractmethod
    def sum_into(self, weights: Tensor, terms: slice, values: Tensor) -> None:
        """Write each passage's sum of a (tokens, terms) tile to the (passages, vocabulary) `values`."""

    @abstractmethod
    def spread(self, per_passage: Tensor) -> Tensor:
        """Give every token the row of its passage: (passages, terms) to (tokens, terms), zero for masked tokens."""

    @abstractmethod
    def add_to_batch(self, per_token: Tensor, batch: Tensor) -> None:
        """Write the block's (tokens, dim) rows to their places among the (batch x length, dim) rows."""


class PackedBlock(TokenBlock):
    """Tokens in the CPU's memory, without padding.

    Attributes:
        rows: (tokens,) the tokens' places among the batch x length tokens of the batch.
        offsets: (passages + 1,) the first token of each passage.
    """

    tile_logits = CPU_TILE_LOGITS

    def __init__(self, passages: slice, batch_hidden: Tensor, rows: Tensor, offsets: np.ndarray) -> None:
        super().__init__(passages)
        self.batch_hidden = batch_hidden
        self.rows = rows
        self.offsets = offsets

    @property
    def hidden(self) -> Tensor:  # noqa: D102
        if len(self.rows) == 0:
            return self.batch_hidden[:0]
        first, last = int(self.rows[0]), int(self.rows[-1])
        without_gap = last - first + 1 == len(self.rows)
        return self.batch_hidden[first : last + 1] if without_gap else self.batch_hidden[self.rows]

    def _repeating_last(self, multiple: int) -> Tensor:
        """Return the hidden states with the last token repeated until their number is a multiple."""
        tokens = len(self.rows)
        repeated = torch.arange(-(-tokens // multiple) * multiple).clamp_(max=tokens - 1)
        return self.batch_hidden[self.rows[repeated]]

    def max_into(self, logits: Tensor, terms: slice, values: Tensor, argmax: Tensor | None) -> None:  # noqa: D102
        tile = logits.to(values.dtype).numpy()
        if argmax is None:
            segment_max(tile, self.offsets, values.numpy(), terms.start)
        else:
            segment_argmax(tile, self.offsets, self.rows.numpy(), values.numpy(), argmax.numpy(), terms.start)

    def sum_into(self, weights: Tensor, terms: slice, values: Tensor) -> None:  # noqa: D102
        tile = weights.to(values.dtype).numpy()
        segment_sum(tile, self.offsets, values.numpy(), terms.start)

    def spread(self, per_passage: Tensor) -> Tensor:  # noqa: D102
        return per_passage.repeat_interleave(torch.from_numpy(np.diff(self.offsets)), dim=0)

    def add_to_batch(self, per_token: Tensor, batch: Tensor) -> None:  # noqa: D102
        batch.index_copy_(0, self.rows, per_token)


class ShortPassage(PackedBlock):
    """One short passage, such as a query, in the CPU's memory.

    The product is made the other way round, terms x tokens: with so few tokens only the terms are enough rows for
    several threads. The last token is repeated until the tokens fill whole vectors, which doubles the speed for 15
    tokens and does not change a maximum.
    """

    most_tokens = 128

    def __init__(self, passages: slice, batch_hidden: Tensor, rows: Tensor) -> None:
        super().__init__(passages, batch_hidden, rows, np.array([0, len(rows)]))
        self.tokens = len(rows)

    @property
    def hidden(self) -> Tensor:  # noqa: D102
        return self._repeating_last(16)

    def _tile(self, hidden: Tensor, weight: Tensor, buffer: Tensor) -> Tensor:
        return torch.mm(weight, hidden.t(), out=buffer.view(len(weight), len(hidden))).t()

    def max_into(self, logits: Tensor, terms: slice, values: Tensor, argmax: Tensor | None) -> None:  # noqa: D102
        if argmax is None:
            values[0, terms] = logits.amax(dim=0).to(values.dtype)
        else:
            # Of equal entries torch.max returns the first; a repetition may differ in the last bit and win.
            best, position = logits.max(dim=0)
            values[0, terms] = best.to(values.dtype)
            argmax[0, terms] = self.rows[position.clamp_(max=self.tokens - 1)].to(argmax.dtype)

    def sum_into(self, weights: Tensor, terms: slice, values: Tensor) -> None:  # noqa: D102
        values[0, terms] = weights[: self.tokens].sum(dim=0, dtype=values.dtype)

    def spread(self, per_passage: Tensor) -> Tensor:  # noqa: D102
        spread = per_passage.repeat(-(-self.tokens // 16) * 16, 1)
        spread[self.tokens :] = 0
        return spread

    def add_to_batch(self, per_token: Tensor, batch: Tensor) -> None:  # noqa: D102
        super().add_to_batch(per_token[: self.tokens], batch)


class Int8Block(PackedBlock):
    """Tokens in 8-bit integers, whose tiles are exact 32-bit integers.

    The last token is repeated until the number of tokens is a multiple of 32, so only a maximum may be taken of a tile:
    for every shape of such a product a program is made and kept, up to a thousand of them, and their memory would grow
    with every new number of tokens.
    """

    logit_dtype = torch.int32

    @property
    def hidden(self) -> Tensor:  # noqa: D102
        return self._repeating_last(32) if len(self.rows) else self.batch_hidden[:0]

    def _tile(self, hidden: Tensor, weight: Tensor, buffer: Tensor) -> Tensor:
        return torch._int_mm(hidden, weight.t(), out=buffer.view(len(hidden), len(weight)))


class PaddedBlock(TokenBlock):
    """Tokens on any device, each passage padded to the length of the batch."""

    tile_logits = DEVICE_TILE_LOGITS

    def __init__(self, passages: slice, hidden: Tensor, mask: Tensor) -> None:
        super().__init__(passages)
        self._hidden = hidden
        self.mask = mask
        self.first_row = passages.start * mask.shape[1]

    @property
    def hidden(self) -> Tensor:  # noqa: D102
        return self._hidden

    def _by_passage(self, tile: Tensor) -> Tensor:
        return tile.view(*self.mask.shape, tile.shape[1])

    def max_into(self, logits: Tensor, terms: slice, values: Tensor, argmax: Tensor | None) -> None:  # noqa: D102
        padding = ~self.mask[:, :, None]
        best, position = self._by_passage(logits).masked_fill_(padding, -torch.inf).max(dim=1)
        values[:, terms] = best.to(values.dtype)
        if argmax is not None:
            length = self.mask.shape[1]
            start = self.first_row + length * torch.arange(len(position), device=position.device)
            argmax[:, terms] = (start[:, None] + position).to(argmax.dtype)

    def sum_into(self, weights: Tensor, terms: slice, values: Tensor) -> None:  # noqa: D102
        padding = ~self.mask[:, :, None]
        values[:, terms] = self._by_passage(weights).masked_fill(padding, 0).sum(1, dtype=values.dtype)

    def spread(self, per_passage: Tensor) -> Tensor:  # noqa: D102
        return (per_passage[:, None, :] * self.mask[:, :, None]).flatten(0, 1)

    def add_to_batch(self, per_token: Tensor, batch: Tensor) -> None:  # noqa: D102
        batch[self.first_row : self.first_row + len(per_token)] = per_token


def token_blocks(hidden: Tensor, attention_mask: Tensor) -> Iterator[TokenBlock]:
    """Cut a batch into blocks of whole passages.

    Args:
        hidden: (batch, length, dim) hidden states.
        attention_mask: (batch, length), zero for tokens that are left out.
    """
    mask = attention_mask.bool()
    if hidden.device.type != "cpu":
        return _padded_blocks(hidden, mask)
    if len(hidden) == 1 and 0 < mask.sum() <= ShortPassage.most_tokens:
        return iter([ShortPassage(slice(0, 1), hidden[0], mask[0].nonzero().squeeze(1))])
    return packed_blocks(hidden, mask, PackedBlock)


def each_block(blocks: Iterable[Block], work: Callable[[Block], Result]) -> list[Result]:
    """Do `work` on every block, without autograd, and return the results in order.

    CPU blocks are shared out among `torch.get_num_threads()` threads that multiply on their own: cores that multiply
    one tile together wait for each other at every tile, and for the pooling after it.
    """
    todo = list(blocks)
    if todo and isinstance(todo[0], PackedBlock):
        return map_in_threads(work, todo)
    return [work(block) for block in todo]


def packed_blocks(hidden: Tensor, mask: Tensor, kind: type[Packed]) -> Iterator[Packed]:
    """Cut a batch in the CPU's memory into blocks without padding.

    Args:
        hidden: (batch, length, dim) hidden states.
        mask: (batch, length) bool, False for tokens that are left out.
        kind: what to make of each block.
    """
    batch, length, dim = hidden.shape
    flat = hidden.reshape(batch * length, dim)
    lengths = mask.sum(dim=1).numpy()
    kept = mask.flatten().nonzero().squeeze(1)
    offsets = np.zeros(batch + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    start = 0
    while start < batch:
        # At least one passage, however long it is.
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + CPU_BLOCK_TOKENS, side="right")) - 1)
        rows = kept[offsets[start] : offsets[stop]]
        yield kind(slice(start, stop), flat, rows, offsets[start : stop + 1] - offsets[start])
        start = stop


def _padded_blocks(hidden: Tensor, mask: Tensor) -> Iterator[PaddedBlock]:
    batch, length, _ = hidden.shape
    step = max(1, DEVICE_BLOCK_TOKENS // max(1, length))
    for start in range(0, batch, step):
        passages = slice(start, min(start + step, batch))
        yield PaddedBlock(passages, hidden[passages].flatten(0, 1), mask[passages])
