"""Loading a masked-language model and its tokenizer, and refusing what would silently give wrong vectors."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from splade.errors import DataError, ModelError
from splade.models.head.pooling import ACTIVATIONS, AGGREGATIONS, Activation
from splade.models.hub import model_folder
from splade.storage.atomic import JsonObject, read_json, read_json_object

logger = logging.getLogger(__name__)

# Weights that no masked-language model uses: those of a pooler or another head, and buffers that are made anew.
UNUSED_WEIGHTS = re.compile(
    r"(^|\.)(pooler|seq_relationship|sop_classifier|classifier|position_ids|token_type_ids|inv_freq|masked_bias)(\.|$)"
)
SIZES = re.compile(
    r"(n|num)(_hidden)?_layers|(n|num_attention)_heads|(hidden|embedding|intermediate|vocab)_size|(hidden_)?dim|"
    r"max_position_embeddings"
)
LARGEST_SIZE, MOST_LAYERS = 10**8, 1000


@dataclass(frozen=True)
class LoadedModel:
    """A masked-language model with its tokenizer.

    Attributes:
        name: what the user gave.
        folder: where its files are.
        model: a masked-language model in float32, in evaluation mode.
        tokenizer: the tokenizer that fits it.
        activation: what a sentence-transformers folder says of the activation; None where none says anything.
    """

    name: str
    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    activation: Activation | None = None


def load_masked_lm(name: str, tokenizer_name: str | None = None, agg: str = "max") -> LoadedModel:
    """Load a model that a folder, a hub name or `pkg://package/path` names.

    A sentence-transformers folder is accepted when what it says of pooling agrees with `agg`.

    Raises:
        ModelError: no such model, weights of the head missing, or a tokenizer of another model.
    """
    folder = model_folder(name)
    _check_config(folder, name)
    activation = _check_sentence_transformers(folder, name, agg)
    model = _load_weights(folder, name)
    tokenizer = load_tokenizer(folder, name, tokenizer_name)
    _check_tokenizer_fits(model, tokenizer, name)
    return LoadedModel(name, folder, model, tokenizer, activation)


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


def _load_weights(folder: Path, name: str) -> PreTrainedModel:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # what it warns of is checked below, and an error for us
    transformers_logging.disable_progress_bar()
    try:
        model, info = AutoModelForMaskedLM.from_pretrained(
            str(folder),
            output_loading_info=True,
            local_files_only=True,
            dtype=torch.float32,
            trust_remote_code=False,  # left out, the user would be asked
            weights_only=True,
        )
    except Exception as error:  # a wrong file can end in any error there
        raise ModelError(
            f"model '{name}' in {folder} does not load as a masked-language model: {_in_short(error)}"
        ) from error
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


def _in_short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


def _check_config(folder: Path, name: str) -> None:
    """Refuse a configuration that needs code of its own, or has sizes that cannot be."""
    config = _read_object(folder / "config.json", name)
    tokenizer = folder / "tokenizer_config.json"
    for path, settings in ((folder / "config.json", config), (tokenizer, _read_object(tokenizer, name, optional=True))):
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


def _read_object(path: Path, name: str, optional: bool = False) -> JsonObject:
    try:
        return read_json_object(path) if path.is_file() or not optional else {}
    except DataError as error:
        raise ModelError(f"model '{name}': {error}; fetch or save the model again") from error


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
    if own_pad is None:
        raise ModelError(f"model '{name}': its tokenizer has no padding token")
    if pad is not None and pad != own_pad:
        raise ModelError(
            f"model '{name}' pads with token {pad}, its tokenizer with {own_pad}: it belongs to another model"
        )


def _check_sentence_transformers(folder: Path, name: str, agg: str) -> Activation | None:
    modules, activation = folder / "modules.json", None
    if not modules.is_file():
        return None
    try:
        entries = read_json(modules)
    except DataError as error:
        raise ModelError(f"model '{name}': {error}") from error
    for module in entries if isinstance(entries, list) else [entries]:
        fields = module if isinstance(module, dict) else {}
        kind, part = fields.get("type"), fields.get("path")
        if not isinstance(kind, str) or not isinstance(part, str):
            raise ModelError(
                f"model '{name}': {modules}: must be a list of objects with the strings 'type' and 'path', has "
                f"{str(module)[:80]!r}"
            )
        kind = kind.rpartition(".")[2]
        if kind == "SpladePooling":
            if Path(part).is_absolute() or ".." in Path(part).parts:
                raise ModelError(f"model '{name}': {modules}: the path '{part}' leaves the folder of the model")
            pooling = _read_object(folder / part / "config.json", name)
            activation = pooling.get("activation_function", "relu")
            if activation not in ACTIVATIONS:
                raise ModelError(
                    f"model '{name}': {folder / part / 'config.json'}: activation_function is {activation!r}; allowed "
                    f"are {', '.join(ACTIVATIONS)}"
                )
            said = pooling.get("pooling_strategy", "max")
            if said != agg:
                if said not in AGGREGATIONS:
                    raise ModelError(
                        f"model '{name}': {folder / part / 'config.json'}: pooling_strategy is {said!r}; allowed are "
                        f"{', '.join(AGGREGATIONS)}"
                    )
                raise ModelError(f"model '{name}' was trained with pooling '{said}': set init_dict.agg={said}")
        elif kind not in ("MLMTransformer", "Transformer"):
            raise ModelError(
                f"model '{name}': its module {kind} is not one of a SPLADE model (a masked-language model)"
            )
    return activation
