"""Loading a model by its name."""

from pathlib import Path
from typing import Literal

from splade.config.record import read_config
from splade.config.schema import Experiment, ModelConfig, RunConfig
from splade.distributed import pick_device
from splade.encoding.lengths import settle_max_length
from splade.encoding.sparse_model import SparseModel
from splade.models.load import load_for_inference
from splade.models.original_checkpoint import is_original_checkpoint
from splade.models.pretrained import folder_pooling
from splade.models.save import DONE_FILE


def load(
    name: str | Path,
    query_encoder: str | Path | None = None,
    max_length: int | None = None,
    batch_size: int = 64,
    agg: Literal["max", "sum"] | None = None,
    precision: Literal["fp32", "bf16", "int8"] = "fp32",
    backend: Literal["torch", "onnx", "openvino"] = "torch",
) -> SparseModel:
    """Load a sparse model onto this process's GPU, or the CPU.

    Args:
        name: hub name (`naver/splade-v3`), folder (Hugging Face, sentence-transformers, or the `checkpoint_dir` of a
            finished training run, also of the original toolkit), or `pkg://package/path`, files inside an installed
            Python package.
        query_encoder: a separate model for queries; None: one model for both. A checkpoint brings its own.
        max_length: tokens of a text beyond this, special tokens included, are cut off, and beyond what the model's
            folder says; None: what the folder, or the configuration of a checkpoint, says, 256 where nothing does.
        batch_size: most texts of a batch.
        agg: pooling over tokens, `max` or `sum`; None: what the model's folder says, `max` where it says nothing. A
            checkpoint brings its own.
        precision: of the linear layers on a CPU: `bf16` and `int8` are faster for models of real size, and vectors
            differ a little.
        backend: what runs the backbone on a CPU. `onnx` (fp32 or int8) and `openvino` (fp32 or bf16) export it once, to
            the user's cache; `pip install 'splade[onnx]'`, `'splade[openvino]'`.

    Raises:
        ModelError: no such model, weights missing, or a tokenizer of another model.
        ConfigError: settings that contradict each other.

    Example:
        >>> load("pkg://cognition/model")
        SparseModel('pkg://cognition/model', splade, 30522 terms)
    """
    folder = Path(name)
    if (folder / DONE_FILE).is_file() or is_original_checkpoint(folder):
        experiment = read_config(folder)
        experiment.config.checkpoint_dir = str(folder)
        experiment.config.pretrained_no_yamlconfig = False
        experiment.init_dict.fp16 = experiment.init_dict.fp16 and pick_device().type == "cuda"
    else:
        init = ModelConfig(
            model_type_or_dir=str(name),
            model_type_or_dir_q=None if query_encoder is None else str(query_encoder),
            agg=agg or folder_pooling(str(name)) or "max",
        )
        experiment = Experiment(init_dict=init, config=RunConfig(pretrained_no_yamlconfig=True))
    experiment.init_dict.precision, experiment.init_dict.backend = precision, backend
    network = load_for_inference(experiment)
    if max_length is None and not experiment.config.pretrained_no_yamlconfig:
        max_length = settle_max_length(experiment.config.max_length, network)
    return SparseModel(network, max_length, batch_size)
