"""The loss of masked-language modelling, made without the logits of all masked tokens at once."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

MOST_LOGITS = 1 << 24  # held at once: 64 MiB in float32


def masked_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    """Sum over tokens of -log softmax(hidden @ weight.T + bias) at the label (BERT, arXiv 1810.04805, section 3.1).

    The logits are made a few tokens at a time, and again in the backward pass, so that memory does not grow with tokens
    x vocabulary.

    Args:
        hidden: (tokens, dim) states that the output embedding is applied to.
        weight: (vocabulary, dim) output embedding.
        bias: (vocabulary,) output bias, or None.
        labels: (tokens,) int64, the term that stood there.

    Returns:
        A float32 scalar; zero for no tokens.

    Example:
        >>> hidden, weight = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [2.0, 5.0]])
        >>> masked_cross_entropy(hidden, weight, None, torch.tensor([1])).exp()  # two terms, equally likely
        tensor(2.)
    """
    step = max(1, MOST_LOGITS // len(weight))
    parts = zip(hidden.split(step), labels.split(step), strict=True)
    losses = [checkpoint(_cross_entropy, part, weight, bias, asked, use_reentrant=False) for part, asked in parts]
    return torch.stack(losses).sum()


def _cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias)
    return cross_entropy(logits.float(), labels, reduction="sum")
