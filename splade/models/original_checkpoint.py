"""Checkpoints of the original SPLADE toolkit (github.com/naver/splade).

Its classic trainer writes, into `checkpoint_dir`,

    config.yaml                 the composed configuration
    model/, model_q/            the last encoder(s), as transformers saves them, with the tokenizers
    model/model.tar             the best checkpoint: torch.save of {step, perf, model_state_dict, config, ...}
    model_ckpt/*.tar            the latest ones, to resume from

so that the weights to evaluate are those in `model.tar`, whose names begin with `transformer_rep.transformer.` and, for
a query encoder of its own, `transformer_rep_q.transformer.`; the folders beside it say how the encoder is made. Its
later trainer for several negatives writes the folders only.

A `model.tar` also holds objects of omegaconf and of the original's modules. None of them is ever made: torch's
restricted unpickler puts empty ones in their place.
"""

from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from splade.config.schema import ModelConfig, RunConfig
from splade.errors import ModelError
from splade.models.hub import model_folder
from splade.models.pretrained import LoadedModel, load_folder
from splade.models.save import DONE_FILE, MODEL_FOLDER, QUERY_MODEL_FOLDER

TAR_FILE = "model.tar"
_OWN_SETTINGS = "model_ckpt/settings.json"  # of a run of this toolkit
_DOCUMENTS, _QUERIES = "transformer_rep.", "transformer_rep_q."


def is_original_checkpoint(folder: Path) -> bool:
    """Whether a folder is the `checkpoint_dir` of the original toolkit."""
    if (folder / DONE_FILE).is_file() or (folder / _OWN_SETTINGS).is_file():
        return False
    model = folder / MODEL_FOLDER
    return (model / TAR_FILE).is_file() or ((folder / "config.yaml").is_file() and (model / "config.json").is_file())


def load_original(folder: Path, init: ModelConfig, run: RunConfig) -> tuple[LoadedModel, LoadedModel]:
    """Load the document encoder and the query encoder, perhaps the same one, of a checkpoint folder.

    Args:
        folder: `checkpoint_dir` of the original toolkit.
        init: `init_dict` of its configuration; names the models that a `model.tar` without folders started from.
        run: `config` of its configuration.

    Raises:
        ModelError: the file is damaged, none of the original toolkit, or of another model than the configuration says.
    """
    tar = folder / MODEL_FOLDER / TAR_FILE
    weights = _weights(tar) if tar.is_file() else None
    document = _load(folder / MODEL_FOLDER, init.model_type_or_dir, weights, _DOCUMENTS, run, str(folder))
    nested = folder / MODEL_FOLDER / "query"
    beside = nested if (nested / "config.json").is_file() else folder / QUERY_MODEL_FOLDER
    has_queries = beside.is_dir() if weights is None else any(name.startswith(_QUERIES) for name in weights)
    if init.model_type_or_dir_q is not None and not has_queries:
        raise ModelError(
            f"{folder}: config.yaml names the query encoder {init.model_type_or_dir_q}, and there are no weights of one"
        )
    if not has_queries:
        return document, document
    return document, _load(beside, init.model_type_or_dir_q, weights, _QUERIES, run, str(folder))


def _load(
    folder: Path, base: str | None, weights: dict[str, Tensor] | None, prefix: str, run: RunConfig, name: str
) -> LoadedModel:
    """Load one encoder: made as its folder says, or else the model it started from, with the weights of `model.tar`."""
    if not (folder / "config.json").is_file():
        if base is None:
            raise ModelError(
                f"model '{name}': {folder} has no config.json, and the configuration does not name the model that "
                "training started from (init_dict.model_type_or_dir)"
            )
        folder = model_folder(base)
    has_tokenizer = any((folder / file).is_file() for file in ("tokenizer.json", "vocab.txt", "vocab.json"))
    tokenizer = None if has_tokenizer else run.tokenizer_type
    own = None
    if weights is not None:
        named = f"{prefix}transformer."
        own = {key.removeprefix(named): tensor for key, tensor in weights.items() if key.startswith(named)}
    return replace(load_folder(folder, name, tokenizer, own), name=name)


def _weights(path: Path) -> dict[str, Tensor]:
    """Return the weights in a `model.tar` by their names, and nothing else of it."""
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise ModelError(f"{path}: reading it needs torch 2.6 or later, {torch.__version__} is installed")
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_empty_class(), name) for name in foreign]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, OSError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: not a whole checkpoint of the original toolkit, which torch.save writes "
            f"({' '.join(str(error).split())[:300]}); copy it again"
        ) from error
    weights = content.get("model_state_dict", content) if isinstance(content, dict) else None
    names = [str(name) for name in weights] if isinstance(weights, dict) else []
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        holds = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ModelError(f"{path}: has no weights under 'model_state_dict'; it holds {holds[:200]}")
    weights = {name.removeprefix("module."): tensor for name, tensor in zip(names, weights.values(), strict=True)}
    if not any(name.startswith(f"{_DOCUMENTS}transformer.") for name in weights):
        raise ModelError(
            f"{path}: its weights are not those of a SPLADE model of the original toolkit, whose names begin with "
            f"{_DOCUMENTS}transformer.; they are {', '.join(names[:3])}"
        )
    return weights


def _empty_class() -> type:
    """Return a class that stands for one that is not made."""

    class Empty:
        def __init__(self, *_arguments: object) -> None:
            pass

        def __setstate__(self, _state: object) -> None:
            pass

    return Empty
