"""Linear layers in fewer bits: close to float32, refused where they gain nothing, and seen in no fingerprint."""

import numpy as np
import pytest
import torch
from torch import nn

import splade
from splade.errors import ConfigError, ModelError
from splade.models import low_precision
from splade.models.low_precision import Bf16Linear, Int8Linear, lower_precision

TEXTS = ["what is a sparse vector", "cats and dogs", "a"]

native = {"int8": ("avx512_vnni", "amx_int8"), "bf16": ("avx512_bf16", "amx_bf16")}


@pytest.fixture
def allowed(monkeypatch):
    """Let every processor take both precisions: results do not depend on its instructions, only their speed does."""
    monkeypatch.setattr("splade.models.exported_backbone.check_precision", lambda precision: None)
    monkeypatch.setattr(low_precision, "check_precision", lambda precision: None)


def quantised_by_hand(layer, states):
    """The formula: one scale per output for weights, one per row for states, integers between."""
    weight, states = layer.weight.detach().numpy(), states.numpy()
    scales = np.abs(weight).max(axis=1) / 127
    row_scales = np.abs(states).max(axis=1) / 127
    integers = np.rint(weight / scales[:, None]), np.rint(states / np.where(row_scales > 0, row_scales, 1)[:, None])
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()
    return integers[1] @ integers[0].T * row_scales[:, None] * scales + bias


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 16, 16), (7, 48, 80), (40, 768, 24)])
def test_int8_is_the_formula_and_near_float32(bias, shape):
    torch.manual_seed(0)
    layer, states = nn.Linear(*shape[1:], bias=bias), torch.randn(shape[0], shape[1])
    states[0] *= 1000  # does not coarsen the others
    found = Int8Linear(layer)(states)
    np.testing.assert_allclose(
        found.numpy(), quantised_by_hand(layer, states), rtol=1e-4, atol=1e-4 * found.abs().max()
    )
    exact = layer(states).detach()
    assert ((found - exact).norm(dim=1) < 0.02 * exact.norm(dim=1)).all()


def test_int8_keeps_leading_dimensions_zeros_and_what_is_not_finite():
    layer = nn.Linear(16, 32)
    states = torch.randn(2, 3, 16).transpose(0, 1)
    states[0, 0], states[1, 0, 3], states[2, 1, 5] = 0, torch.nan, torch.inf
    out = Int8Linear(layer)(states)
    assert out.shape == (3, 2, 32)
    assert torch.equal(out[0, 0], layer.bias.detach())
    assert out[1, 0].isnan().all() and out[2, 1].isnan().all()
    assert out[0, 1].isfinite().all() and Int8Linear(layer)(states[:0]).shape == (0, 2, 32)


def test_bf16_is_near_float32():
    layer, states = nn.Linear(64, 32), torch.randn(5, 64)
    out, exact = Bf16Linear(layer)(states), layer(states)
    assert out.dtype == torch.float32
    assert (out - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_model_in_fewer_bits_gives_nearly_its_vectors_and_keeps_its_fingerprint(tiny_model, allowed, precision):
    folder = str(tiny_model())
    exact, lower = splade.load(folder), splade.load(folder, precision=precision)
    assert any(isinstance(module, Int8Linear | Bf16Linear) for module in lower.network.modules())
    assert lower.fingerprint == exact.fingerprint
    left, right = (model.encode_documents(TEXTS).to_dense() for model in (exact, lower))
    assert 0 < np.abs(left - right).max() < 0.1 * left.max()
    assert (left * right).sum() > 0.999 * np.linalg.norm(left) * np.linalg.norm(right)
    one = np.stack([lower.encode_queries(text).to_dense()[0] for text in TEXTS])
    np.testing.assert_allclose(one, right, atol=1e-3)


def test_the_decoder_is_spared(tiny_model, allowed):
    lower = splade.load(str(tiny_model()), precision="int8").network
    assert type(lower.document_encoder.model.get_output_embeddings()) is nn.Linear


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_processor_that_gains_nothing_is_an_error(tiny_model, monkeypatch, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(ConfigError, match=rf"precision={precision}.*{native[precision][0]}.*precision=fp32"):
        splade.load(str(tiny_model()), precision=precision)


def test_weights_that_are_not_finite_are_still_noticed(tiny_model, allowed):
    model = splade.load(str(tiny_model()), precision="int8")
    next(module for module in model.network.modules() if isinstance(module, Int8Linear)).bias[0] = torch.nan
    with pytest.raises(ModelError, match="not.*finite|finite"):
        model.encode_documents(TEXTS)


def test_fp32_changes_nothing():
    layers = nn.Sequential(nn.Linear(32, 32))
    lower_precision(layers, "fp32")
    assert type(layers[0]) is nn.Linear
