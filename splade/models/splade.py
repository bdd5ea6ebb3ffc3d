"""A SPLADE model: one encoder for documents, and the same or another one for queries."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from splade.models.encoder import NOTHING_SAID, EncoderSettings, SparseEncoder
from splade.models.exported_backbone import Backbone, Backend, exported_backbone
from splade.models.low_precision import Precision
from splade.models.masked_lm import MaskedLMEncoder


@dataclass(frozen=True)
class Fingerprint:
    """What must agree between the model that made an index and the one that encodes the queries.

    Attributes:
        matching_type: how queries and documents are encoded (`config.matching_type`).
        agg: pooling over tokens.
        vocab_size: number of terms.
        tokenizer: digest of the tokenizer's vocabulary.
        document_encoder: digest of the document encoder's weights and settings.
    """

    matching_type: str
    agg: str
    vocab_size: int
    tokenizer: str
    document_encoder: str

    def as_dict(self) -> dict[str, str | int]:
        """Return the fields as JSON values."""
        return asdict(self)

    def differences(self, other: Mapping[str, object]) -> list[str]:
        """Name the fields in which a stored fingerprint differs from this one."""
        return [name for name, value in self.as_dict().items() if other.get(name) != value]


class Splade(nn.Module):
    """A pair of sparse encoders over one vocabulary. The score of a query and a document is their dot product.

    Both encoders may be one object; both tokenizers must have the same vocabulary. `name` is what the user called the
    model, `matching_type` and `agg` are those of the configuration, the settings what the model's folder says of texts:
    prompts and lengths.
    """

    def __init__(
        self,
        document_encoder: SparseEncoder,
        query_encoder: SparseEncoder,
        tokenizer: PreTrainedTokenizerBase,
        query_tokenizer: PreTrainedTokenizerBase,
        matching_type: str = "splade",
        agg: str = "max",
        name: str = "",
        document_settings: EncoderSettings = NOTHING_SAID,
        query_settings: EncoderSettings = NOTHING_SAID,
    ):
        super().__init__()
        self.document_encoder = document_encoder
        self.query_encoder = query_encoder
        self.tokenizer = tokenizer
        self.query_tokenizer = query_tokenizer
        self.matching_type = matching_type
        self.agg = agg
        self.name = name
        self.document_settings = document_settings
        self.query_settings = query_settings
        self._fingerprint: Fingerprint | None = None
        self._query_digest: str | None = None
        self.loaded_from: dict[str, object] = {}

    @property
    def vocab_size(self) -> int:
        """Number of terms of a vector."""
        return self.document_encoder.vocab_size

    @property
    def shared(self) -> bool:
        """Whether one encoder serves queries and documents."""
        return self.query_encoder is self.document_encoder

    @property
    def shares_weights(self) -> bool:
        """Whether both encoders are one language model, perhaps with different limits on their terms."""
        query_model, document_model = (getattr(e, "model", None) for e in (self.query_encoder, self.document_encoder))
        return self.shared or (query_model is not None and query_model is document_model)

    @property
    def documents_frozen(self) -> bool:
        """Whether the document encoder is not trained."""
        return not any(parameter.requires_grad for parameter in self.document_encoder.parameters())

    def train(self, mode: bool = True) -> "Splade":
        """Switch dropout on or off; a frozen document encoder never has any, its vectors are those of the index."""
        super().train(mode)
        if self.documents_frozen:
            self.document_encoder.eval()
        return self

    def trained_language_models(self) -> list[PreTrainedModel]:
        """Return the language models, each once, of which something is trained."""
        models = [getattr(encoder, "model", None) for encoder in (self.document_encoder, self.query_encoder)]
        unique = {id(model): model for model in models if isinstance(model, PreTrainedModel)}
        return [model for model in unique.values() if any(weight.requires_grad for weight in model.parameters())]

    def checkpoint_activations(self) -> None:
        """Keep fewer activations for the backward pass and compute the others again: less memory, more time."""
        for encoder in (self.document_encoder, self.query_encoder):
            model = getattr(encoder, "model", None)
            if not isinstance(model, PreTrainedModel):  # a look-up of token weights has none
                continue
            if hasattr(model, "activation_checkpointing_enable"):
                model.activation_checkpointing_enable({"use_reentrant": False})
            else:  # its name in earlier releases
                model.gradient_checkpointing_enable({"use_reentrant": False})

    def forward(self, queries: Mapping[str, Tensor], documents: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Encode a training batch.

        Args:
            queries: `input_ids` and `attention_mask`, (n_queries, length) int64 each.
            documents: the same of (n_documents, length).

        Returns:
            (n_queries, vocab_size) and (n_documents, vocab_size) float32 vectors.
        """
        query_vectors = self.query_encoder(queries["input_ids"], queries["attention_mask"])
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.documents_frozen):
            document_vectors = self.document_encoder(documents["input_ids"], documents["attention_mask"])
        return query_vectors, document_vectors

    def fingerprint(self) -> Fingerprint:
        """Digest what an index of this model depends on: weights as they were loaded, whatever their precision now."""
        return self._fingerprint or self._digest()

    def run_on_cpu(self, backend: Backend, precision: Precision) -> None:
        """Settle what runs the backbones of both encoders and in which precision, for inference; the fingerprint stays.

        Raises:
            ConfigError: this processor would gain nothing by it.
            ModelError: the backend cannot run the model.
            WriteError: there is no place for what the backend needs.
        """
        self._fingerprint = self.fingerprint()
        backbones: dict[int, Backbone | None] = {}
        for encoder in (self.document_encoder, self.query_encoder):
            if not isinstance(encoder, MaskedLMEncoder):
                continue
            if id(encoder.model) not in backbones:
                backbone = None
                if backend == "torch":
                    encoder.lower_precision(precision)
                else:
                    backbone = exported_backbone(encoder, digest_weights(encoder.model), backend, precision)
                backbones[id(encoder.model)] = backbone
            encoder.backbone = backbones[id(encoder.model)]

    def own_memory(self) -> None:
        """Copy the weights out of the files that they are mapped from: a file overwritten in place ends no process."""
        for tensor in chain(self.parameters(), self.buffers()):
            tensor.data = tensor.data.clone()

    def take_fingerprint(self, fingerprint: Fingerprint, query_digest: str) -> None:
        """Stand for another model: this one is that model in another form, and its vectors are the same."""
        self._fingerprint, self._query_digest = fingerprint, query_digest

    def _digest(self) -> Fingerprint:
        vocabulary = json.dumps(sorted(self.tokenizer.get_vocab().items())).encode()
        settings = {name: getattr(self.document_encoder, name, None) for name in ("top_k", "own_tokens_only")}
        settings |= _said(self.document_encoder, self.document_settings)
        return Fingerprint(
            matching_type=self.matching_type,
            agg=self.agg,
            vocab_size=self.vocab_size,
            tokenizer=hashlib.sha256(vocabulary).hexdigest()[:16],
            document_encoder=digest_weights(self.document_encoder, json.dumps(settings)),
        )

    def query_digest(self) -> str:
        """Digest what the vectors of queries depend on besides the configuration."""
        if self._query_digest is not None:
            return self._query_digest
        settings = _said(self.query_encoder, self.query_settings)
        settings |= {"top_k": self.query_settings.top_k, "max_length": self.query_settings.max_length}
        settings = {name: value for name, value in settings.items() if value is not None}
        return digest_weights(self.query_encoder, json.dumps(settings) if settings else "")


def _said(encoder: SparseEncoder, settings: EncoderSettings) -> dict[str, object]:
    """Return what has an influence on a vector and was not always there: where it is left out, digests stay."""
    said = {"activation": getattr(encoder, "activation", "relu"), "prompt": settings.prompt}
    said |= {"special_tokens": settings.special_tokens}
    said |= {
        "attention": getattr(encoder, "attention", "causal"),
        "repeat_text": getattr(encoder, "repeat_text", False),
    }
    usual = {"activation": "relu", "prompt": "", "special_tokens": True, "attention": "causal", "repeat_text": False}
    return {name: value for name, value in said.items() if value != usual[name]}


def digest_weights(module: nn.Module, settings: str = "") -> str:
    """Return a digest of all parameters of a module, in their order, and of `settings`."""
    digest = hashlib.sha256(settings.encode())
    for name, tensor in module.named_parameters():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
