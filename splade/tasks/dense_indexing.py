"""What the tasks do for config.matching_type=dense: load the model, encode a collection."""

from dataclasses import dataclass
from pathlib import Path

from splade.config import Experiment, require
from splade.config.jobs import Figures
from splade.config.record import save_record
from splade.datasets.collections import open_collection
from splade.encoding.dense_model import DenseModel
from splade.reports.summaries import TaskResult
from splade.retrieval.dense_index import DenseIndex
from splade.tasks.evaluation_sets import check_collection
from splade.tasks.model_loading import trained_or_named


@dataclass(frozen=True, kw_only=True)
class DenseIndexResult(TaskResult):
    """Finished dense vectors of a collection."""

    index: DenseIndex

    def figures(self) -> list[Figures]:
        """Return the costs of the index."""
        return [Figures(costs={"n_docs": len(self.index), "index_bytes": self.index.vectors.nbytes})]


def load_dense_model(experiment: Experiment) -> DenseModel:
    """Load config.checkpoint_dir/model, or with config.pretrained_no_yamlconfig the model that `init_dict` names.

    Raises:
        ConfigError: none is named.
        ModelError: it cannot be loaded.
    """
    run, dense = experiment.config, experiment.dense
    pooling, normalise = dense.pooling, dense.normalise
    if not run.pretrained_no_yamlconfig:  # its folder says how it was trained
        pooling = normalise = None
    name = trained_or_named(experiment)
    return DenseModel.load(name, pooling, normalise, run.max_length, run.index_retrieve_batch_size)


def index_dense(experiment: Experiment) -> DenseIndexResult:
    """Encode the collection data.COLLECTION_PATH into dense vectors in config.index_dir."""
    require(experiment, "config.index_dir", "data.COLLECTION_PATH")
    collection = open_collection(str(experiment.data.COLLECTION_PATH))
    findings = check_collection(experiment, collection)
    model = load_dense_model(experiment)
    folder = Path(str(experiment.config.index_dir))
    made = DenseIndex.build(folder, model, collection, experiment.config.overwrite)
    save_record(experiment, folder, "index")
    size = f"{len(made)} documents, {made.vectors.shape[1]} dimensions, {made.vectors.nbytes / 1e6:.1f} MB"
    return DenseIndexResult(
        text=f"dense index of {size}\n  in {folder}", findings=(*findings, *model.findings), index=made
    )
