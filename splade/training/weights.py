"""The weights in a training checkpoint: the whole model, or under adapters only what is trained of it."""

from pathlib import Path

import safetensors
import safetensors.torch
from torch import nn

from splade.errors import ModelError
from splade.models.adapters import has_adapters

WEIGHTS_FILE = "splade.safetensors"


def save_weights(model: nn.Module, checkpoint: Path) -> None:
    """Write the weights of a model to a checkpoint; of a model with adapters, only the trained ones."""
    file = str(checkpoint / WEIGHTS_FILE)
    if _is_adapted(model):
        safetensors.torch.save_file({name: weight.detach() for name, weight in _trained(model).items()}, file)
    else:
        safetensors.torch.save_model(model, file)


def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Load the weights of a training checkpoint into a model of the same architecture.

    Raises:
        ModelError: they are missing, damaged, or those of another model.
    """
    file = str(checkpoint / WEIGHTS_FILE)
    try:
        if not _is_adapted(model):
            safetensors.torch.load_model(model, file)
            return
        saved = safetensors.torch.load_file(file)
        if saved.keys() != _trained(model).keys():
            raise RuntimeError("it holds the weights of another model")
        model.load_state_dict(saved, strict=False)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise ModelError(
            f"{checkpoint / WEIGHTS_FILE} cannot be loaded ({str(error)[:300]}); give the training command again: it "
            "goes on from a checkpoint that is whole"
        ) from error


def _is_adapted(model: nn.Module) -> bool:
    return any(has_adapters(module) for module in model.modules())


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
