"""Query encoders without a transformer: a fixed or learned weight per token."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from splade.models.encoder import SparseEncoder
from splade.models.pruning import keep_top_k
from splade.vectors import SparseVectors


class TokenLookupEncoder(SparseEncoder):
    """A text is the set of its tokens, each with a weight of its own that does not depend on the context.

    With all weights 1 and no training this is the query side of SPLADE-doc (arXiv 2109.10086, section 3.3); with
    learned or IDF weights it is an inference-free query encoder (Li-LSR, arXiv 2505.01452).

    Args:
        vocab_size: number of terms.
        special_token_ids: tokens that never get a weight ([CLS], [SEP], padding ...).
        weights: (vocab_size,) initial weights; None: 1 each.
        trainable: learn the weights; a negative one counts as zero.
        top_k: keep only the largest weights of a vector; None keeps all.

    Example:
        >>> encoder = TokenLookupEncoder(5, special_token_ids=[0, 1])
        >>> encoder(torch.tensor([[1, 3, 3, 4, 0]]), torch.tensor([[1, 1, 1, 1, 0]])).tolist()
        [[0.0, 0.0, 0.0, 1.0, 1.0]]
    """

    allowed: Tensor

    def __init__(
        self,
        vocab_size: int,
        special_token_ids: Iterable[int],
        weights: Tensor | None = None,
        trainable: bool = False,
        top_k: int | None = None,
    ):
        super().__init__()
        self.vocab_size = vocab_size
        self.top_k = top_k
        weights = torch.ones(vocab_size) if weights is None else weights.detach().float().clone()
        self.weights = nn.Parameter(weights, requires_grad=trainable)
        allowed = torch.ones(vocab_size)
        allowed[sorted(set(special_token_ids))] = 0.0
        self.register_buffer("allowed", allowed, persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (batch, vocab_size) float32 weights of (batch, length) token ids."""
        present = torch.zeros(len(input_ids), self.vocab_size, device=input_ids.device)
        present.scatter_reduce_(1, input_ids, attention_mask.to(present.dtype), reduce="amax")
        weights = present * self.allowed * torch.relu(self.weights)
        return weights if self.top_k is None else keep_top_k(weights, self.top_k)

    @torch.inference_mode()
    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> SparseVectors:
        """Return the same as sparse rows."""
        if self.top_k is not None:
            return SparseVectors.from_dense(self(input_ids, attention_mask).cpu().numpy())
        table = (torch.relu(self.weights) * self.allowed).cpu().numpy()
        rows = [
            np.unique(ids[mask.astype(bool)])
            for ids, mask in zip(input_ids.cpu().numpy(), attention_mask.cpu().numpy(), strict=True)
        ]
        rows = [terms[table[terms] > 0] for terms in rows]
        indptr = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(terms) for terms in rows], out=indptr[1:])
        terms = np.concatenate(rows).astype(np.int32) if rows else np.zeros(0, np.int32)
        return SparseVectors(indptr, terms, table[terms], self.vocab_size)
