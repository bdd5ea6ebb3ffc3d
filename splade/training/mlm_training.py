"""Middle-training: masked-language modelling, and a regulariser of the vectors that the model would give.

A language model that goes through it knows the collection's language, and its pooled output is sparse before any query
was seen: efficient SPLADE models start from there (arXiv 2207.03834).
"""

import torch
from torch import Tensor, nn

from splade.distributed import n_processes
from splade.errors import ModelError
from splade.losses import Regularizer
from splade.losses.masked_language_model import masked_cross_entropy
from splade.losses.ranking import span_contrast
from splade.models.head.pooling import sparse_head
from splade.models.masked_lm import MaskedLMEncoder, find_decoder
from splade.training.masked_texts import NOT_ASKED, MaskedBatch, n_asked
from splade.training.objective import MONITORED, RECOUNTED, RegularizedObjective, gather_rows


class MaskedLanguageModel(nn.Module):
    """A masked-language model that is run once for both of its outputs: the loss of its guesses, and sparse vectors.

    Raises:
        ModelError: the model's logits are not one product with its output embedding.
    """

    def __init__(self, encoder: MaskedLMEncoder):
        super().__init__()
        decoder = find_decoder(encoder.model)
        if decoder is None:
            raise ModelError(
                f"{type(encoder.model).__name__}: its head cannot be run piece by piece, so it cannot be middle-trained"
            )
        self.encoder, self._decoder = encoder, decoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed cross-entropy of the hidden tokens, a scalar, and the (batch, vocab_size) vectors."""
        model, encoder = self.encoder.model, self.encoder
        hidden = self._decoder.inputs(model, input_ids, attention_mask)
        weight, bias = self._decoder.parameters(model)
        asked = labels != NOT_ASKED
        loss = masked_cross_entropy(hidden[asked], weight, bias, labels[asked])
        return loss, sparse_head(hidden, attention_mask, weight, bias, encoder.agg, encoder.activation)


class MiddleTrainingObjective(RegularizedObjective[MaskedBatch]):
    """The mean cross-entropy of the hidden tokens, plus the regularisers of the vectors as of documents.

    With several processes the mean is that over all their tokens, and the regularisers are those of all vectors.

    Args:
        regularizers: of the vectors.
        span_weight: of the contrast between the two halves of the batch, the spans of its texts; 0: there are none.
    """

    def __init__(self, regularizers: list[Regularizer], span_weight: float = 0.0):
        super().__init__(regularizers)
        self.span_weight = span_weight

    def __call__(
        self, model: nn.Module, batch: MaskedBatch, step: float, gather: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to minimise, and named detached terms; the arguments are those of `Objective`."""
        total, vectors = model(batch["input_ids"], batch["attention_mask"], batch["labels"])
        few = [batch[name][:RECOUNTED] for name in ("input_ids", "attention_mask", "labels")]
        self.recount(model, step, (vectors, vectors), lambda: (model(*few)[1],) * 2)
        count, processes = n_asked(batch["labels"]), n_processes() if gather else 1
        spans = vectors.chunk(2) if self.span_weight else (vectors,)
        if processes > 1:
            torch.distributed.all_reduce(count)
            spans = tuple(gather_rows(part) for part in spans)
            vectors = torch.cat(spans)
        # The gradients of all processes will be averaged: each brings its share of the mean, times their number.
        loss = total * processes / count.clamp(min=1)
        shown = loss.detach().clone()
        if processes > 1:
            torch.distributed.all_reduce(shown)
            shown /= processes
        penalty, penalties = self.regularize(step, vectors, vectors, shown)
        if self.span_weight:
            contrast = span_contrast(*spans)
            penalty, penalties = penalty + self.span_weight * contrast, {"spans": contrast.detach()} | penalties
        monitored = {name: monitor(vectors.detach()) for name, monitor in MONITORED.items()}
        return loss + penalty, {"mlm": shown} | penalties | monitored
