"""Loading a transformers model of any head, and refusing what would silently run with random weights."""

import re
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.auto_factory import _BaseAutoModelClass
from transformers.utils import logging as transformers_logging

from splade.errors import ModelError
from splade.models.pretrained import UNUSED_WEIGHTS, _in_short, check_config

# Made anew, or used by no head: their absence changes nothing.
_NOT_NEEDED = re.compile(r"(^|\.)(pooler|position_ids|token_type_ids|inv_freq)(\.|$)")


def transformer_config(folder: Path, name: str) -> PreTrainedConfig:
    """Read the configuration of a model.

    Raises:
        ModelError: transformers does not know the architecture, sizes cannot be, or it names Python code.
    """
    check_config(folder, name)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a wrong file can end in any error there
        raise ModelError(f"model '{name}' in {folder}: its config.json does not load: {_in_short(error)}") from error
    return config


def load_transformer(
    auto_class: type[_BaseAutoModelClass],
    folder: Path,
    name: str,
    what: str,
    new: str = "^$",
    config: PreTrainedConfig | None = None,
) -> PreTrainedModel:
    """Load weights in float32, in evaluation mode.

    Args:
        auto_class: the class of transformers that loads it, such as `AutoModel`.
        folder: where its files are.
        name: what the user gave, for messages.
        what: what it should be, for messages, such as "an encoder".
        new: pattern of weights that may be missing, since training makes them.
        config: in place of the folder's config.json.

    Raises:
        ModelError: it does not load as what it should be, weights are missing or of another shape, or its folder names
            Python code.
    """
    config = transformer_config(folder, name) if config is None else config
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # what it warns of is checked below, and an error for us
    transformers_logging.disable_progress_bar()
    try:
        model, info = auto_class.from_pretrained(
            str(folder),
            config=config,
            output_loading_info=True,
            local_files_only=True,
            dtype=torch.float32,
            trust_remote_code=False,
            weights_only=True,
        )
    except Exception as error:  # a wrong file can end in any error there
        raise ModelError(f"model '{name}' in {folder} does not load as {what}: {_in_short(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    missing = sorted(key for key in info["missing_keys"] if not (_NOT_NEEDED.search(key) or re.search(new, key)))
    if missing or info["mismatched_keys"]:
        wrong = missing or [str(key) for key in info["mismatched_keys"]]
        raise ModelError(
            f"model '{name}' in {folder} is not {what}: weights are missing or of another shape, and would be random: "
            f"{', '.join(wrong[:4])}{f' and {len(wrong) - 4} more' if len(wrong) > 4 else ''}"
        )
    parts = {part for part, _ in model.named_children()}
    prefix = f"{model.base_model_prefix}."
    unused = [key for key in info["unexpected_keys"] if key.removeprefix(prefix).split(".")[0] in parts]
    unused = sorted(key for key in unused if not UNUSED_WEIGHTS.search(key))
    if unused:
        raise ModelError(
            f"model '{name}' in {folder} holds weights that {type(model).__name__} with its config.json does not take: "
            f"{', '.join(unused[:4])}; restore config.json (number of layers, model_type)"
        )
    loaded: PreTrainedModel = model.eval()
    return loaded
