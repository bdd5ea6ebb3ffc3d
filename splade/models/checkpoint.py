"""Checkpoints: what training leaves behind, and how indexing and retrieval load it again."""

import shutil
from pathlib import Path
from typing import Any

import torch

from splade.config.schema import Experiment, ModelConfig, RunConfig
from splade.errors import ConfigError, ModelError
from splade.models.build import assemble, build_splade
from splade.models.load import load_masked_lm
from splade.models.splade import Splade
from splade.models.token_lookup import TokenLookupEncoder
from splade.storage.atomic import read_json, write_json

MODEL_FOLDER, QUERY_MODEL_FOLDER, DONE_FILE = "model", "model_q", "training_done.json"
LOOKUP_FILE = "token_weights.json"


def load_for_inference(experiment: Experiment) -> Splade:
    """Load the model that indexing and retrieval use: the trained checkpoint, or a ready model.

    With `config.pretrained_no_yamlconfig=true` it is the one that `init_dict` names. Otherwise it is the best
    checkpoint in `config.checkpoint_dir`, with the settings that its `config.yaml` recorded.

    Raises:
        ConfigError: no finished checkpoint, or settings other than those it was trained with.
    """
    if experiment.config.pretrained_no_yamlconfig:
        return build_splade(experiment.init_dict, experiment.config).eval()
    if experiment.config.checkpoint_dir is None:
        raise ConfigError(
            "no value for config.checkpoint_dir: the folder of a trained model; for a ready model give "
            "init_dict.model_type_or_dir=NAME config.pretrained_no_yamlconfig=true"
        )
    return load_checkpoint(Path(experiment.config.checkpoint_dir), experiment).eval()


def load_checkpoint(folder: Path, experiment: Experiment) -> Splade:
    """Load the best checkpoint of a finished training run."""
    _check_checkpoint(folder)
    settings = read_json(folder / DONE_FILE)["model"]
    for name in ("agg", "matching_type", "top_d", "top_q", "lexical_type"):
        section = experiment.config if name == "matching_type" else experiment.init_dict
        if getattr(section, name) != settings[name]:
            raise ConfigError(
                f"{folder} was trained with {name}={settings[name]}, the configuration says {getattr(section, name)}; "
                f"use the configuration saved with it: SPLADE_CONFIG_FULLPATH={folder / 'config.yaml'}"
            )
    document = load_masked_lm(str(folder / MODEL_FOLDER), None, settings["agg"])
    init = ModelConfig(**{name: settings[name] for name in ("agg", "top_d", "top_q", "lexical_type")})
    query_folder = folder / QUERY_MODEL_FOLDER
    query = document
    if (query_folder / "config.json").is_file():
        query = load_masked_lm(str(query_folder), None, settings["agg"])
    elif (query_folder / LOOKUP_FILE).is_file():
        init.idf_path = str(query_folder / LOOKUP_FILE)
    model = assemble(document, query, init, RunConfig(matching_type=settings["matching_type"]))
    model.name = str(folder)
    return model


def save_splade(model: Splade, folder: Path, max_length: int | None = None) -> None:
    """Write `model/` (and `model_q/`) in Hugging Face format, loadable by sentence-transformers as a SparseEncoder.

    Each folder is written beside its place and renamed, so that one which exists is whole.

    Args:
        model: what to save.
        folder: where its folders go.
        max_length: tokens beyond which sentence-transformers shall cut a text; None for what the tokenizer says.
    """
    _save_encoder(model.document_encoder, model.tokenizer, model.agg, folder / MODEL_FOLDER, max_length)
    if not model.shares_weights:
        query_folder = folder / QUERY_MODEL_FOLDER
        _save_encoder(model.query_encoder, model.query_tokenizer, model.agg, query_folder, max_length)
    elif (folder / QUERY_MODEL_FOLDER).exists():
        shutil.rmtree(folder / QUERY_MODEL_FOLDER)


def model_settings(experiment: Experiment) -> dict[str, Any]:
    """Return the settings that change what a model's vectors are."""
    init = experiment.init_dict
    return {
        "agg": init.agg,
        "matching_type": experiment.config.matching_type,
        "top_d": init.top_d,
        "top_q": init.top_q,
        "lexical_type": init.lexical_type,
    }


def _check_checkpoint(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(
            f"config.checkpoint_dir: no such folder: {folder.absolute()}; train first (python -m splade.train), or for "
            "a ready model set config.pretrained_no_yamlconfig=true"
        )
    if not (folder / DONE_FILE).is_file() or not (folder / MODEL_FOLDER).is_dir():
        state = "training has not ended" if (folder / "model_ckpt").is_dir() else "it holds no trained model"
        raise ModelError(
            f"config.checkpoint_dir={folder}: {state}. Run the training command again to finish it; for a plain "
            f"model folder use init_dict.model_type_or_dir={folder} config.pretrained_no_yamlconfig=true"
        )


def _save_encoder(encoder: Any, tokenizer: Any, agg: str, folder: Path, max_length: int | None) -> None:
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tokenizer.save_pretrained(temporary)
    if isinstance(encoder, TokenLookupEncoder):
        table = (torch.relu(encoder.weights.detach()) * encoder.allowed).tolist()
        weights = {token: table[term_id] for token, term_id in tokenizer.get_vocab().items() if table[term_id] > 0}
        write_json(temporary / LOOKUP_FILE, weights)
    else:
        encoder.model.save_pretrained(temporary)
        if encoder.top_k is None and not encoder.own_tokens_only:  # sentence-transformers has no such limits
            _write_sentence_transformers_files(temporary, agg, max_length)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _write_sentence_transformers_files(folder: Path, agg: str, max_length: int | None) -> None:
    """Add the files from which sentence-transformers builds a SparseEncoder."""
    package = "sentence_transformers.sparse_encoder.models"
    modules = [("", f"{package}.MLMTransformer"), ("1_SpladePooling", f"{package}.SpladePooling")]
    entries = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)]
    write_json(folder / "modules.json", entries)
    if max_length is not None:
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    write_json(folder / "1_SpladePooling" / "config.json", {"pooling_strategy": agg, "activation_function": "relu"})
    write_json(
        folder / "config_sentence_transformers.json",
        {"model_type": "SparseEncoder", "prompts": {"query": "", "document": ""}, "similarity_fn_name": "dot"},
    )
