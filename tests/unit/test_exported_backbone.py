"""A backbone in ONNX Runtime or OpenVINO: the vectors of PyTorch, exported once, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from tiny_models import write_model

import splade
from splade.config import compose_experiment
from splade.errors import ConfigError, ModelError
from splade.models import exported_backbone
from splade.models.exported_backbone import check_backend
from splade.models.load import load_for_inference, settings_that_load

TEXTS = ["what is a sparse vector", "cats and dogs", "a", "the history of the printing press " * 9]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of this file's tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def settled(monkeypatch, cache):
    """Let every processor take every precision, and keep what is exported away from the user's cache."""
    monkeypatch.setattr(exported_backbone, "check_precision", lambda precision: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def needs(backend):
    for name in exported_backbone.PACKAGES[backend]:
        pytest.importorskip(name, reason=f"needs the extra: pip install .[{backend}]")


@pytest.fixture(scope="module")
def folder(tiny_model):
    return str(tiny_model())


@pytest.mark.parametrize(
    ("backend", "precision", "near"),
    [("onnx", "fp32", 1e-4), ("onnx", "int8", 0.1), ("openvino", "fp32", 1e-4), ("openvino", "bf16", 0.1)],
)
def test_vectors_and_fingerprint_are_those_of_the_model(folder, backend, precision, near):
    needs(backend)
    exact, other = splade.load(folder), splade.load(folder, precision=precision, backend=backend)
    assert other.fingerprint == exact.fingerprint
    assert other.network.document_encoder.backbone is not None
    left, right = (model.encode_documents(TEXTS).to_dense() for model in (exact, other))
    np.testing.assert_allclose(left, right, atol=near * left.max())
    assert (left * right).sum() > 0.999 * np.linalg.norm(left) * np.linalg.norm(right)
    one = np.stack([other.encode_queries(text).to_dense()[0] for text in TEXTS])
    np.testing.assert_allclose(one, right, atol=max(1e-4, near / 4) * left.max())


def test_exported_once_and_again_where_it_is_damaged(folder, cache, monkeypatch):
    needs("onnx")
    expected = splade.load(folder, backend="onnx").encode_documents(TEXTS).to_dense()
    (kept,) = (cache / "splade").glob("backbone-*-fp32.onnx")
    written = []

    def write(encoder, in_8_bits, path):
        written.append(path)
        Path(path).write_bytes(whole)

    monkeypatch.setattr(exported_backbone, "_write", write)
    whole = kept.read_bytes()
    np.testing.assert_array_equal(splade.load(folder, backend="onnx").encode_documents(TEXTS).to_dense(), expected)
    assert not written
    kept.write_bytes(whole[: len(whole) // 2])
    np.testing.assert_array_equal(splade.load(folder, backend="onnx").encode_documents(TEXTS).to_dense(), expected)
    assert len(written) == 1 and kept.read_bytes() == whole


def test_another_model_is_another_file(tiny_model, cache, folder, monkeypatch):
    monkeypatch.setattr(exported_backbone, "_by_onnx", lambda path, threads: str(path))
    monkeypatch.setattr(exported_backbone, "_write", lambda encoder, in_8_bits, path: Path(path).write_bytes(b"graph"))
    monkeypatch.setattr(exported_backbone, "find_spec", lambda name: name)
    places = {
        splade.load(model, backend="onnx", precision=precision).network.document_encoder.backbone
        for model in (folder, str(tiny_model(seed=1)))
        for precision in ("fp32", "int8")
    }
    assert len(places) == 4
    for place in map(Path, places):
        if place.read_bytes() == b"graph":
            place.unlink()


def test_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(exported_backbone, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(ConfigError, match=r"backend=onnx needs onnxruntime: pip install 'splade\[onnx\]'"):
        check_backend("onnx", "int8")
    for backend, precision, other in (("onnx", "bf16", "openvino"), ("openvino", "int8", "onnx")):
        with pytest.raises(ConfigError, match=f"{backend} has .*not {precision}; .*backend={other} or torch"):
            check_backend(backend, precision)
    check_backend("openvino", "bf16")
    monkeypatch.setattr(exported_backbone, "find_spec", lambda name: name)
    with pytest.raises(ModelError, match="masked-language models; set init_dict.backend=torch"):
        splade.load(str(write_model("llama", tmp_path)), backend="onnx")


def test_an_index_does_not_ask_for_the_backend_that_made_it(folder):
    keys = [f"init_dict.model_type_or_dir={folder}", "config.pretrained_no_yamlconfig=true"]
    experiment = compose_experiment("config_default", [*keys, "init_dict.backend=onnx", "init_dict.precision=int8"])
    assert not {"init_dict.backend", "init_dict.precision"} & set(settings_that_load(experiment))
    experiment.init_dict.precision = "bf16"
    with pytest.raises(ConfigError, match="backend=onnx has"):
        load_for_inference(experiment)
