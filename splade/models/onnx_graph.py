"""PyTorch modules as ONNX graphs of token ids and attention mask, of any batch size and length, and their sessions."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from splade.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUTS = ("input_ids", "attention_mask")
MOST_IN_ONE_FILE = 1 << 30
"""Bytes of weights; more do not fit into a file with the graph."""


def write_graph(module: nn.Module, what: str, output: str, vocab_size: int, path: Path) -> None:
    """Write a module of (batch, length) int64 `INPUTS` as an ONNX file, with its weights beside it if they are many.

    Args:
        module: in evaluation mode, in float32.
        what: what it is called in messages.
        output: name of what it returns.
        vocab_size: number of token ids.
        path: the file.

    Raises:
        ConfigError: a library is missing.
        ModelError: the module cannot be followed.
    """
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    ids = torch.arange(2, 28).remainder(vocab_size).view(2, 13)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            quiet("torch.onnx", "onnxscript", "onnx_ir"),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of names of dimensions
            program = torch.onnx.export(
                module.eval(),
                (ids, mask),
                input_names=list(INPUTS),
                output_names=[output],
                dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
                dynamo=True,
                verbose=False,
            )
    except ImportError as error:
        raise ConfigError("exporting to ONNX needs onnx and onnxscript: pip install 'splade[onnx]'") from error
    except Exception as error:  # of a tracer, for a model that it cannot follow
        raise ModelError(f"{what} cannot be exported to ONNX: {' '.join(str(error).split())[:400]}") from error
    assert program is not None
    program.save(str(path), external_data=weight_bytes(module) > MOST_IN_ONE_FILE)


def weight_bytes(module: nn.Module) -> int:
    """Return the bytes that the parameters of a module take."""
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def open_session(path: Path, threads: int) -> "InferenceSession":
    """Open an ONNX file for a CPU.

    Raises:
        ConfigError: ONNX Runtime is not installed.
        ModelError: it does not load the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("a model in ONNX files needs ONNX Runtime: pip install 'splade[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive":  # threads that wait leave processors to others
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has an error class for each way to fail
        raise ModelError(f"{path}: ONNX Runtime does not load it ({error})") from error


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Let some loggers show errors only."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
