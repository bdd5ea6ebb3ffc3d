"""Query encoders without a transformer: a weight per token, fixed or learned, looked up in a table."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from splade.errors import ModelError
from splade.models.encoder import SparseEncoder
from splade.models.pruning import keep_top_k
from splade.vectors import SparseVectors


class TokenLookupEncoder(SparseEncoder):
    """A text is the set of its tokens, each with a weight of its own that does not depend on the context.

    With all weights 1 and no training this is the query side of SPLADE-doc (arXiv 2109.10086, section 3.3); with IDF
    weights, the inference-free encoder of arXiv 2411.04403: the score is `sum_j IDF_j w(d)_j` over the query's tokens.

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
        self._looked_up: tuple[list[tuple[int, int]], np.ndarray] | None = None

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def table(self) -> Tensor:
        """Return the (vocab_size,) float32 weight of each token, zero for special ones."""
        return torch.relu(self.weights) * self.allowed

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (batch, vocab_size) float32 weights of (batch, length) token ids."""
        device = self.allowed.device
        input_ids, attention_mask = input_ids.to(device), attention_mask.to(device)
        present = torch.zeros(len(input_ids), self.vocab_size, device=device)
        present.scatter_reduce_(1, input_ids, attention_mask.to(present.dtype), reduce="amax")
        weights = present * self.table()
        return weights if self.top_k is None else keep_top_k(weights, self.top_k)

    @torch.inference_mode()
    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> SparseVectors:
        """Return the same as sparse rows."""
        if self.top_k is not None:
            return SparseVectors.from_dense(self(input_ids, attention_mask).cpu().numpy())
        batch = zip(input_ids.cpu().numpy(), attention_mask.cpu().numpy(), strict=True)
        rows = [self.encode_tokens(ids[mask.astype(bool)]) for ids, mask in batch]
        return SparseVectors.concatenate(rows, self.vocab_size)

    def encode_tokens(self, token_ids: Sequence[int] | np.ndarray) -> SparseVectors:
        """Return the vector of the tokens of one text, special ones among them, in a few microseconds."""
        table = self._numpy_table()
        if self.top_k is not None:
            row = torch.as_tensor(np.asarray([token_ids], dtype=np.int64))
            return SparseVectors.from_dense(self(row, torch.ones_like(row)).detach().cpu().numpy())
        terms = np.array(sorted(set(token_ids)), dtype=np.int32)
        weights = table[terms]
        kept = weights > 0
        terms, weights = terms[kept], weights[kept]
        return SparseVectors(np.array([0, len(terms)], dtype=np.int64), terms, weights, self.vocab_size)

    @torch.inference_mode()
    def token_weights(self, input_ids: Tensor, term_ids: Tensor) -> Tensor:
        """Return (length, n) float32: a token gives its weight to its own term, and nothing to the others."""
        return (input_ids.unsqueeze(1) == term_ids).float() * self.table().cpu()[term_ids]

    def _numpy_table(self) -> np.ndarray:
        """Return `table`, made anew only when a parameter has changed or moved."""
        made_from = [(parameter.data_ptr(), parameter._version) for parameter in self.parameters()]
        if self._looked_up is None or self._looked_up[0] != made_from:
            with torch.no_grad():
                self._looked_up = made_from, self.table().cpu().numpy()
        return self._looked_up[1]


class ProjectedLookupEncoder(TokenLookupEncoder):
    """A look-up whose weights are learned as a function of the tokens' embeddings (Li-LSR, arXiv 2505.01452).

    `s_i = log(1 + ReLU(w . E(x_i) + b))` of the embedding E(x_i) of token i in the language model that encodes the
    documents. Tokens that training queries never have get a weight, too, like that of tokens with similar embeddings.
    Only w and b are learned. When training has ended, the scores are a table like any other, and are saved as one.

    Args:
        embeddings: (at least vocab_size, dim) embeddings of the tokens, which stay as they are.
        vocab_size: number of terms.
        special_token_ids: tokens that never get a weight ([CLS], [SEP], padding ...).

    Example:
        >>> encoder = ProjectedLookupEncoder(torch.eye(4), 4, special_token_ids=[0])
        >>> encoder(torch.tensor([[0, 2, 3]]), torch.ones(1, 3)).tolist()  # all weights are 1 before training
        [[0.0, 0.0, 1.0, 1.0]]
    """

    embeddings: Tensor

    def __init__(self, embeddings: Tensor, vocab_size: int, special_token_ids: Iterable[int]):
        super().__init__(vocab_size, special_token_ids)
        if len(embeddings) < vocab_size:
            raise ModelError(
                f"the model has embeddings of {len(embeddings)} tokens and {vocab_size} terms: "
                "init_dict.query_weights=projected needs one for each"
            )
        del self.weights
        self.projection = nn.Parameter(torch.zeros(embeddings.shape[1]))
        self.bias = nn.Parameter(torch.tensor(math.e - 1))
        # Not persistent: a run that goes on has them from the model that it started from.
        self.register_buffer("embeddings", embeddings[:vocab_size].detach().float().clone(), persistent=False)

    def table(self) -> Tensor:
        """Return the (vocab_size,) float32 weight of each token, zero for special ones."""
        return torch.log1p(torch.relu(self.embeddings @ self.projection + self.bias)) * self.allowed
