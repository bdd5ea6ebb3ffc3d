"""The backbone of a model, run on a CPU by ONNX Runtime or OpenVINO: `init_dict.backend`.

Token ids up to the states that the output embedding is multiplied with become an ONNX graph; the product and the
pooling stay ours (`models.head`), in float32. A graph is exported once and kept in the user's cache, under a name that
stands for weights, architecture, precision and the libraries that wrote it.

ONNX Runtime multiplies 8-bit integers for `int8`: one scale per output for the weights, one per product for the states,
found when they pass. The layers between the backbone and the output embedding stay in float32: they are few, and their
rounding would reach the weights undamped. OpenVINO multiplies in bfloat16 for `bf16`.
"""

import hashlib
import json
import logging
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
import transformers
from torch import Tensor, nn

from splade.errors import ConfigError, ModelError
from splade.models.low_precision import Precision, check_precision
from splade.models.masked_lm import MaskedLMEncoder
from splade.models.onnx_graph import INPUTS, MOST_IN_ONE_FILE, open_session, quiet, weight_bytes, write_graph
from splade.models.threads import is_small
from splade.storage.atomic import replacing
from splade.storage.cache import user_cache

logger = logging.getLogger(__name__)

Backend = Literal["torch", "onnx", "openvino"]
Backbone = Callable[[Tensor, Tensor], Tensor]
"""(batch, length) int64 token ids and attention mask to (batch, length, dim) float32 states."""

PRECISIONS = {"onnx": ("fp32", "int8"), "openvino": ("fp32", "bf16")}
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
STATES = "states"
_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where PyTorch's exporter notes the modules that a node comes from."""


def check_backend(backend: Backend, precision: Precision) -> None:
    """Refuse what a backend does not do, and one whose packages are absent.

    Raises:
        ConfigError: with the line that installs them.
    """
    check_precision(precision)
    if backend == "torch":
        return
    if precision not in PRECISIONS[backend]:
        allowed = " or ".join(PRECISIONS[backend])
        other = next(name for name, precisions in PRECISIONS.items() if precision in precisions)
        raise ConfigError(
            f"init_dict.backend={backend} has init_dict.precision={allowed}, not {precision}; for {precision} set "
            f"init_dict.backend={other} or torch"
        )
    absent = [name for name in PACKAGES[backend] if find_spec(name) is None]
    if absent:
        raise ConfigError(f"init_dict.backend={backend} needs {', '.join(absent)}: pip install 'splade[{backend}]'")


def exported_backbone(encoder: MaskedLMEncoder, digest: str, backend: Backend, precision: Precision) -> Backbone:
    """Return the backbone of an encoder as the backend runs it; export it where that was not done before.

    Args:
        encoder: in evaluation mode, on the CPU, in float32.
        digest: of its weights.
        backend: `onnx` or `openvino`.
        precision: one that the backend has.

    Raises:
        ConfigError: its weights are too many for one file.
        ModelError: it cannot be exported.
        WriteError: the user's cache cannot be written to.
    """
    if type(encoder) is not MaskedLMEncoder:
        raise ModelError(f"init_dict.backend={backend} is for masked-language models; set init_dict.backend=torch")
    threads = 1 if is_small(encoder) else torch.get_num_threads()
    in_8_bits = precision == "int8"
    path = user_cache() / f"backbone-{_key(encoder, digest)}-{'int8' if in_8_bits else 'fp32'}.onnx"

    def opened() -> Backbone:
        return _by_onnx(path, threads) if backend == "onnx" else _by_openvino(path, threads, precision)

    if path.is_file():
        with suppress(ModelError):  # damaged: exported again
            return opened()
    logger.info("exporting the backbone to ONNX, once: %s", path)
    with replacing(path) as temporary:
        _write(encoder, in_8_bits, temporary)
    return opened()


def _key(encoder: MaskedLMEncoder, digest: str) -> str:
    config = json.loads(encoder.model.config.to_json_string())
    config.pop("_name_or_path", None)
    parts = [digest, type(encoder.model).__name__, config, torch.__version__, transformers.__version__]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


class _States(nn.Module):
    """What becomes a graph."""

    def __init__(self, encoder: MaskedLMEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.encoder.hidden_states(input_ids, attention_mask)


def _write(encoder: MaskedLMEncoder, in_8_bits: bool, path: Path) -> None:
    if not in_8_bits and weight_bytes(encoder) > MOST_IN_ONE_FILE:
        raise ConfigError(
            "init_dict.precision=fp32: the model is too large for one ONNX file; set init_dict.precision=int8 and "
            "init_dict.backend=onnx, or init_dict.backend=torch"
        )
    with tempfile.TemporaryDirectory(prefix="splade-backbone-") as folder:
        exact = Path(folder) / "fp32.onnx" if in_8_bits else path
        write_graph(_States(encoder), type(encoder.model).__name__, STATES, encoder.vocab_size, exact)
        if in_8_bits:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            outside = _products_outside(exact, f"'encoder.model.{encoder.model.base_model_prefix}'")
            with quiet("root"):  # it recommends what was done
                quantize_dynamic(
                    exact,
                    path,
                    op_types_to_quantize=["MatMul", "Gemm"],
                    nodes_to_exclude=outside,
                    per_channel=True,
                    weight_type=QuantType.QInt8,
                    extra_options={"MatMulConstBOnly": True},
                )


def _products_outside(path: Path, module: str) -> list[str]:
    """Return the names of the matrix products of a graph that come from elsewhere than a module."""
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    scopes = {
        node.name: "".join(entry.value for entry in node.metadata_props if entry.key == _SCOPES)
        for node in nodes
        if node.op_type in ("MatMul", "Gemm")
    }
    outside = [name for name, scope in scopes.items() if module not in scope]
    return outside if len(outside) < len(scopes) else []  # all: nothing was noted


def _by_onnx(path: Path, threads: int) -> Backbone:
    session = open_session(path, threads)

    def run(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        inputs = {name: tensor.numpy() for name, tensor in zip(INPUTS, (input_ids, attention_mask), strict=True)}
        return torch.from_numpy(session.run([STATES], inputs)[0])

    return run


def _by_openvino(path: Path, threads: int, precision: Precision) -> Backbone:
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    try:
        model = openvino.Core().compile_model(str(path), "CPU", settings)
    except Exception as error:  # it has one for each way to fail
        raise ModelError(f"{path}: OpenVINO does not load it ({error})") from error
    requests = threading.local()  # a request has room for one batch

    def run(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if not hasattr(requests, "own"):
            requests.own = model.create_infer_request()
        inputs = {name: tensor.numpy() for name, tensor in zip(INPUTS, (input_ids, attention_mask), strict=True)}
        return torch.from_numpy(requests.own.infer(inputs)[model.output(0)].copy())

    return run
