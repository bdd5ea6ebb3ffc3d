"""Loading a masked-language model and its tokenizer, and refusing what would silently give wrong vectors."""

import logging
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from splade.config.schema import LARGEST_INT
from splade.errors import DataError, ModelError
from splade.models.adapters import ADAPTER_CONFIG, adapter_settings, base_of_adapters, load_merged
from splade.models.causal_lm import is_causal_lm
from splade.models.encoder import NOTHING_SAID, EncoderSettings
from splade.models.head.pooling import Aggregation
from splade.models.hub import model_folder
from splade.models.sentence_transformers_folder import SideName, read_settings, read_side
from splade.storage.atomic import JsonObject, read_json_object

logger = logging.getLogger(__name__)

# Weights that no masked-language model uses: those of a pooler or another head, and buffers that are made anew.
UNUSED_WEIGHTS = re.compile(
    r"(^|\.)(pooler|seq_relationship|sop_classifier|classifier|position_ids|token_type_ids|inv_freq|masked_bias)(\.|$)"
)
SIZES = re.compile(
    r"(n|num)(_hidden)?_layers|(n|num_attention)_heads|(hidden|embedding|intermediate|vocab)_size|(hidden_)?dim|"
    r"max_position_embeddings"
)
SETTINGS_FILE = "encoder_settings.json"
LARGEST_SIZE, MOST_LAYERS = 10**8, 1000


@dataclass(frozen=True)
class LoadedModel:
    """A masked-language model with its tokenizer.

    Attributes:
        name: what the user gave.
        folder: where its files are.
        model: a masked-language model in float32, in evaluation mode.
        tokenizer: the tokenizer that fits it.
        settings: what a sentence-transformers folder says of its vectors.
    """

    name: str
    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: EncoderSettings = NOTHING_SAID


@dataclass(frozen=True)
class LoadedLookup:
    """Weights of tokens that encode queries without a language model, with the tokenizer.

    Attributes:
        name: what the user gave.
        weights: (vocabulary of the tokenizer,) float32.
        tokenizer: the tokenizer that fits them.
        settings: what the folder says of its vectors.
        trainable: whether training changes the weights.
    """

    name: str
    weights: Tensor
    tokenizer: PreTrainedTokenizerBase
    settings: EncoderSettings
    trainable: bool


def load_masked_lm(name: str, tokenizer_name: str | None = None, agg: str = "max") -> LoadedModel:
    """Load a model that a folder, a hub name or `pkg://package/path` names, to encode documents.

    A sentence-transformers folder is accepted when what it says of pooling agrees with `agg`.

    Raises:
        ModelError: no such model, weights of the head missing, or a tokenizer of another model.
    """
    loaded = load_side(name, "document", tokenizer_name, agg)
    if isinstance(loaded, LoadedLookup):
        raise ModelError(
            f"model '{name}': its documents are encoded by SparseStaticEmbedding, without a language model; only "
            "queries may be"
        )
    return loaded


def load_side(
    name: str, side: SideName, tokenizer_name: str | None = None, agg: str = "max"
) -> LoadedModel | LoadedLookup:
    """Load what a model that a folder, a hub name or `pkg://package/path` names encodes queries or documents with.

    Raises:
        ModelError: no such model, or it is not one that is read here.
    """
    folder = model_folder(name)
    said = read_side(folder, name, side)
    if said is None:
        return replace(load_folder(folder, name, tokenizer_name), settings=read_encoder_settings(folder)[side])
    if said.is_lookup:
        return _load_lookup(said.folder, name, said.settings, said.trainable)
    if said.agg != agg:
        raise ModelError(f"model '{name}' was trained with pooling '{said.agg}': set init_dict.agg={said.agg}")
    loaded = load_folder(said.folder, name, tokenizer_name)
    return replace(loaded, settings=_with_length(said.settings, loaded.tokenizer, loaded.model.config))


def load_query_side(name: str, document: LoadedModel, agg: str) -> LoadedModel | LoadedLookup:
    """Load what encodes the queries of the model whose documents `document` encodes, perhaps with the same weights.

    Raises:
        ModelError: a model that is not read here.
    """
    folder = model_folder(name)
    queries, documents = (read_side(folder, name, side) for side in ("query", "document"))
    if queries is None or documents is None:
        return replace(document, settings=read_encoder_settings(folder)["query"])
    if queries.is_lookup or queries.folder != documents.folder:
        return load_side(name, "query", None, agg)
    if queries.agg != documents.agg:
        raise ModelError(
            f"model '{name}': its queries are pooled by '{queries.agg}', its documents by '{documents.agg}'; both must "
            "be the same"
        )
    return replace(document, settings=_with_length(queries.settings, document.tokenizer, document.model.config))


def folder_pooling(name: str) -> Aggregation | None:
    """Return the pooling that the folder of a model names; None where it names none.

    Raises:
        ModelError: no such model, or it is not one that is read here.
    """
    said = read_side(model_folder(name), name, "document")
    return None if said is None else said.agg


def read_encoder_settings(folder: Path) -> dict[SideName, EncoderSettings]:
    """Return what the folder of a trained model says of documents and of queries.

    Raises:
        ModelError: the file is not what training writes.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return {"document": NOTHING_SAID, "query": NOTHING_SAID}
    try:
        said = read_json_object(path)
        return {
            "document": EncoderSettings.from_json(said["document"]),
            "query": EncoderSettings.from_json(said["query"]),
        }
    except (DataError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not what training writes ({error}); give the training command again") from error


def load_folder(
    folder: Path, name: str, tokenizer_name: str | None = None, weights: dict[str, Tensor] | None = None
) -> LoadedModel:
    """Load the masked-language model and the tokenizer in a folder, whatever else the folder says.

    With `weights`, by their names, these take the place of the folder's.
    """
    check_config(folder, name)
    model = _load_model(folder, name) if weights is None else _load_weights(folder, name, weights)
    tokenizer = load_tokenizer(folder, name, tokenizer_name)
    _check_tokenizer_fits(model, tokenizer, name)
    return LoadedModel(name, folder, model, tokenizer)


def load_tokenizer(folder: Path, name: str, tokenizer_name: str | None = None) -> PreTrainedTokenizerBase:
    """Load a model's own tokenizer, or the one that `tokenizer_name` names if both have the same vocabulary."""
    own = _tokenizer_or_none(folder)
    if tokenizer_name is None:
        if own is None:
            raise ModelError(f"model '{name}': no tokenizer in {folder}; name one with config.tokenizer_type")
        return own
    given = _tokenizer_or_none(model_folder(tokenizer_name))
    if given is None:
        raise ModelError(f"config.tokenizer_type={tokenizer_name}: no tokenizer there")
    if own is not None and own.get_vocab() != given.get_vocab():
        raise ModelError(
            f"config.tokenizer_type={tokenizer_name} has another vocabulary ({len(given)} tokens) than the tokenizer "
            f"of model '{name}' ({len(own)} tokens); leave config.tokenizer_type null to use the model's own"
        )
    return given


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer, without the length at which the last text was cut: fast ones keep it as if it were theirs.

    Raises:
        OSError: it cannot be written.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # tokenizers has no class of its own for what the operating system says
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from error


def _load_lookup(folder: Path, name: str, settings: EncoderSettings, trainable: bool) -> LoadedLookup:
    tokenizer = load_tokenizer(folder, name)
    paths = [folder / file for file in ("model.safetensors", "pytorch_model.bin")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise ModelError(f"model '{name}': {folder} has no {paths[0].name}, the weights of its query tokens")
    try:
        entries = load_file(path) if path is paths[0] else torch.load(path, map_location="cpu", weights_only=True)
        weights = entries["weight"].detach().float()
    except (SafetensorError, OSError, RuntimeError, KeyError, AttributeError, TypeError, UnpicklingError) as error:
        raise ModelError(f"model '{name}': {path}: does not load as weights of tokens: {_in_short(error)}") from error
    if weights.shape != (len(tokenizer.get_vocab()),):
        raise ModelError(
            f"model '{name}': {path}: has weights of shape {tuple(weights.shape)}; its tokenizer has "
            f"{len(tokenizer.get_vocab())} tokens"
        )
    if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
        raise ModelError(
            f"model '{name}': {path}: a weight is negative or not a number; weights of sparse vectors are not negative"
        )
    return LoadedLookup(name, weights, tokenizer, _with_length(settings, tokenizer), trainable)


def _with_length(
    settings: EncoderSettings, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig | None = None
) -> EncoderSettings:
    """Take the maximal length from the tokenizer, and the model's positions, where nothing else says it."""
    if settings.max_length is not None:
        return settings
    positions = getattr(config, "max_position_embeddings", None)
    known = [LARGEST_INT, tokenizer.model_max_length, *([positions] if positions and positions > 0 else [])]
    return replace(settings, max_length=int(min(known)))


def _load_model(folder: Path, name: str) -> PreTrainedModel:
    """Load a model, or the model that the adapters in a folder belong to, with the adapters merged into it."""
    base = base_of_adapters(folder)
    if base is None:
        model = _load_weights(folder, name)
    else:
        base_folder = model_folder(base)
        if base_folder.resolve() == folder.resolve():
            raise ModelError(f"model '{name}': {folder / ADAPTER_CONFIG} names its own folder as the model")
        check_config(base_folder, base)
        model = _load_model(base_folder, base)
        load_merged(model, folder)
        for key, value in adapter_settings(folder).items():
            setattr(model.config, key, value)
    model.name_or_path = str(folder.resolve()) if Path(name).is_dir() else name
    return model


def _load_weights(folder: Path, name: str, weights: dict[str, Tensor] | None = None) -> PreTrainedModel:
    decoder = is_causal_lm(read_settings(folder / "config.json", name).get("model_type"))
    auto_class, kind = (AutoModelForCausalLM, "decoder") if decoder else (AutoModelForMaskedLM, "masked-language")
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # what it warns of is checked below, and an error for us
    transformers_logging.disable_progress_bar()
    try:
        model, info = _from_folder(folder, auto_class) if weights is None else _from_weights(folder, weights)
    except Exception as error:  # a wrong file can end in any error there
        raise ModelError(f"model '{name}' in {folder} does not load as a {kind} model: {_in_short(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"model '{name}' in {folder} lacks weights of a masked-language model: {_some(missing)}. They would be "
            "random. A SPLADE model needs its masked-language-model head: was it saved with AutoModel instead of "
            "AutoModelForMaskedLM?"
        )
    if info["mismatched_keys"]:
        shapes = _some([str(key) for key in info["mismatched_keys"]])
        raise ModelError(f"model '{name}' in {folder}: weights of another shape than config.json says: {shapes}")
    parts = {part for part, _ in model.named_children()}
    unused = [key for key in info["unexpected_keys"] if key.split(".")[0] in parts and not UNUSED_WEIGHTS.search(key)]
    if unused:
        raise ModelError(
            f"model '{name}' in {folder} holds weights that {type(model).__name__} with its config.json does not "
            f"take: {_some(sorted(unused))}. Its vectors would be those of another model; restore config.json "
            "(number of layers, model_type), or give a model without adapters"
        )
    return model.eval()


def _from_folder(
    folder: Path, auto_class: type[AutoModelForMaskedLM] | type[AutoModelForCausalLM]
) -> tuple[PreTrainedModel, JsonObject]:
    return auto_class.from_pretrained(  # type: ignore[return-value]  # a pair, with output_loading_info
        str(folder),
        output_loading_info=True,
        local_files_only=True,
        dtype=torch.float32,
        trust_remote_code=False,  # left out, the user would be asked
        weights_only=True,
    )


def _from_weights(folder: Path, weights: dict[str, Tensor]) -> tuple[PreTrainedModel, JsonObject]:
    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        kind = type(AutoModelForMaskedLM.from_config(config, trust_remote_code=False))
    return kind.from_pretrained(None, config=config, state_dict=weights, output_loading_info=True, dtype=torch.float32)


def _in_short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


def check_config(folder: Path, name: str) -> None:
    """Refuse a configuration that needs code of its own, or has sizes that cannot be."""
    config = read_settings(folder / "config.json", name, optional=(folder / ADAPTER_CONFIG).is_file())
    tokenizer = folder / "tokenizer_config.json"
    for path, settings in (
        (folder / "config.json", config),
        (tokenizer, read_settings(tokenizer, name, optional=True)),
    ):
        if "auto_map" in settings:
            raise ModelError(
                f"model '{name}': {path} has an auto_map, which names Python code in the folder ({folder}); code of a "
                "model folder is never run. Give a model of an architecture that transformers has; if this is one, "
                "remove auto_map"
            )
    if config.get("quantization_config") is not None:
        raise ModelError(
            f"model '{name}': {folder / 'config.json'}: quantised weights (quantization_config) are not read"
        )
    for key, value in config.items():
        if "attn_implementation" in key and "/" in str(value):  # code from the hub
            raise ModelError(f"model '{name}': {folder / 'config.json'}: {key}={value} names code to fetch; remove it")
        if SIZES.fullmatch(key) and value is not None:
            most = MOST_LAYERS if "layers" in key else LARGEST_SIZE
            if type(value) is not int or not 0 < value <= most:
                raise ModelError(
                    f"model '{name}': {folder / 'config.json'}: {key}={value!r}: must be an integer from 1 to {most}"
                )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _tokenizer_or_none(folder: Path) -> PreTrainedTokenizerBase | None:
    files = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
    if not any((folder / file).is_file() for file in files):
        return None
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a wrong file can end in any error there
        raise ModelError(f"the tokenizer in {folder} does not load: {_in_short(error)}") from error


def _check_tokenizer_fits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    vocab_size = model.get_output_embeddings().weight.shape[0] if model.get_output_embeddings() is not None else None
    vocab_size = vocab_size or model.config.vocab_size
    largest = max(tokenizer.get_vocab().values())
    problem = None
    if largest >= vocab_size:
        problem = f"gives ids up to {largest}"
    elif len(tokenizer) < 0.9 * vocab_size:
        problem = f"only has {len(tokenizer)}"
    if problem is not None:
        raise ModelError(
            f"model '{name}' has {vocab_size} terms, but its tokenizer {problem}: it belongs to another model"
        )
    pad, own_pad = getattr(model.config, "pad_token_id", None), tokenizer.pad_token_id
    if own_pad is None and is_causal_lm(model.config.model_type):  # whose padding, at the end, no token sees
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        return
    if own_pad is None:
        raise ModelError(f"model '{name}': its tokenizer has no padding token")
    if pad is not None and pad != own_pad and not is_causal_lm(model.config.model_type):
        raise ModelError(
            f"model '{name}' pads with token {pad}, its tokenizer with {own_pad}: it belongs to another model"
        )
