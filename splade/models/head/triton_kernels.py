"""Triton kernels for the maximum over tokens of hidden @ weight.T, forward and backward, on a GPU.

The forward kernel is a matrix product whose result never leaves the chip: one program multiplies the tokens of one
passage with one piece of the vocabulary, a few tokens at a time, and keeps the running maximum and the token that
reached it. Fusing the two is the idea of Sparton (arXiv 2603.25011). The backward kernels follow the argmax, and add up
in a fixed order: training on a GPU can be repeated.

`head.pooling` uses these where Triton and a GPU are there, and does without them elsewhere. They have been
checked in Triton's interpreter (`TRITON_INTERPRET=1`) against the plain formula, in float32 and float16 (it cannot
multiply bfloat16); they have not been run, timed or tuned on a GPU.
"""

import logging
from subprocess import SubprocessError

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

logger = logging.getLogger(__name__)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_works: dict[tuple[torch.device, torch.dtype], bool] = {}


def works_on(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels can be compiled for a device and a dtype and give the right result; logs why not, once.

    Memory that is short for a moment says nothing about the kernels: the next call tries again.
    """
    if dtype not in DTYPES:
        return False
    if (device, dtype) not in _works:
        try:
            _works[device, dtype] = _gives_right_results(device, dtype)
        except torch.OutOfMemoryError:
            return False
        except (TritonError, RuntimeError, OSError, SubprocessError) as error:
            logger.warning("Triton cannot be used on %s (%s); the head works in pieces instead", device, error)
            _works[device, dtype] = False
        else:
            if not _works[device, dtype]:
                logger.warning("Triton gives wrong %s on %s; the head works in pieces instead", dtype, device)
    return _works[device, dtype]


def _gives_right_results(device: torch.device, dtype: torch.dtype) -> bool:
    """Run every kernel on numbers that all dtypes hold exactly."""
    hidden, weight = (torch.eye(rows, 16, dtype=dtype, device=device) for rows in (16, 32))
    values = torch.empty(1, 32, device=device)
    argmax = torch.zeros(1, 32, dtype=torch.int32, device=device)
    max_into(hidden, torch.ones(1, 16, dtype=torch.bool, device=device), weight, values, argmax, 0)
    found = gradients(hidden.unsqueeze(0), weight, argmax, torch.ones_like(values), True, True)
    rows = argmax[0].long()
    pairs = [
        (values[0], weight.amax(1).float()),
        (found[0], torch.zeros_like(hidden).index_add_(0, rows, weight).unsqueeze(0)),
        (found[1], hidden[rows]),
    ]
    return all(computed is not None and torch.equal(computed, expected) for computed, expected in pairs)


def max_into(
    hidden: Tensor, mask: Tensor, weight: Tensor, values: Tensor, argmax: Tensor | None, first_row: int
) -> None:
    """Write each passage's maximum logits, and the tokens that reached them first.

    Args:
        hidden: (passages x length, dim) hidden states.
        mask: (passages, length) bool, False for padding.
        weight: (vocabulary, dim) output embedding, in the dtype of the hidden states.
        values: (passages, vocabulary) float32; -inf for a passage whose tokens are all masked.
        argmax: (passages, vocabulary) int32 `first_row` + row of `hidden`, or None.
        first_row: number of the first row of `hidden` among those of the batch.
    """
    passages, length = mask.shape
    vocab_size, dim = weight.shape
    positions = torch.arange(1, length + 1, device=mask.device)
    ends = (mask * positions).amax(dim=1).to(torch.int32)
    block_tokens, block_terms, block_dim = 64, 128, 32 if hidden.dtype == torch.float32 else 64
    exact = hidden.dtype == torch.float32 and not tf32_allowed()
    with torch.cuda.device_of(hidden):
        _max_kernel[(passages, triton.cdiv(vocab_size, block_terms))](
            hidden.contiguous(),
            mask.to(torch.int8),
            ends,
            weight.contiguous(),
            values,
            values if argmax is None else argmax,
            length,
            vocab_size,
            dim,
            values.stride(0),
            first_row,
            argmax is not None,
            "ieee" if exact else "tf32",
            block_tokens,
            block_terms,
            block_dim,
        )


def tf32_allowed() -> bool:
    """Whether PyTorch may round the factors of float32 products; its older setting cannot be read beside the newer."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        return matmul.fp32_precision == "tf32"
    return matmul.allow_tf32


def gradients(
    hidden: Tensor, weight: Tensor, argmax: Tensor, grad_values: Tensor, needs_hidden: bool, needs_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of the hidden states and of the output embedding, each None if not needed.

    Every sum is taken in one order, so that the same numbers come out each time.

    Args:
        hidden: (batch, length, dim) hidden states.
        weight: (vocabulary, dim) output embedding.
        argmax: (batch, vocabulary) int32 rows of the flattened hidden states.
        grad_values: (batch, vocabulary) gradient of the maxima, mostly zero.
        needs_hidden: whether the first is needed.
        needs_weight: whether the second is needed.
    """
    batch, vocab_size = argmax.shape
    dim = weight.shape[1]
    grads = grad_values.float().contiguous()
    width = triton.next_power_of_2(dim)
    grad_hidden = grad_weight = None
    with torch.cuda.device_of(hidden):
        if needs_weight:
            grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
            _grad_weight_kernel[(vocab_size,)](
                hidden.contiguous(), argmax, grads, grad_weight, batch, vocab_size, dim, width
            )
        if needs_hidden:
            grad_hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
            terms, starts = _terms_by_row(argmax, grads, batch * hidden.shape[1])
            _grad_hidden_kernel[(batch * hidden.shape[1],)](
                weight.contiguous(), terms, starts, grads, grad_hidden, hidden.shape[1], vocab_size, dim, width
            )
    return grad_hidden, grad_weight


def _terms_by_row(argmax: Tensor, grads: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Sort the terms with a gradient by the row that gets it, those of a row ascending.

    Returns:
        (batch x vocabulary,) int64 terms, and (rows + 1,) int64: where the terms of each row begin.
    """
    without = torch.where(grads != 0, argmax, rows).flatten()
    by_row, entries = without.sort(stable=True)
    starts = torch.searchsorted(by_row, torch.arange(rows + 1, dtype=by_row.dtype, device=by_row.device))
    return entries % argmax.shape[1], starts


@triton.jit
def _max_kernel(
    hidden,
    mask,
    ends,
    weight,
    values,
    argmax,
    length,
    vocab_size,
    dim,
    row_stride,
    first_row,
    with_argmax: tl.constexpr,
    precision: tl.constexpr,
    block_tokens: tl.constexpr,
    block_terms: tl.constexpr,
    block_dim: tl.constexpr,
):
    passage = tl.program_id(0).to(tl.int64)
    terms = tl.program_id(1) * block_terms + tl.arange(0, block_terms)
    known_terms = terms < vocab_size
    best = tl.full((block_terms,), float("-inf"), tl.float32)
    best_token = tl.zeros((block_terms,), tl.int32)
    # Padding after the last token costs nothing.
    for start in range(0, tl.load(ends + passage), block_tokens):
        tokens = start + tl.arange(0, block_tokens)
        kept = tl.load(mask + passage * length + tokens, mask=tokens < length, other=0) != 0
        rows = passage * length + tokens
        logits = tl.zeros((block_tokens, block_terms), tl.float32)
        for first_dim in range(0, dim, block_dim):
            dims = first_dim + tl.arange(0, block_dim)
            known_dims = dims < dim
            left = tl.load(hidden + rows[:, None] * dim + dims, mask=kept[:, None] & known_dims, other=0.0)
            right = tl.load(
                weight + terms[None, :].to(tl.int64) * dim + dims[:, None],
                mask=known_terms[None, :] & known_dims[:, None],
                other=0.0,
            )
            logits = tl.dot(left, right, logits, input_precision=precision)
        # NaN must stay visible: it becomes infinity, which no maximum hides.
        logits = tl.where(logits == logits, logits, float("inf"))
        logits = tl.where(kept[:, None], logits, float("-inf"))
        highest, position = tl.max(logits, axis=0, return_indices=True, return_indices_tie_break_left=True)
        higher = highest > best
        best = tl.where(higher, highest, best)
        best_token = tl.where(higher, start + position, best_token)
    tl.store(values + passage * row_stride + terms, best, mask=known_terms)
    if with_argmax:
        argmax_rows = first_row + passage * length + best_token
        tl.store(argmax + passage * row_stride + terms, argmax_rows.to(tl.int32), mask=known_terms)


@triton.jit
def _grad_weight_kernel(hidden, argmax, grads, grad_weight, batch, vocab_size, dim, width: tl.constexpr):
    term = tl.program_id(0).to(tl.int64)
    dims = tl.arange(0, width)
    total = tl.zeros((width,), tl.float32)
    for passage in range(0, batch):
        entry = passage * vocab_size + term
        grad = tl.load(grads + entry)
        if grad != 0.0:
            row = tl.load(argmax + entry).to(tl.int64)
            total += grad * tl.load(hidden + row * dim + dims, mask=dims < dim, other=0.0).to(tl.float32)
    tl.store(grad_weight + term * dim + dims, total.to(grad_weight.dtype.element_ty), mask=dims < dim)


@triton.jit
def _grad_hidden_kernel(weight, terms, starts, grads, grad_hidden, length, vocab_size, dim, width: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    passage = row // length
    dims = tl.arange(0, width)
    total = tl.zeros((width,), tl.float32)
    for entry in range(tl.load(starts + row), tl.load(starts + row + 1)):
        term = tl.load(terms + entry)
        grad = tl.load(grads + passage * vocab_size + term)
        total += grad * tl.load(weight + term * dim + dims, mask=dims < dim, other=0.0).to(tl.float32)
    tl.store(grad_hidden + row * dim + dims, total.to(grad_hidden.dtype.element_ty), mask=dims < dim)
