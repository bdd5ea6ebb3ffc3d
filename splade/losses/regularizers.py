"""Sparsity regularisers as functions of a batch of vectors, and which of the vectors' weights they count."""

import torch
from torch import Tensor


def flops_loss(vectors: Tensor, term_weights: Tensor | None = None) -> Tensor:
    """FLOPS regulariser (arXiv 2004.05665, equation 4): `sum_j (v_j mean_i |w_ij|)^2` of (batch, vocab) vectors.

    The (vocab,) `term_weights` v_j are 1 unless given; with them some terms cost more than others.
    """
    means = vectors.abs().mean(0)
    return (means if term_weights is None else means * term_weights).square().sum()


def rarity_weight(idf: Tensor) -> Tensor:
    """Return how much terms are penalised by their rarity: `1 / r_j` of `r_j = IDF_j / mean IDF`, 10 at most.

    FLOPS with these weights is what the IDF-aware score of arXiv 2411.04403 comes to where the score is a plain dot
    product: with `s = sum_j IDF_j w_j` a term adds `u_j = IDF_j w_j`, and FLOPS of w is FLOPS of `u_j / IDF_j`.

    Args:
        idf: (vocab,) inverse document frequencies, of which some are above zero.
    """
    return 1 / (idf / idf[idf > 0].mean()).clamp_min(0.1)


def l1_loss(vectors: Tensor) -> Tensor:
    """Mean over the batch of the sum of the absolute weights."""
    return vectors.abs().sum(1).mean()


def anti_zero_loss(vectors: Tensor) -> Tensor:
    """`1 / (sum of all weights)^2`: grows when the vectors of a batch collapse to zero (SIGIR 2023)."""
    return 1.0 / vectors.sum().square().clamp_min(1e-12)


def joint_flops_loss(queries: Tensor, documents: Tensor) -> Tensor:
    """FLOPS of both sides at once: `sum_j (mean_i |q_ij|) (mean_i |d_ij|)`.

    What FLOPS stands for is the work of scoring: the expected number of terms that a query and a document share (arXiv
    2004.05665, section 3). With two different encoders that is a product of both sides, so a term may be frequent in
    documents at no cost as long as queries do without it.
    """
    return (queries.abs().mean(0) * documents.abs().mean(0)).sum()


def l0_mask(vectors: Tensor, threshold: int) -> Tensor:
    """Leave out the vectors with at most `threshold` non-zero terms: they are sparse enough (arXiv 2504.14839).

    The rows of such vectors become zero, so that they still count in the mean over the batch:
    `FLOPS = sum_j (1/N sum_i M(d_i) w_ij)^2` with `M(d) = 1[||w(d)||_0 > threshold]`.
    """
    return vectors * (n_terms(vectors) > threshold)[:, None]


def beyond_top_k(vectors: Tensor, top_k: int) -> Tensor:
    """Leave out the `top_k` largest weights of each vector: only what comes after them is penalised."""
    if top_k >= vectors.shape[1]:
        return torch.zeros_like(vectors)
    return vectors.scatter(1, vectors.detach().topk(top_k, dim=1).indices, 0.0)


def n_terms(vectors: Tensor) -> Tensor:
    """(batch,) number of non-zero terms; it has no gradient."""
    return (vectors.detach() > 0).sum(1)


def mean_terms(vectors: Tensor) -> Tensor:
    """L0: mean number of non-zero terms of a vector; monitored, it has no gradient."""
    return n_terms(vectors).float().mean()


def sparsity(vectors: Tensor) -> Tensor:
    """Share of the weights that are zero; monitored, it has no gradient."""
    return (vectors.detach() <= 0).float().mean()
