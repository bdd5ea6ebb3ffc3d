"""LoRA: small trained matrices beside the frozen weights of a large model (arXiv 2106.09685), through peft."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from splade.config.schema import LoraConfig
from splade.errors import ConfigError, ModelError
from splade.models.causal_lm import READING
from splade.models.masked_lm import find_decoder
from splade.storage.atomic import JsonObject, read_json_object, write_json

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer

ADAPTER_CONFIG, READING_FILE = "adapter_config.json", "splade_reading.json"


def add_adapters(model: PreTrainedModel, lora: LoraConfig) -> None:
    """Freeze a model and put fresh adapters, which are trained, beside its linear layers.

    Raises:
        ConfigError: peft is not installed, or a layer that `init_dict.lora.modules` names is not there.
        ModelError: an adapter would stand on the output embedding, which the sparse head reads itself.
    """
    _require_peft()
    import peft

    settings = peft.LoraConfig(
        r=lora.rank or 0,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.modules or "all-linear",
    )
    try:
        model.add_adapter(settings)
    except ValueError as error:
        raise ConfigError(f"init_dict.lora.modules={lora.modules}: {error}") from error
    if find_decoder(model) is None:
        raise ModelError("init_dict.lora.modules names the output embedding, which cannot have adapters; leave it out")


def merge_adapters(model: PreTrainedModel) -> None:
    """Add the adapters to the weights that they stand beside, and remove them."""
    for parent, name, layer in list(_adapted_layers(model)):
        layer.merge()
        setattr(parent, name, layer.get_base_layer())
    model._hf_peft_config_loaded = False
    del model.peft_config


def has_adapters(model: object) -> bool:
    """Return whether a model has adapters."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def save_adapters(model: PreTrainedModel, folder: Path) -> None:
    """Write the adapters, which peft and transformers load, with the name of the model that they belong to."""
    model.save_pretrained(folder)
    settings = read_json_object(folder / ADAPTER_CONFIG)
    write_json(folder / ADAPTER_CONFIG, settings | {"base_model_name_or_path": model.name_or_path})
    # Not in a config.json: with one, transformers would not look for adapters.
    write_json(
        folder / READING_FILE, {key: getattr(model.config, key) for key in READING if hasattr(model.config, key)}
    )


def base_of_adapters(folder: Path) -> str | None:
    """Return the name of the model that the adapters in a folder belong to; None for a folder without adapters.

    Raises:
        ModelError: the folder does not say.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    base = read_json_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str):
        raise ModelError(f"{folder / ADAPTER_CONFIG}: base_model_name_or_path must name the model that it belongs to")
    return base


def adapter_settings(folder: Path) -> JsonObject:
    """Return what `save_adapters` wrote down of how the model reads; nothing for adapters of other programs."""
    return read_json_object(folder / READING_FILE) if (folder / READING_FILE).is_file() else {}


def load_merged(model: PreTrainedModel, folder: Path) -> None:
    """Read the adapters in a folder into the model that they belong to, and merge them.

    Raises:
        ConfigError: peft is not installed.
        ModelError: they are not LoRA adapters of this model.
    """
    _require_peft()
    import peft
    from safetensors.torch import load_file

    try:
        settings = peft.PeftConfig.from_pretrained(str(folder))
        if not isinstance(settings, peft.LoraConfig):
            raise ModelError(f"{folder}: adapters of kind {settings.peft_type} are not read, only LoRA")
        model.add_adapter(settings)
        values = load_file(folder / "adapter_model.safetensors")
        outcome = peft.set_peft_model_state_dict(model, values, adapter_name="default")
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"the adapters in {folder} do not fit the model that they name: {error}") from error
    missing, unexpected = outcome  # type: ignore[attr-defined]
    wrong = [key for key in missing if "lora_" in key] + list(unexpected)
    if wrong:
        raise ModelError(f"the adapters in {folder} do not fit the model that they name: {', '.join(wrong[:4])}")
    merge_adapters(model)
    model.requires_grad_(True)


def _adapted_layers(model: PreTrainedModel) -> "Iterator[tuple[object, str, BaseTunerLayer]]":
    from peft.tuners.tuners_utils import BaseTunerLayer

    for parent in model.modules():
        for name, layer in parent.named_children():
            if isinstance(layer, BaseTunerLayer):
                yield parent, name, layer


def _require_peft() -> None:
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ConfigError("LoRA adapters need peft: pip install 'splade[peft]'") from error
