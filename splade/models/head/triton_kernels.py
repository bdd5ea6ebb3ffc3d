"""Triton kernels for the maximum over tokens of hidden @ weight.T, forward and backward, on a GPU.

The forward kernel is a matrix product whose result never leaves the chip: one program multiplies the tokens of one
passage with one piece of the vocabulary, a few tokens at a time, and keeps the running maximum and the token that
reached it. Fusing the two is the idea of Sparton (arXiv 2603.25011). The backward kernels follow the argmax.

`head.pooling` uses these where Triton and a GPU are there, and does without them elsewhere. They have been
checked in Triton's interpreter (`TRITON_INTERPRET=1`) against the plain formula; they have not been timed or tuned on
a GPU.
"""

import logging
from functools import cache
from subprocess import SubprocessError

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

logger = logging.getLogger(__name__)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@cache
def works_on(device: torch.device) -> bool:
    """Whether the kernels can be compiled for a device and give the right result there; logs why not, once."""
    hidden, weight = torch.eye(16, device=device), torch.eye(32, 16, device=device)
    values = torch.empty(1, 32, device=device)
    argmax = torch.zeros(1, 32, dtype=torch.int32, device=device)
    grads = torch.ones(1, 32, device=device)
    try:
        max_into(hidden, torch.ones(1, 16, dtype=torch.bool, device=device), weight, values, argmax, 0)
        _, grad_weight = gradients(hidden.unsqueeze(0), weight, argmax, grads, True, True)
    except (TritonError, RuntimeError, OSError, SubprocessError) as error:
        logger.warning("Triton cannot be used on %s (%s); the head works in pieces instead", device, error)
        return False
    expected = hidden[argmax[0].long()]
    right = torch.equal(values[0], weight.amax(1)) and grad_weight is not None and torch.equal(grad_weight, expected)
    if not right:
        logger.warning("Triton gives wrong results on %s; the head works in pieces instead", device)
    return right


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
    exact = hidden.dtype == torch.float32 and not torch.backends.cuda.matmul.allow_tf32
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


def gradients(
    hidden: Tensor, weight: Tensor, argmax: Tensor, grad_values: Tensor, needs_hidden: bool, needs_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of the hidden states and of the output embedding, each None if not needed.

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
    if needs_weight:
        grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
        _grad_weight_kernel[(vocab_size,)](
            hidden.contiguous(), argmax, grads, grad_weight, batch, vocab_size, dim, width
        )
    if needs_hidden:
        sums = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        block_terms = 64
        grid = (batch, triton.cdiv(vocab_size, block_terms))
        _grad_hidden_kernel[grid](weight.contiguous(), argmax, grads, sums, vocab_size, dim, width, block_terms)
        grad_hidden = sums.to(hidden.dtype)
    return grad_hidden, grad_weight


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
def _grad_hidden_kernel(
    weight, argmax, grads, grad_hidden, vocab_size, dim, width: tl.constexpr, block_terms: tl.constexpr
):
    passage = tl.program_id(0).to(tl.int64)
    first_term = tl.program_id(1).to(tl.int64) * block_terms
    dims = tl.arange(0, width)
    for term in range(first_term, tl.minimum(first_term + block_terms, vocab_size)):
        entry = passage * vocab_size + term
        grad = tl.load(grads + entry)
        if grad != 0.0:
            row = tl.load(argmax + entry).to(tl.int64)
            part = grad * tl.load(weight + term * dim + dims, mask=dims < dim, other=0.0).to(tl.float32)
            tl.atomic_add(grad_hidden + row * dim + dims, part, mask=dims < dim)
