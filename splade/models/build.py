"""From configuration to a `Splade` model."""

from typing import Any

import torch

from splade.config.schema import ModelConfig, RunConfig
from splade.errors import ConfigError, DataError, ModelError
from splade.models.head.pooling import Aggregation
from splade.models.load import LoadedModel, load_masked_lm
from splade.models.masked_lm import MaskedLMEncoder
from splade.models.splade import Splade
from splade.models.token_lookup import TokenLookupEncoder
from splade.storage.atomic import read_json

NO_TRANSFORMER_QUERIES = ("splade_doc", "splade_idf")


def build_splade(init: ModelConfig, run: RunConfig) -> Splade:
    """Build the model that `init_dict` and `config` describe, from pre-trained weights.

    Raises:
        ConfigError: settings that contradict each other.
        ModelError: a model that cannot be loaded as what it should be.
    """
    check_model_settings(init, run)
    if init.model_type_or_dir is None:
        raise ConfigError("no value for init_dict.model_type_or_dir: a hub name, a folder, or pkg://package/path")
    document = load_masked_lm(init.model_type_or_dir, run.tokenizer_type, init.agg)
    query = document
    if init.model_type_or_dir_q is not None:
        query = load_masked_lm(init.model_type_or_dir_q, run.tokenizer_type, init.agg)
    return assemble(document, query, init, run)


def assemble(document: LoadedModel, query: LoadedModel, init: ModelConfig, run: RunConfig) -> Splade:
    """Wrap loaded language models into the encoders of `config.matching_type`."""
    kind, lexical = run.matching_type, init.lexical_type if run.matching_type == "splade_lexical" else None
    agg: Aggregation = "sum" if init.agg == "sum" else "max"
    document_encoder = MaskedLMEncoder(
        document.model,
        agg=agg,
        top_k=init.top_d if kind == "splade_topk" else None,
        own_tokens_only=lexical in ("document", "both"),
        special_token_ids=document.tokenizer.all_special_ids,
    )
    query_encoder: Any
    if kind in NO_TRANSFORMER_QUERIES:
        weights = _initial_token_weights(init, document, document_encoder.vocab_size) if kind == "splade_idf" else None
        query_encoder = TokenLookupEncoder(
            document_encoder.vocab_size, document.tokenizer.all_special_ids, weights, trainable=kind == "splade_idf"
        )
    elif query is document and kind == "splade":
        query_encoder = document_encoder
    else:
        query_encoder = MaskedLMEncoder(
            query.model,
            agg=agg,
            top_k=init.top_q if kind == "splade_topk" else None,
            own_tokens_only=lexical in ("query", "both"),
            special_token_ids=query.tokenizer.all_special_ids,
        )
    if document_encoder.vocab_size != query_encoder.vocab_size:
        raise ModelError(
            f"'{document.name}' has {document_encoder.vocab_size} terms, '{query.name}' {query_encoder.vocab_size}: "
            "queries and documents need the same vocabulary"
        )
    if document.tokenizer.get_vocab() != query.tokenizer.get_vocab():
        raise ModelError(
            f"'{document.name}' and '{query.name}' have different vocabularies: their vectors do not match"
        )
    if init.freeze_d_model:
        document_encoder.requires_grad_(False)
    return Splade(document_encoder, query_encoder, document.tokenizer, query.tokenizer, kind, init.agg, document.name)


def check_model_settings(init: ModelConfig, run: RunConfig) -> None:
    """Raise a ConfigError for settings of one matching type that are missing, or given for another."""
    kind = run.matching_type
    if kind == "splade_topk" and init.top_d is None and init.top_q is None:
        raise ConfigError("config.matching_type=splade_topk needs init_dict.top_d, init_dict.top_q, or both")
    if kind == "splade_lexical" and init.lexical_type is None:
        raise ConfigError("config.matching_type=splade_lexical needs init_dict.lexical_type=query | document | both")
    for name, owner in (("top_d", "splade_topk"), ("top_q", "splade_topk"), ("lexical_type", "splade_lexical")):
        if getattr(init, name) is not None and kind != owner:
            raise ConfigError(f"init_dict.{name} is for config.matching_type={owner}, which is {kind} here")
    if init.model_type_or_dir_q is not None and kind in NO_TRANSFORMER_QUERIES:
        raise ConfigError(f"config.matching_type={kind} has no query model: leave init_dict.model_type_or_dir_q null")
    if init.freeze_d_model and init.model_type_or_dir_q is None and kind != "splade_idf":
        raise ConfigError("init_dict.freeze_d_model=true leaves nothing to train: give init_dict.model_type_or_dir_q")
    if init.idf_path is not None and kind != "splade_idf":
        raise ConfigError(f"init_dict.idf_path is for config.matching_type=splade_idf, which is {kind} here")


def _initial_token_weights(init: ModelConfig, document: LoadedModel, vocab_size: int) -> torch.Tensor | None:
    if init.idf_path is None:
        return None
    weights, vocabulary = read_json(init.idf_path), document.tokenizer.get_vocab()
    if not isinstance(weights, dict) or not weights:
        raise DataError(f"{init.idf_path}: must be a JSON object {{token: weight}}")
    unknown = [token for token in weights if token not in vocabulary]
    if unknown:
        raise DataError(f"{init.idf_path}: {len(unknown)} tokens are not in the vocabulary, such as '{unknown[0]}'")
    table = torch.zeros(vocab_size)
    table[[vocabulary[token] for token in weights]] = torch.tensor([float(weight) for weight in weights.values()])
    return table


def describe(model: Splade) -> str:
    """Return one line about a model: its name, kind and size."""
    encoders = "one encoder" if model.shared else "separate query encoder"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"{model.name}: {model.matching_type}, {encoders}, {parameters / 1e6:.1f} M parameters"
