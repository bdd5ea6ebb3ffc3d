"""Task: hand a model, or the vectors of a collection, to other systems."""

import shutil
from pathlib import Path

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.encoding.lengths import settle_max_length
from splade.errors import ConfigError
from splade.interop.onnx_export import export_onnx
from splade.models.load import load_for_inference
from splade.models.onnx_folder import is_onnx_folder
from splade.reports.summaries import TaskResult
from splade.storage.locks import FolderLock


def export(experiment: Experiment) -> TaskResult:
    """Write what `target` names below config.out_dir.

    onnx: the model as config.out_dir/onnx, which can be init_dict.model_type_or_dir, and the model of `splade.load`.
    """
    require(experiment, "config.out_dir", "target")
    if experiment.target != "onnx":
        raise ConfigError(f"target={experiment.target}: splade.export writes onnx; splade.encode writes vectors")
    out_dir = Path(str(experiment.config.out_dir))
    if experiment.init_dict.precision != "fp32":
        raise ConfigError("target=onnx exports float32; leave init_dict.precision out")
    folder = out_dir / "onnx"
    with FolderLock(out_dir):
        if folder.exists():
            if not experiment.config.overwrite or not is_onnx_folder(folder):
                raise ConfigError(f"{folder} is there already; give another config.out_dir, or config.overwrite=true")
            shutil.rmtree(folder)
        model = load_for_inference(experiment).to("cpu")
        difference = export_onnx(model, folder, settle_max_length(experiment.config.max_length, model))
        save_record(experiment, out_dir, "export")
    return TaskResult(
        text=f"{model.name}: encoder and head as ONNX, weights within {difference:.1g} of the model's\n  in {folder}"
    )
