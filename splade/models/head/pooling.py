"""The sparse head of SPLADE: hidden states in, one non-negative weight per vocabulary term out.

With logits w_ij of input token i and vocabulary term j,

    max:  w_j = max_i log(1 + ReLU(w_ij))      SPLADE v2, arXiv 2109.10086, equation 6
    sum:  w_j = sum_i log(1 + ReLU(w_ij))      SPLADE, arXiv 2107.05720, equation 2

The activation `log1p_relu` takes the logarithm once more, log(1 + log(1 + ReLU(w_ij))) (arXiv 2504.14839, section 3.2).

The maximum is taken over raw logits, because the bias is the same for every token and log(1 + ReLU(x)) is monotonic;
each of them is then applied once per term. Logits are never held for more than one small tile (`blocks`).

In training, only the token that reached a term's maximum has a gradient, and only where the weight is positive. So
`max` keeps the argmax, (batch, vocabulary) integers, instead of logits, and its backward pass is a weighted sum of
embedding rows per token and of hidden rows per term. `sum` makes its logits a second time in the backward pass.

On a GPU the maximum is made by Triton kernels where Triton is installed (`triton_kernels`), else in pieces.

Ties: where several tokens reach the same maximum, the first takes the whole gradient. `torch.max(dim)` also gives it to
one of them, `torch.amax` shares it out evenly; the loss and its other gradients do not differ.
"""

from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from splade.errors import ConfigError
from splade.models.head.blocks import PaddedBlock, TokenBlock, each_block, token_blocks
from splade.models.head.int8_filter import FilteredBatch, Int8Filter, filter_pays

Aggregation = Literal["max", "sum"]
AGGREGATIONS: tuple[Aggregation, ...] = ("max", "sum")
# As sentence-transformers names them: what is done to a logit before log(1 + x).
Activation = Literal["relu", "log1p_relu"]
ACTIVATIONS: tuple[Activation, ...] = ("relu", "log1p_relu")

Result = TypeVar("Result")


def sparse_head(
    hidden: Tensor,
    attention_mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    agg: Aggregation = "max",
    activation: Activation = "relu",
) -> Tensor:
    """Pool a batch of hidden states into term weights.

    Args:
        hidden: (batch, length, dim) states that the output embedding is applied to, after the transform of the
            masked-language-model head.
        attention_mask: (batch, length), zero for tokens that are left out.
        weight: (vocabulary, dim) output embedding.
        bias: (vocabulary,) output bias, or None.
        agg: how the tokens of a passage are aggregated.
        activation: `relu`, or `log1p_relu` for a second logarithm.

    Returns:
        (batch, vocabulary) non-negative weights, float32 (float64 for float64 hidden states). A passage whose tokens
        are all masked gets the zero vector.

    Raises:
        ConfigError: `agg` or `activation` has a value that is not allowed.

    Example:
        >>> hidden = torch.tensor([[[1.0], [3.0], [9.0]]])
        >>> mask = torch.tensor([[1, 1, 0]])
        >>> sparse_head(hidden, mask, weight=torch.tensor([[1.0], [-1.0]])).exp()
        tensor([[4., 1.]])
    """
    check_aggregation(agg)
    check_activation(activation)
    hidden, weight = _matched_dtypes(hidden, weight)
    if bias is not None:
        bias = bias.to(_accumulator(hidden.dtype))
    if agg == "sum":
        return _SumOfActivations.apply(hidden, attention_mask, weight, bias, activation)
    logits = _MaxLogits.apply(hidden, attention_mask, weight, None if bias is None else bias.detach())
    weights = torch.log1p(torch.relu(logits if bias is None else logits + bias))
    return torch.log1p(weights) if activation == "log1p_relu" else weights


@torch.inference_mode()
def pooled_blocks(
    hidden: Tensor,
    attention_mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    agg: Aggregation,
    use: Callable[[slice, Tensor], Result],
    int8_filter: Int8Filter | None = None,
    activation: Activation = "relu",
) -> list[Result]:
    """Pool a batch without autograd, a few passages at a time, so that no batch x vocabulary matrix is kept.

    The first arguments are those of `sparse_head`. `use` is given which passages of the batch, and their (passages,
    vocabulary) weights, perhaps in a thread; what it returns is returned in the order of the passages. `int8_filter`
    finds the terms that can have a weight; only for `max` in float32 on the CPU.
    """
    check_aggregation(agg)
    check_activation(activation)
    if int8_filter is not None:
        batch = FilteredBatch(int8_filter, hidden, attention_mask)
        return each_block(batch.blocks, lambda block: use(block.passages, _again(batch.weights(block), activation)))
    hidden, weight = _matched_dtypes(hidden, weight)

    def work(block: TokenBlock) -> Result:
        values = hidden.new_empty(block.size, len(weight), dtype=_accumulator(hidden.dtype))
        if agg == "sum":
            _sum_of_block(block, weight, bias, values, activation)
        else:
            _max_of_block(block, weight, values, None)
            values = _again((values if bias is None else values.add_(bias)).relu_().log1p_(), activation)
        return use(block.passages, values)

    return each_block(token_blocks(hidden, attention_mask), work)


def check_aggregation(agg: str) -> None:
    """Raise a ConfigError for anything but `max` and `sum`."""
    if agg not in AGGREGATIONS:
        raise ConfigError(f"agg={agg!r}: how tokens are aggregated must be one of {', '.join(AGGREGATIONS)}")


def check_activation(activation: str) -> None:
    """Raise a ConfigError for anything but `relu` and `log1p_relu`."""
    if activation not in ACTIVATIONS:
        raise ConfigError(f"activation={activation!r}: must be one of {', '.join(ACTIVATIONS)}")


def _again(weights: Tensor, activation: Activation) -> Tensor:
    """Take the second logarithm of weights, in place, where the activation has one."""
    return weights.log1p_() if activation == "log1p_relu" else weights


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _matched_dtypes(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Cast both factors to one dtype: that of autocast where it is on, else that of the output embedding."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return hidden.to(dtype), weight.to(dtype)


def _max_of_block(block: TokenBlock, weight: Tensor, values: Tensor, argmax: Tensor | None) -> None:
    if isinstance(block, PaddedBlock) and (kernels := _triton_kernels(weight)) is not None:
        kernels.max_into(block.hidden, block.mask, weight, values, argmax, block.first_row)
        return
    for terms, logits in block.tiles(weight):
        block.max_into(logits, terms, values, argmax)


def _filtered_max(
    hidden: Tensor, attention_mask: Tensor, weight: Tensor, bias: Tensor | None, values: Tensor, argmax: Tensor
) -> bool:
    """Fill in maxima and argmax with the int8 filter's help; return False where that would not save work."""
    if not filter_pays(weight):
        return False
    batch = FilteredBatch(Int8Filter(weight, bias), hidden, attention_mask)
    # With a block or two, trying whether it pays costs as much as it saves.
    if len(batch.blocks) < 4 or not batch.is_selective():
        return False
    each_block(batch.blocks, lambda block: batch.max_into(block, values[block.passages], argmax[block.passages]))
    return True


def _triton_kernels(weight: Tensor) -> ModuleType | None:
    """Return the Triton kernels if they can run on the weight's device and dtype."""
    if weight.device.type != "cuda" or find_spec("triton") is None:
        return None
    from splade.models.head import triton_kernels as head_triton

    return head_triton if head_triton.works_on(weight.device, weight.dtype) else None


def _sum_of_block(
    block: TokenBlock, weight: Tensor, bias: Tensor | None, values: Tensor, activation: Activation
) -> None:
    for terms, logits in block.tiles(weight):
        block.sum_into(_again(_plus(logits, bias, terms).relu_().log1p_(), activation), terms, values)


class _MaxLogits(torch.autograd.Function):
    """Maximum over a passage's tokens of hidden @ weight.T; perhaps -inf where adding `bias` leaves it below zero."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, attention_mask: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        shape = len(hidden), len(weight)
        values = hidden.new_empty(shape, dtype=_accumulator(hidden.dtype))
        argmax = hidden.new_zeros(shape, dtype=torch.int32) if any(ctx.needs_input_grad) else None
        if argmax is None or not _filtered_max(hidden, attention_mask, weight, bias, values, argmax):

            def work(block: TokenBlock) -> None:
                noted = None if argmax is None else argmax[block.passages]
                _max_of_block(block, weight, values[block.passages], noted)

            each_block(token_blocks(hidden, attention_mask), work)
        if argmax is not None:
            ctx.save_for_backward(hidden, weight, argmax)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_values: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        hidden, weight, argmax = ctx.saved_tensors
        needs_hidden, _, needs_weight, _ = ctx.needs_input_grad
        if (kernels := _triton_kernels(weight)) is not None:
            grads = kernels.gradients(hidden, weight, argmax, grad_values, needs_hidden, needs_weight)
            return grads[0], None, grads[1], None
        tokens = hidden.flatten(0, 1)
        # By term, so that what belongs to a term stands together.
        terms, passages = grad_values.t().nonzero(as_tuple=True)
        rows = argmax[passages, terms].long()
        grads = grad_values[passages, terms].to(weight.dtype)
        grad_hidden = grad_weight = None
        if needs_weight:
            grad_weight = _weighted_row_sums(tokens, rows, grads, group=terms, groups=len(weight))
        if needs_hidden:
            by_row = torch.argsort(rows)
            sums = _weighted_row_sums(weight, terms[by_row], grads[by_row], group=rows[by_row], groups=len(tokens))
            grad_hidden = sums.view_as(hidden)
        return grad_hidden, None, grad_weight, None


def _weighted_row_sums(table: Tensor, rows: Tensor, factors: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return (groups, dim): the sum over a group's entries of factor x table row. `group` is ascending."""
    starts = torch.searchsorted(group, torch.arange(groups, device=group.device))
    return functional.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=factors)


class _SumOfActivations(torch.autograd.Function):
    """Sum over a passage's tokens of log(1 + ReLU(hidden @ weight.T + bias)), or of the logarithm of that once more."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        attention_mask: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        activation: Activation,
    ) -> Tensor:
        ctx.activation = activation
        ctx.save_for_backward(hidden, attention_mask, weight, bias)
        values = hidden.new_zeros(len(hidden), len(weight), dtype=_accumulator(hidden.dtype))
        blocks = token_blocks(hidden, attention_mask)
        each_block(blocks, lambda block: _sum_of_block(block, weight, bias, values[block.passages], activation))
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_values: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None, None]:
        hidden, attention_mask, weight, bias = ctx.saved_tensors
        grad_rows = torch.zeros_like(hidden).flatten(0, 1)
        grad_weight = torch.zeros_like(weight, dtype=grad_values.dtype)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        for block in token_blocks(hidden, attention_mask):
            tokens = block.hidden
            grad_tokens = torch.zeros_like(tokens, dtype=grad_values.dtype)
            for terms, logits in block.tiles(weight):
                logits = _plus(logits, bias, terms)
                # d/dx log(1 + ReLU(x)) = 1 / (1 + x) above zero, else 0.
                slope = torch.where(logits > 0, logits.add(1).reciprocal_(), 0)
                if ctx.activation == "log1p_relu":  # d/dy log(1 + y) = 1 / (1 + y) of y = log(1 + x)
                    slope /= logits.relu().log1p_().add_(1)
                grad_logits = slope.mul_(block.spread(grad_values[block.passages, terms]))
                if grad_bias is not None:
                    grad_bias[terms] += grad_logits.sum(0)
                grad_logits = grad_logits.to(weight.dtype)
                _add_product(grad_tokens, grad_logits, weight[terms])
                grad_weight[terms] += grad_logits.t() @ tokens
            block.add_to_batch(grad_tokens.to(hidden.dtype), grad_rows)
        return grad_rows.view_as(hidden), None, grad_weight.to(weight.dtype), grad_bias, None


def _add_product(sums: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to sums of a dtype that is at least as wide: many tiles are added up."""
    if sums.dtype == left.dtype:
        sums.addmm_(left, right)
    else:
        sums += left @ right


def _plus(logits: Tensor, bias: Tensor | None, terms: slice) -> Tensor:
    """Add the bias in the accumulator's dtype; in place where the logits have it already."""
    logits = logits.to(_accumulator(logits.dtype))
    return logits if bias is None else logits.add_(bias[terms])
