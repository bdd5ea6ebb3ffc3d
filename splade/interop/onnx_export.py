"""Exporting encoder and head to ONNX, with any batch size and length, and trying the files before they count."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from splade.config.schema import ModelConfig, RunConfig
from splade.encoding.tokens import padded_batch, padding_id, token_ids
from splade.errors import ModelError
from splade.models.encoder import EncoderSettings, SparseEncoder
from splade.models.masked_lm import MaskedLMEncoder
from splade.models.onnx_folder import (
    DOCUMENT_FILE,
    FORMAT,
    ONNX_FILE,
    OUTPUT,
    QUERY_FILE,
    QUERY_FOLDER,
    WEIGHTS_FILE,
    OnnxSide,
    load_onnx,
)
from splade.models.onnx_graph import write_graph
from splade.models.pretrained import save_tokenizer
from splade.models.splade import Splade
from splade.models.token_lookup import TokenLookupEncoder
from splade.storage.atomic import write_json
from splade.storage.checksums import checksums

TOLERANCE = 1e-4
_TEXTS = ["why is the sky blue", "a", "the history of the printing press, told at some length " * 5]


def export_onnx(model: Splade, folder: Path, max_length: int) -> float:
    """Write a model as ONNX files, complete or not at all, and return the largest difference of a weight.

    Args:
        model: in evaluation mode, on the CPU, in float32.
        folder: a new folder.
        max_length: where texts are cut, unless the model says so itself.

    Raises:
        ConfigError: a library is missing; `pip install 'splade[onnx]'` brings it.
        ModelError: an encoder that cannot be exported, or whose files give other vectors.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_tokenizer(model.tokenizer, part)
    if isinstance(model.document_encoder, MaskedLMEncoder):
        model.document_encoder.model.config.save_pretrained(part)
    document = _write_encoder(model.document_encoder, part / DOCUMENT_FILE)
    query = document
    if not model.shares_weights:
        query = _write_encoder(model.query_encoder, part / QUERY_FILE)
        save_tokenizer(model.query_tokenizer, part / QUERY_FOLDER)
    sides = {
        "document": _side(document, model.document_encoder, model.document_settings, max_length),
        "query": _side(query, model.query_encoder, model.query_settings, max_length),
    }
    record: dict[str, object] = {
        "format": FORMAT,
        "agg": model.agg,
        "activation": getattr(model.document_encoder, "activation", "relu"),
        "fingerprint": model.fingerprint().as_dict(),
        "query_digest": model.query_digest(),
        **{name: asdict(side) for name, side in sides.items()},
        "files": checksums(part),
    }
    write_json(part / ONNX_FILE, record)
    difference = _difference(model, load_onnx(part, folder.name, ModelConfig(), RunConfig()), max_length)
    if not difference <= TOLERANCE:
        raise ModelError(f"'{model.name}': its ONNX files give weights that differ by {difference:.2g}: not exported")
    part.rename(folder)
    return difference


class _EncoderAndHead(nn.Module):
    """What becomes an ONNX graph: token ids to pooled weights."""

    def __init__(self, encoder: MaskedLMEncoder):
        super().__init__()
        self.model = encoder.model
        self.agg = encoder.agg
        self.activation = encoder.activation

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).logits
        masked = torch.relu(logits) * attention_mask.unsqueeze(-1)
        if self.agg == "max":
            return self._activated(masked.amax(dim=1))
        return self._activated(masked).sum(dim=1)

    def _activated(self, values: Tensor) -> Tensor:
        values = torch.log1p(values)
        return torch.log1p(values) if self.activation == "log1p_relu" else values


def _write_encoder(encoder: SparseEncoder, path: Path) -> str:
    """Write one encoder, and return the name of its file."""
    if isinstance(encoder, TokenLookupEncoder):
        torch.save(torch.relu(encoder.weights.detach()) * encoder.allowed, path.with_name(WEIGHTS_FILE))
        return WEIGHTS_FILE
    if type(encoder) is not MaskedLMEncoder:
        raise ModelError(f"{type(encoder).__name__} cannot be exported to ONNX, only a masked-language model can")
    write_graph(_EncoderAndHead(encoder), type(encoder.model).__name__, OUTPUT, encoder.vocab_size, path)
    return path.name


def _side(file: str, encoder: SparseEncoder, settings: EncoderSettings, max_length: int) -> OnnxSide:
    said = replace(settings, max_length=settings.max_length or max_length)
    return OnnxSide(file, getattr(encoder, "top_k", None), getattr(encoder, "own_tokens_only", False), said)


def _difference(model: Splade, exported: Splade, max_length: int) -> float:
    """Return the largest difference of a weight over batches of two shapes, relative to it where it is above 1."""
    largest = 0.0
    for ours, theirs, tokenizer in (
        (model.document_encoder, exported.document_encoder, model.tokenizer),
        (model.query_encoder, exported.query_encoder, model.query_tokenizer),
    ):
        for texts in (_TEXTS, _TEXTS[:1]):
            inputs = padded_batch(token_ids(tokenizer, texts, min(max_length, 64)), padding_id(tokenizer))
            with torch.inference_mode():
                expected, found = ours(*inputs), theirs(*inputs)
            largest = max(largest, float(((expected - found).abs() / expected.clamp(min=1.0)).max()))
    return largest
