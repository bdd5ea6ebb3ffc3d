"""The files by which sentence-transformers builds, from a saved model, a SparseEncoder that gives the same vectors."""

import logging
import os
import shutil
from pathlib import Path

from safetensors.torch import save_file

from splade.models.adapters import has_adapters
from splade.models.causal_lm import CausalLMEncoder
from splade.models.masked_lm import MaskedLMEncoder
from splade.models.pretrained import save_tokenizer
from splade.models.sentence_transformers_folder import MODEL_FILE, MODULES_FILE, ROUTER_FILE, TRANSFORMER_FILE
from splade.models.splade import Splade
from splade.models.token_lookup import TokenLookupEncoder
from splade.storage.atomic import JsonObject, read_json_object, write_json

logger = logging.getLogger(__name__)

_SPARSE = "sentence_transformers.sparse_encoder.models"
LOOKUP_MODULE, QUERY_MODULE = "query_0_SparseStaticEmbedding", "query_0_MLMTransformer"


def write_sentence_transformers_files(model: Splade, folder: Path, max_length: int | None, query_folder: Path) -> None:
    """Complete a folder that holds the document encoder and its tokenizer.

    A model with one encoder becomes a masked-language model with SpladePooling; one with another encoder for queries a
    Router, whose query modules are in sub-folders. Nothing is written for a model that no modules stand for.

    Args:
        model: what is saved there.
        folder: complete for transformers.
        max_length: tokens beyond which texts are cut; None for what the tokenizers say.
        query_folder: where a query encoder of its own is saved.
    """
    if not _has_modules(model):
        return
    document, query = model.document_encoder, model.query_encoder
    lengths = {
        side: min((length for length in (max_length, settings.max_length) if length is not None), default=None)
        for side, settings in (("query", model.query_settings), ("document", model.document_settings))
    }
    assert isinstance(document, MaskedLMEncoder)
    if model.shares_weights:
        _write_modules(folder, [("", f"{_SPARSE}.MLMTransformer"), ("1_SpladePooling", f"{_SPARSE}.SpladePooling")])
        _write_pooling(folder / "1_SpladePooling", document)
        _write_lengths(folder, lengths)
    else:
        _write_modules(folder, [("", "sentence_transformers.models.Router")])
        _write_pooling(folder / "document_1_SpladePooling", document)
        _write_lengths(folder, {"document": lengths["document"]})
        _write_router(folder, query)
        if isinstance(query, TokenLookupEncoder):
            # What is cut off here are tokens of the text alone.
            marks = model.query_tokenizer.num_special_tokens_to_add() if model.query_settings.special_tokens else 0
            length = None if lengths["query"] is None else max(1, lengths["query"] - marks)
            _write_lookup(model, query, folder / LOOKUP_MODULE, length)
        elif isinstance(query, MaskedLMEncoder):
            shutil.copytree(query_folder, folder / QUERY_MODULE, copy_function=_link_or_copy)
            _write_lengths(folder / QUERY_MODULE, {"query": lengths["query"]})
            _write_pooling(folder / "query_1_SpladePooling", query)
    prompts = {"query": model.query_settings.prompt, "document": model.document_settings.prompt}
    settings: JsonObject = {"model_type": "SparseEncoder", "prompts": prompts, "similarity_fn_name": "dot"}
    write_json(folder / MODEL_FILE, settings | ({} if document.top_k is None else {"max_active_dims": document.top_k}))


def _has_modules(model: Splade) -> bool:
    """Whether a SparseEncoder can be what the model is."""
    encoders = (model.document_encoder, model.query_encoder)
    if any(
        isinstance(encoder, CausalLMEncoder) or has_adapters(getattr(encoder, "model", None)) for encoder in encoders
    ):
        return False
    if any(isinstance(encoder, MaskedLMEncoder) and encoder.own_tokens_only for encoder in encoders):
        return False
    if len({encoder.top_k for encoder in encoders if isinstance(encoder, MaskedLMEncoder | TokenLookupEncoder)}) > 1:
        return False  # it has one limit, max_active_dims
    n_tokens = len(model.query_tokenizer.get_vocab())
    if isinstance(model.query_encoder, TokenLookupEncoder) and n_tokens != model.vocab_size:
        logger.warning(
            "the model has %d terms, its tokenizer %d tokens: SparseStaticEmbedding cannot hold its query weights, so "
            "the folder is none for sentence-transformers",
            model.vocab_size,
            n_tokens,
        )
        return False
    return True


def _write_modules(folder: Path, modules: list[tuple[str, str]]) -> None:
    entries = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)]
    write_json(folder / MODULES_FILE, entries)


def _write_router(folder: Path, query: object) -> None:
    """Route documents to the model in the folder itself, queries to that in sub-folders."""
    types = {"": "MLMTransformer", "document_1_SpladePooling": "SpladePooling"}
    if isinstance(query, TokenLookupEncoder):
        queries = {LOOKUP_MODULE: "SparseStaticEmbedding"}
    else:
        queries = {QUERY_MODULE: "MLMTransformer", "query_1_SpladePooling": "SpladePooling"}
    router = {
        "types": {part: f"{_SPARSE}.{kind}" for part, kind in (types | queries).items()},
        "structure": {"query": list(queries), "document": list(types)},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
    write_json(folder / ROUTER_FILE, router)


def _write_pooling(folder: Path, encoder: MaskedLMEncoder) -> None:
    folder.mkdir(exist_ok=True)
    pooling = {"pooling_strategy": encoder.agg, "activation_function": encoder.activation}
    write_json(folder / "config.json", pooling)


def _write_lengths(folder: Path, lengths: dict[str, int | None]) -> None:
    known = [length for length in lengths.values() if length is not None]
    if not known:
        return
    settings: JsonObject = {"max_seq_length": max(known), "do_lower_case": False}
    if len(set(known)) > 1:
        settings |= {f"{side}_length": length for side, length in lengths.items()}
    write_json(folder / TRANSFORMER_FILE, settings)


def _write_lookup(model: Splade, encoder: TokenLookupEncoder, folder: Path, length: int | None) -> None:
    """Write the query tokenizer, which alone says where texts are cut, and the weights of its tokens."""
    folder.mkdir()
    save_tokenizer(model.query_tokenizer, folder)
    if length is not None:
        path = folder / "tokenizer_config.json"
        write_json(path, read_json_object(path) | {"model_max_length": length})
    weights = encoder.table().detach().cpu().contiguous()
    save_file({"weight": weights}, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", {"frozen": not encoder.trainable})


def _link_or_copy(source: str, target: str) -> None:
    """Give a file a second name, or copy it where the file system has no such thing: it is never changed in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
