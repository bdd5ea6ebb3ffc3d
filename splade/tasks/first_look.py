"""What a command is given is looked at before PyTorch and a model are loaded: a mistake shows within a second or two.

The tasks check all of it again, to the last line of every file.
"""

from splade.config import Experiment, check_monitored
from splade.config.inputs import named_files, trains_model
from splade.datasets.beir import available_splits
from splade.datasets.first_lines import look_at, look_at_beir, look_at_beir_folder
from splade.errors import SpladeError
from splade.evaluation.measures import parse_metrics
from splade.storage.paths import resolve_path
from splade.tasks.evaluation_sets import check_evaluation_settings

_KINDS = {
    "COLLECTION_PATH": "documents",
    "D_COLLECTION_PATH": "documents",
    "add": "documents",
    "collection": "documents",
    "Q_COLLECTION_PATH": "queries",
    "flops_queries": "queries",
    "QREL_PATH": "qrels",
    "EVAL_QREL_PATH": "qrels",
    "qrels": "qrels",
}
"""Last part of a key to what its files hold."""


def first_look(experiment: Experiment, task: str) -> None:
    """Look at names of metrics, and at the first lines of files.

    Raises:
        ConfigError: an unknown metric, one that is not measured, or lists that do not belong together.
        DataError: a file that begins with something else than its key asks for.
    """
    run, beir = experiment.config, experiment.beir
    if task in ("retrieve", "evaluate", "run_all"):
        check_evaluation_settings(experiment)
    if task in ("compare", "fuse") and experiment.metrics is not None:
        parse_metrics(experiment.metrics)
    if trains_model(experiment, task) or task == "train_reranker":
        parse_metrics(run.validation_metrics)
        check_monitored(experiment)
    if task in ("beir_eval", "bm25") and beir.dataset is not None and beir.dataset_path is not None:
        look_at_beir(beir.dataset, beir.dataset_path, beir.split or "test")
    folder = experiment.data.TRAIN_DATA_DIR
    if task == "adapt" and folder is not None and experiment.data.TRAIN.QREL_PATH == f"{folder}/qrels/train.tsv":
        place = resolve_path(folder)
        if "train" in available_splits(place):
            look_at_beir_folder(place, "train")
        else:  # queries are made from the documents
            look_at("documents", str(place))
    for key, path in named_files(experiment, task):
        name = key.rpartition(".")[2]
        kind = experiment.data.type if name == "DATASET_PATH" else _KINDS.get(name)
        if kind is not None:
            try:
                look_at(kind, path)
            except SpladeError as error:
                raise type(error)(f"{key}: {error}") from error
