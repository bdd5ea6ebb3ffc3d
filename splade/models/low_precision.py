"""Encoders for inference on a CPU with linear layers in fewer bits: `init_dict.precision`.

A model of real size spends nearly all of its time in the linear layers of its backbone. Processors with the
instructions for it multiply bfloat16 about four times, and 8-bit integers six times as fast as float32. Everything
else, the head included, stays in float32.

8 bits: each output of a layer has one scale for its weights, and each token one for its states, found when it passes
(dynamic quantisation, as in arXiv 1910.06188). A scale per token keeps the large states of a few tokens from coarsening
those of all others.
"""

import logging
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from splade.errors import ConfigError
from splade.models.head.int8_filter import LARGEST, in_8_bits, integer_products_are_right
from splade.storage.compiled import compiled

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "int8"]
# The product of 8-bit integers is only tried for states of more numbers than this.
SMALLEST_WIDTH = 16


class Int8Linear(nn.Module):
    """A linear layer with weights and states in 8 bits, for inference on a CPU.

    Args:
        layer: float32; its weights are copied.
    """

    weight: Tensor
    scales: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight, scales = in_8_bits(layer.weight.detach(), layer.weight.detach().abs().amax(dim=1, keepdim=True))
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_buffer("weight", weight)
        self.register_buffer("scales", scales.squeeze(1).contiguous())
        bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach().clone()
        self.register_buffer("bias", bias)

    def forward(self, states: Tensor) -> Tensor:
        """Return (..., out_features) float32 of (..., in_features) float32."""
        rows = states.detach().reshape(-1, self.in_features).contiguous()
        lowest, highest = rows.aminmax(dim=1)
        scales = torch.maximum(-lowest, highest) / LARGEST  # not finite where a state is not, and so is the output
        integers = torch.empty(rows.shape, dtype=torch.int8)
        quantise_rows(rows.numpy(), scales.numpy(), integers.numpy())
        products = torch._int_mm(integers, self.weight.t())
        out = torch.empty(products.shape)
        restore_rows(products.numpy(), scales.numpy(), self.scales.numpy(), self.bias.numpy(), out.numpy())
        return out.view(*states.shape[:-1], self.out_features)


class Bf16Linear(nn.Module):
    """A linear layer that multiplies in bfloat16, for inference on a CPU.

    Args:
        layer: float32; its weights are copied.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_buffer("weight", layer.weight.detach().to(torch.bfloat16))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().to(torch.bfloat16))

    def forward(self, states: Tensor) -> Tensor:
        """Return (..., out_features) float32 of (..., in_features) float32."""
        return nn.functional.linear(states.to(torch.bfloat16), self.weight, self.bias).float()


LAYERS: dict[str, type[Int8Linear] | type[Bf16Linear]] = {"int8": Int8Linear, "bf16": Bf16Linear}


def lower_precision(model: nn.Module, precision: Precision) -> None:
    """Replace the linear layers of a model by layers of fewer bits, in place.

    Args:
        model: float32, on the CPU, for inference only from now on.
        precision: `fp32` changes nothing.

    Raises:
        ConfigError: the processor has no instructions for it, so that it would be slower than float32 and no better.
    """
    if precision == "fp32":
        return
    check_precision(precision)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and min(child.weight.shape) >= SMALLEST_WIDTH:
                setattr(parent, name, LAYERS[precision](child))


def check_precision(precision: Precision) -> None:
    """Raise a ConfigError where this processor gains nothing by `precision`."""
    if precision == "fp32":
        return
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    needed = {"bf16": ("avx512_bf16", "amx_bf16"), "int8": ("avx512_vnni", "amx_int8")}[precision]
    native = any(capabilities.get(name, False) for name in needed)
    if not native or (precision == "int8" and not integer_products_are_right()):
        raise ConfigError(
            f"init_dict.precision={precision}: this processor has no instructions for it ({' or '.join(needed)}), so "
            "that it would not be faster; set init_dict.precision=fp32"
        )


@compiled()
def quantise_rows(rows: np.ndarray, scales: np.ndarray, integers: np.ndarray) -> None:
    """Write `integers = rint(rows / scales)`.

    Args:
        rows: (n, width) float32.
        scales: (n,) float32, the largest absolute value of each row / 127.
        integers: (n, width) int8, written.
    """
    for i in range(len(rows)):
        inverse = np.float32(1) / scales[i] if scales[i] > 0 else np.float32(0)
        for j in range(rows.shape[1]):
            integers[i, j] = np.int8(np.rint(rows[i, j] * inverse))


@compiled()
def restore_rows(
    products: np.ndarray, row_scales: np.ndarray, scales: np.ndarray, bias: np.ndarray, out: np.ndarray
) -> None:
    """Write `out = products * row_scales * scales + bias`.

    Args:
        products: (n, width) int32.
        row_scales: (n,) float32.
        scales: (width,) float32.
        bias: (width,) float32.
        out: (n, width) float32, written.
    """
    for i in range(len(products)):
        for j in range(products.shape[1]):
            out[i, j] = np.float32(products[i, j]) * (row_scales[i] * scales[j]) + bias[j]
