"""Keeping only some of a vector's terms: the largest ones, or those that the text itself contains."""

from collections.abc import Iterable

import torch
from torch import Tensor


def keep_top_k(weights: Tensor, top_k: int) -> Tensor:
    """Keep the largest weights of each vector and set the others to zero.

    Args:
        weights: (batch, vocabulary) non-negative weights.
        top_k: how many to keep, at least 1. Of equal weights at the edge, any may stay.

    Example:
        >>> keep_top_k(torch.tensor([[1.0, 3.0, 2.0]]), top_k=2)
        tensor([[0., 3., 2.]])
    """
    if top_k >= weights.shape[1]:
        return weights
    largest, terms = weights.topk(top_k, dim=1)
    return torch.zeros_like(weights).scatter(1, terms, largest)


def keep_own_tokens(
    weights: Tensor, input_ids: Tensor, attention_mask: Tensor, special_token_ids: Iterable[int] = ()
) -> Tensor:
    """Set the weight of every term to zero that is not a token of the input (SPLADE-lexical).

    Args:
        weights: (batch, vocabulary) weights.
        input_ids: (batch, length) token ids.
        attention_mask: (batch, length), zero for tokens that do not count.
        special_token_ids: ids of tokens that do not count either, such as [CLS] and [SEP].

    Example:
        >>> weights = torch.tensor([[1.0, 3.0, 2.0]])
        >>> keep_own_tokens(weights, torch.tensor([[0, 2]]), torch.tensor([[1, 1]]), special_token_ids=[0])
        tensor([[0., 0., 2.]])
    """
    own = torch.zeros_like(weights, dtype=torch.uint8)
    # amax, not assignment: a token may occur both masked and unmasked.
    own.scatter_reduce_(1, input_ids, attention_mask.to(torch.uint8), reduce="amax")
    special = list(special_token_ids)
    if special:
        own[:, special] = 0
    return weights * own
