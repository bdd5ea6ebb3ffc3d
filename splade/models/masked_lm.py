"""A transformers masked-language model as a sparse encoder, whatever its architecture.

The head of a masked-language model is a small transform of the hidden states and then one matrix product with the
output embedding, the decoder. Everything up to the decoder is left to the model; the product and the pooling are ours
(`models.head`). No architecture is known by name: transformers names the decoder, a hook takes the hidden
states just before it, and a short run on a few tokens checks that decoder weight and bias give the model's own logits.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from typing_extensions import Self

from splade.errors import ConfigError, ModelError
from splade.models.encoder import SparseEncoder
from splade.models.head.int8_filter import Int8Filter, filter_pays
from splade.models.head.pooling import (
    Activation,
    Aggregation,
    check_activation,
    check_aggregation,
    pooled_blocks,
    sparse_head,
)
from splade.models.low_precision import Precision, lower_precision
from splade.models.pruning import keep_own_tokens, keep_top_k
from splade.vectors import SparseVectors

logger = logging.getLogger(__name__)

MOST_LOGITS = 1 << 25  # held at once where the head cannot make them piece by piece: 128 MiB in float32


class MaskedLMEncoder(SparseEncoder):
    """Encodes token ids into non-negative weights over the model's vocabulary (SPLADE v2, arXiv 2109.10086).

    Args:
        model: a transformers model that returns logits over a vocabulary for each token.
        agg: how the tokens of a passage are aggregated.
        top_k: keep only the largest weights of a vector; None keeps all.
        own_tokens_only: keep only weights of tokens that the text itself contains (SPLADE-lexical).
        special_token_ids: tokens that do not count as the text's own, such as [CLS] and [SEP].
        activation: `relu`, or `log1p_relu` for a second logarithm (arXiv 2504.14839).

    Attributes:
        vocab_size: number of terms, from the decoder's weight.
        precision: of autocast in `encode`; None: there is none.
        backbone: what makes `hidden_states` in place of the model; None: the model itself.

    Raises:
        ConfigError: an option has a value that is not allowed.
        ModelError: the model has no output over a vocabulary.

    Example:
        >>> from transformers import BertConfig, BertForMaskedLM
        >>> size = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        >>> encoder = MaskedLMEncoder(BertForMaskedLM(BertConfig(vocab_size=50, **size))).eval()
        >>> input_ids = torch.tensor([[2, 7, 3], [2, 3, 0]])
        >>> weights = encoder(input_ids, attention_mask=torch.tensor([[1, 1, 1], [1, 1, 0]]))
        >>> vectors = encoder.encode(input_ids, attention_mask=torch.tensor([[1, 1, 1], [1, 1, 0]]))
        >>> weights.shape, len(vectors)
        (torch.Size([2, 50]), 2)
    """

    def __init__(
        self,
        model: PreTrainedModel,
        agg: Aggregation = "max",
        top_k: int | None = None,
        own_tokens_only: bool = False,
        special_token_ids: Sequence[int] = (),
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        check_aggregation(agg)
        check_activation(activation)
        if top_k is not None and top_k < 1:
            raise ConfigError(f"top_k={top_k}: at least one term must be kept; leave it out to keep all")
        self.model = model
        self.agg = agg
        self.activation = activation
        self.top_k = top_k
        self.own_tokens_only = own_tokens_only
        self.special_token_ids = tuple(special_token_ids)
        self.precision: torch.dtype | None = None
        self.backbone: Callable[[Tensor, Tensor], Tensor] | None = None
        self._decoder = find_decoder(model)
        self.vocab_size = _vocab_size(model, self._decoder)
        self._filter: Int8Filter | None = None
        self._filter_made_from: tuple[int, int] | None = None
        self.train(model.training)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (batch, vocab_size) float32 weights of (batch, length) token ids, for training."""
        given = self._model_inputs(input_ids, attention_mask)
        if self._decoder is None:
            weights = self._plain_formula(given)
        else:
            hidden = self._decoder.inputs(self.model, given.input_ids, given.attention_mask)
            parameters = self._decoder.parameters(self.model)
            weights = sparse_head(hidden, given.pooled, *parameters, self.agg, self.activation)
        return self._keep(weights, input_ids, attention_mask)

    @torch.inference_mode()
    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> SparseVectors:
        """Return the same as sparse vectors, without autograd and without dropout."""
        device = next(self.model.parameters()).device
        input_ids, attention_mask = input_ids.to(device), attention_mask.to(device)

        def sparse(passages: slice, weights: Tensor) -> SparseVectors:
            return positive_entries(self._keep(weights, input_ids[passages], attention_mask[passages]))

        autocast = torch.autocast(input_ids.device.type, dtype=self.precision, enabled=self.precision is not None)
        with _evaluating(self), autocast:
            given = self._model_inputs(input_ids, attention_mask)
            if self._decoder is None:
                return sparse(slice(0, len(input_ids)), self._plain_formula(given))
            hidden = self.hidden_states(given.input_ids, given.attention_mask)
            weight, bias = self._decoder.parameters(self.model)
            int8_filter = self._int8_filter(weight, bias)
            rows = pooled_blocks(hidden, given.pooled, weight, bias, self.agg, sparse, int8_filter, self.activation)
        return SparseVectors.concatenate(rows, self.vocab_size)

    @torch.inference_mode()
    def token_weights(self, input_ids: Tensor, term_ids: Tensor) -> Tensor:
        """Return the (length, n) float32 weights that each token of one text gives to some terms, before pooling."""
        device = next(self.model.parameters()).device
        row, term_ids = input_ids.to(device).unsqueeze(0), term_ids.to(device)
        autocast = torch.autocast(device.type, dtype=self.precision, enabled=self.precision is not None)
        with _evaluating(self), autocast:
            given = self._model_inputs(row, torch.ones_like(row))
            if self._decoder is None:
                logits = self.model(input_ids=given.input_ids, attention_mask=given.attention_mask).logits[
                    0, :, term_ids
                ]
            else:
                hidden = self.hidden_states(given.input_ids, given.attention_mask)[0]
                weight, bias = self._decoder.parameters(self.model)
                logits = hidden @ weight[term_ids].t()
                logits = logits if bias is None else logits + bias[term_ids]
        weights = torch.log1p(torch.relu(logits.float())) * given.pooled[0].unsqueeze(1)
        if self.activation == "log1p_relu":
            weights = torch.log1p(weights)
        return weights[-len(input_ids) :].cpu()  # of a text that is read twice, its second copy

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the (batch, length, dim) states that the output embedding is multiplied with, for inference.

        Raises:
            ModelError: the model's logits are no such product.
        """
        if self._decoder is None:
            raise ModelError(f"{type(self.model).__name__}: its logits are not one product with its output embedding")
        if self.backbone is not None:
            return self.backbone(input_ids, attention_mask)
        return self._decoder.inputs(self.model, input_ids, attention_mask)

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on or off, and forget what was derived from the weights before they change."""
        if mode:
            self._filter = None
        return super().train(mode)

    def lower_precision(self, precision: Precision) -> None:
        """Let the linear layers of the backbone multiply in fewer bits, from now on and for inference only.

        Those of the head stay: they are few, and their rounding would reach the weights undamped.

        Raises:
            ConfigError: this processor would gain nothing by it.
        """
        lower_precision(self.model.base_model, precision)

    def _int8_filter(self, weight: Tensor, bias: Tensor | None) -> Int8Filter | None:
        """Return the filter of the present weights, kept from call to call, or None where it does not pay."""
        if self.agg != "max" or torch.is_autocast_enabled(weight.device.type) or not filter_pays(weight):
            return None
        # Tensors made in inference mode do not count their changes.
        made_from = None if weight.is_inference() else (weight.data_ptr(), weight._version)
        if self._filter is None or made_from is None or made_from != self._filter_made_from:
            self._filter, self._filter_made_from = Int8Filter(weight, bias), made_from
        return self._filter

    def _keep(self, weights: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if self.own_tokens_only:
            weights = keep_own_tokens(weights, input_ids, attention_mask, self.special_token_ids)
        return weights if self.top_k is None else keep_top_k(weights, self.top_k)

    def _model_inputs(self, input_ids: Tensor, attention_mask: Tensor) -> "ModelInputs":
        """Return what the model is given of a batch, and which of its tokens are pooled."""
        return ModelInputs(input_ids, attention_mask, attention_mask)

    def _plain_formula(self, given: "ModelInputs") -> Tensor:
        """Pool the model's own logits, few passages at a time: of more, they would not fit into memory."""
        step = max(1, MOST_LOGITS // (given.input_ids.shape[1] * self.vocab_size))
        if step >= len(given.input_ids):
            return self._pooled_logits(*given)
        parts = [ModelInputs(*rows) for rows in zip(*(tensor.split(step) for tensor in given), strict=True)]
        if torch.is_grad_enabled():  # the logits of one part only are kept, and made again in the backward pass
            return torch.cat([checkpoint(self._pooled_logits, *part, use_reentrant=False) for part in parts])
        return torch.cat([self._pooled_logits(*part) for part in parts])

    def _pooled_logits(self, input_ids: Tensor, attention_mask: Tensor, pooled: Tensor) -> Tensor:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).logits
        weights = torch.log1p(torch.relu(logits.float())) * pooled.unsqueeze(-1)
        if self.activation == "log1p_relu":
            weights = torch.log1p(weights)
        return weights.sum(dim=1) if self.agg == "sum" else weights.max(dim=1).values


class ModelInputs(NamedTuple):
    """What a language model is given.

    Attributes:
        input_ids: (batch, length) int64 token ids.
        attention_mask: (batch, length), zero for padding, or (batch, 1, length, length) as transformers takes it.
        pooled: (batch, length), nonzero for the tokens whose logits are pooled.
    """

    input_ids: Tensor
    attention_mask: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class Decoder:
    """Where a model keeps the last matrix product of its head.

    Attributes:
        module: name of the linear layer that makes logits.
        bias: name of the parameter that is added to its product, or None.
        scale: the logits are this times the product, as those of Cohere's and Granite's models.
    """

    module: str
    bias: str | None
    scale: float = 1.0

    def inputs(self, model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Run the model up to the decoder and return the (batch, length, dim) states that the decoder is applied to."""
        captured: list[Tensor] = []
        thread = get_ident()

        def capture(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            if get_ident() != thread:  # another thread encodes another batch
                return None
            captured.append(args[0])
            # The decoder still runs, on no token at all: the model's own code stays whole and costs nothing.
            return (args[0][:, :0], *args[1:])

        with model.get_submodule(self.module).register_forward_pre_hook(capture):
            model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
        if not captured:
            raise RuntimeError(f"{self.module} is never called")
        return captured[0] if self.scale == 1 else captured[0] * self.scale

    def parameters(self, model: nn.Module) -> tuple[Tensor, Tensor | None]:
        """Return the (vocabulary, dim) weight and the (vocabulary,) bias."""
        weight = model.get_parameter(f"{self.module}.weight")
        return weight, None if self.bias is None else model.get_parameter(self.bias)


def find_decoder(model: nn.Module) -> Decoder | None:
    """Find the decoder of a masked-language model, or log why the plain formula must do.

    Returns:
        The decoder whose weight and bias reproduce the model's logits on a few tokens, or None if there is none.
    """
    try:
        return _decoder(model)
    except _NoDecoder as reason:
        logger.warning(
            "%s: %s; the plain formula is used, which is slower and holds all logits of a text",
            type(model).__name__,
            reason,
        )
        return None


class _NoDecoder(Exception):
    """Why a model's logits cannot be made piece by piece."""


def _decoder(model: nn.Module) -> Decoder:
    layer = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    name = next((name for name, module in model.named_modules() if module is layer), None)
    if name is None or not isinstance(getattr(layer, "weight", None), nn.Parameter):
        raise _NoDecoder("it names no output embedding")
    if getattr(model.config, "final_logit_softcapping", None) is not None:  # shows with large logits only
        raise _NoDecoder("it caps its logits")
    parameters = dict(model.named_parameters(remove_duplicate=False))
    weight = parameters[f"{name}.weight"]
    if weight.is_meta:
        raise _NoDecoder("its output embedding has no values yet")
    logits, product = _logits_and_product(model, Decoder(name, None), weight)
    tolerance = 1e-4 if logits.dtype == torch.float32 else 2e-2
    # Its own bias, or one that the module around it adds afterwards.
    for bias in (f"{name}.bias", f"{name.rpartition('.')[0]}.bias", None):
        if bias is not None and (bias not in parameters or parameters[bias].shape != weight.shape[:1]):
            continue
        expected = product if bias is None else product + parameters[bias]
        if logits.shape == expected.shape and torch.allclose(logits, expected, rtol=tolerance, atol=tolerance):
            return Decoder(name, bias)
    if logits.shape == product.shape and product.any():
        scale = ((logits * product).sum() / product.square().sum()).item()
        if torch.allclose(logits, scale * product, rtol=tolerance, atol=tolerance):
            return Decoder(name, None, scale)
    raise _NoDecoder("its logits are not one product with its output embedding")


@torch.no_grad()
def _logits_and_product(model: nn.Module, decoder: Decoder, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the model's logits of a few tokens, and the product of decoder weight and decoder inputs."""
    # Ids away from zero and one, which some models read as padding.
    input_ids = torch.arange(4, device=weight.device).add(2).remainder(len(weight)).unsqueeze(0)
    attention_mask = torch.ones_like(input_ids)
    with _evaluating(model):
        logits = model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).logits
        try:
            return logits, decoder.inputs(model, input_ids, attention_mask) @ weight.t()
        except (RuntimeError, TypeError, ValueError) as error:
            raise _NoDecoder(f"it cannot be run up to its output embedding ({error})") from error


def _vocab_size(model: nn.Module, decoder: Decoder | None) -> int:
    if decoder is not None:
        return len(decoder.parameters(model)[0])
    vocab_size = getattr(getattr(model, "config", None), "vocab_size", None)
    if not isinstance(vocab_size, int):
        raise ModelError(
            f"{type(model).__name__} has no output over a vocabulary; give a masked-language model, "
            "such as one that AutoModelForMaskedLM loads"
        )
    return vocab_size


def positive_entries(weights: Tensor) -> SparseVectors:
    """Return the positive entries of (passages, vocabulary) weights as arrays."""
    # Not "weights > 0": NaN must be seen, not dropped.
    rows, terms = (~(weights <= 0)).nonzero(as_tuple=True)
    kept = weights[rows, terms].cpu().numpy().astype(np.float32, copy=False)
    if not np.isfinite(kept).all():
        raise ModelError(
            "the model gave weights that are not finite numbers; it has diverged in training, or its values are too "
            "large for half precision (use float32 or bf16)"
        )
    indptr = np.zeros(len(weights) + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows.cpu().numpy(), minlength=len(weights)), out=indptr[1:])
    return SparseVectors(indptr, terms.cpu().numpy().astype(np.int32), kept, weights.shape[1])


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Switch dropout off inside the block."""
    training = module.training
    if training:
        module.eval()
    try:
        yield
    finally:
        if training:
            module.train()
