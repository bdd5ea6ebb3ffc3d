"""Rescaling the head of a language model before training (Jang et al., arXiv 2606.18811).

SPLADE takes a model's logits as they are and scores by an unnormalised dot product. Some models have logits that are
many times larger than BERT's: the mean row of ModernBERT's output embedding has a norm of 2.55. Their first scores, and
the gradients of every loss over them, are so large that training collapses. Dividing the output embedding once, before
training, by a constant k (the paper finds 8 to 16 for ModernBERT and Ettin) mends it.

A factor for each term makes some terms count more, as rare ones do in BM25.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from splade.errors import ModelError
from splade.models.masked_lm import find_decoder


@torch.no_grad()
def scale_logits(model: PreTrainedModel, factors: Tensor) -> None:
    """Multiply the output embedding and its bias, in place, so that every logit is `factors` times what it was.

    An output embedding that is tied to the input embedding is untied, here and in the model's configuration: what the
    model reads stays what it was.

    Args:
        model: a masked-language model.
        factors: one number, or (vocabulary,) of them.

    Raises:
        ModelError: the logits are not one product with an output embedding.

    Example:
        >>> from transformers import BertConfig, BertForMaskedLM
        >>> size = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        >>> model, ids = BertForMaskedLM(BertConfig(vocab_size=50, **size)).eval(), torch.tensor([[2, 7, 3]])
        >>> before, factors = model(ids).logits, torch.linspace(0.5, 2, 50)
        >>> scale_logits(model, factors)
        >>> torch.allclose(model(ids).logits, before * factors)
        True
    """
    decoder = find_decoder(model)
    if decoder is None:
        raise ModelError(
            f"{type(model).__name__} has no output embedding that could be scaled; leave init_dict.head_divisor null"
        )
    weight, bias = decoder.parameters(model)
    factors = factors.to(weight)
    holders = dict(model.named_parameters(remove_duplicate=False))
    own = {f"{decoder.module}.weight": weight * factors.unsqueeze(-1)}
    if bias is not None:
        own |= {name: bias * factors for name, parameter in holders.items() if parameter is bias}
    for name, values in own.items():
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(values))
    model.config.tie_word_embeddings = False
