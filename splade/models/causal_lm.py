"""A decoder language model as a sparse encoder.

A causal model sees, at each token, only the tokens before it, so that the logits of a text's first tokens know nothing
of the rest. Two remedies, which may be combined:

- `attention="bidirectional"`: every token attends to all others; the model has to get used to it in training.
- `repeat_text=True`: the model is given the text twice, and only the second copy, whose tokens have seen all of the
  text, is pooled (Echo-Mistral-SPLADE, arXiv 2408.11119; echo embeddings, arXiv 2402.15449).

Special tokens are not pooled: the first token of a causal model has the same logits whatever the text.
"""

from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from splade.errors import ModelError
from splade.models.head.pooling import Activation, Aggregation
from splade.models.masked_lm import MaskedLMEncoder, ModelInputs

Attention = Literal["causal", "bidirectional"]
ATTENTIONS: tuple[Attention, ...] = ("causal", "bidirectional")
# Names in a model's config.json, so that its folder says how it was trained.
READING = ATTENTION_KEY, REPEAT_KEY = "splade_attention", "splade_repeat_text"


def is_causal_lm(model_type: object) -> bool:
    """Return whether an architecture (`model_type` of config.json) is a decoder without a masked-language model.

    Example:
        >>> is_causal_lm("llama"), is_causal_lm("bert")
        (True, False)
    """
    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


class CausalLMEncoder(MaskedLMEncoder):
    """Encodes token ids into non-negative weights over the vocabulary of a decoder language model.

    Args:
        model: a transformers model with a causal language-model head.
        agg: how the tokens of a passage are aggregated.
        top_k: keep only the largest weights of a vector; None keeps all.
        own_tokens_only: keep only weights of tokens that the text itself contains.
        special_token_ids: tokens that are not pooled, such as the one that begins a text.
        activation: see `splade.models.head.pooling`.
        attention: `causal`, or `bidirectional`; None: what the model's configuration says, else `causal`.
        repeat_text: give the model the text twice; None: what its configuration says, else not.

    Raises:
        ModelError: the model cannot attend in both directions.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> size = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        >>> encoder = CausalLMEncoder(LlamaForCausalLM(LlamaConfig(vocab_size=50, **size)), repeat_text=True).eval()
        >>> encoder(torch.tensor([[1, 7, 3]]), attention_mask=torch.tensor([[1, 1, 1]])).shape
        torch.Size([1, 50])
    """

    def __init__(
        self,
        model: PreTrainedModel,
        agg: Aggregation = "max",
        top_k: int | None = None,
        own_tokens_only: bool = False,
        special_token_ids: tuple[int, ...] | list[int] = (),
        activation: Activation = "relu",
        attention: Attention | None = None,
        repeat_text: bool | None = None,
    ) -> None:
        super().__init__(model, agg, top_k, own_tokens_only, special_token_ids, activation)
        self.attention = attention or getattr(model.config, ATTENTION_KEY, "causal")
        if self.attention not in ATTENTIONS:
            raise ModelError(f"config.json: {ATTENTION_KEY}={self.attention!r}: must be one of {', '.join(ATTENTIONS)}")
        self.repeat_text = bool(getattr(model.config, REPEAT_KEY, False) if repeat_text is None else repeat_text)
        setattr(model.config, ATTENTION_KEY, self.attention)
        setattr(model.config, REPEAT_KEY, self.repeat_text)
        model.config.use_cache = False  # keys and values of earlier tokens are for writing texts
        if self.attention == "bidirectional":
            self._check_sees_later_tokens()

    @property
    def copies(self) -> int:
        """How many times the model reads a text."""
        return 2 if self.repeat_text else 1

    def _model_inputs(self, input_ids: Tensor, attention_mask: Tensor) -> ModelInputs:
        special = torch.tensor(self.special_token_ids, dtype=input_ids.dtype, device=input_ids.device)
        pooled = attention_mask * ~torch.isin(input_ids, special)
        if self.repeat_text:
            input_ids, attention_mask, pooled = repeated(input_ids, attention_mask, pooled)
        if self.attention == "bidirectional":
            attention_mask = both_directions(attention_mask, self.model.dtype)
        return ModelInputs(input_ids, attention_mask, pooled)

    @torch.no_grad()
    def _check_sees_later_tokens(self) -> None:
        """Change the last of three tokens: the first one must notice."""
        ids = torch.tensor([[2, 3, 4], [2, 3, 5]], device=self.model.device).remainder(self.vocab_size)
        given = self._model_inputs(ids, torch.ones_like(ids))
        training = self.model.training
        try:
            states = self.model.eval()(input_ids=given.input_ids, attention_mask=given.attention_mask).logits[:, 0]
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ModelError(
                f"{type(self.model).__name__} cannot attend in both directions ({error}); set "
                "init_dict.attention=causal, perhaps with init_dict.repeat_text=true"
            ) from error
        finally:
            self.model.train(training)
        if torch.equal(states[0], states[1]):
            raise ModelError(
                f"{type(self.model).__name__} takes no notice of later tokens whatever mask it is given; set "
                "init_dict.attention=causal, perhaps with init_dict.repeat_text=true"
            )


def repeated(input_ids: Tensor, attention_mask: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Put a second copy of each text right behind the first; only the second is pooled.

    Args:
        input_ids: (batch, length) token ids, padded on the right.
        attention_mask: (batch, length), zero for padding.
        pooled: (batch, length), nonzero for tokens of a text that are pooled.

    Returns:
        The same three of (batch, 2 * length).

    Example:
        >>> ids, mask = torch.tensor([[5, 6], [7, 0]]), torch.tensor([[1, 1], [1, 0]])
        >>> [tensor.tolist() for tensor in repeated(ids, mask, mask)]
        [[[5, 6, 5, 6], [7, 7, 0, 0]], [[1, 1, 1, 1], [1, 1, 0, 0]], [[0, 0, 1, 1], [0, 1, 0, 0]]]
    """
    lengths = attention_mask.sum(dim=1, keepdim=True)
    place = torch.arange(2 * input_ids.shape[1], device=input_ids.device).expand(len(input_ids), -1)
    second, there = place >= lengths, place < 2 * lengths
    source = torch.where(there, place - second * lengths, 0)
    ids = torch.where(there, input_ids.gather(1, source), 0)
    return ids, there.to(attention_mask.dtype), pooled.gather(1, source) * (second & there)


def both_directions(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the (batch, 1, length, length) mask, added to attention scores, that hides nothing but padding."""
    hidden = (attention_mask == 0)[:, None, None, :].expand(-1, 1, attention_mask.shape[1], -1)
    return torch.zeros(hidden.shape, dtype=dtype, device=attention_mask.device).masked_fill_(
        hidden, torch.finfo(dtype).min
    )
