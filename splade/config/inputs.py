"""A look at the paths that a command reads, before its libraries are loaded: a wrong one shows within a second."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from splade.config.schema import Experiment
from splade.config.validate import require
from splade.errors import ConfigError, DataError, ModelError, nearest
from splade.storage.paths import IR_DATASETS_SCHEME, PACKAGE_SCHEME, one_folder_off, resolve_path

_TRAINING = tuple(
    f"data.TRAIN.{name}" for name in ("DATASET_PATH", "D_COLLECTION_PATH", "Q_COLLECTION_PATH", "QREL_PATH")
)
_VALIDATION = tuple(
    f"data.VALIDATION_FULL_RANKING.{name}" for name in ("D_COLLECTION_PATH", "Q_COLLECTION_PATH", "QREL_PATH")
)
_QUERIES = ("data.Q_COLLECTION_PATH", "data.EVAL_QREL_PATH")
READS: Mapping[str, tuple[str, ...]] = {
    "train": (*_TRAINING, *_VALIDATION),
    "pretrain": ("pretrain.collection",),
    "index": ("data.COLLECTION_PATH",),
    "encode": ("data.COLLECTION_PATH",),
    "retrieve": ("config.index_dir", *_QUERIES),
    "evaluate": ("config.out_dir", "data.EVAL_QREL_PATH"),
    "flops": ("config.index_dir", "data.flops_queries"),
    "run_all": (*_TRAINING, *_VALIDATION, "data.COLLECTION_PATH", *_QUERIES, "data.flops_queries"),
    "create_anserini": ("data.COLLECTION_PATH", "data.Q_COLLECTION_PATH"),
    "search": ("config.index_dir",),
    "serve": ("config.index_dir", "serve.others"),
    "figures": ("figures.folder",),
    "explain": ("config.index_dir", "explain.file", "explain.run"),
    "update": ("config.index_dir", "add"),
    "compare": ("runs", "qrels"),
    "prune": ("config.index_dir", *_QUERIES),
    "fuse": ("runs", "qrels"),
}
"""Task to keys whose files must be there when it starts."""

REQUIRED: Mapping[str, tuple[str, ...]] = {
    "train": ("config.checkpoint_dir", "data.TRAIN.DATASET_PATH"),
    "index": ("config.index_dir", "data.COLLECTION_PATH"),
    "encode": ("config.out_dir", "data.COLLECTION_PATH"),
    "retrieve": ("config.index_dir", "config.out_dir", "data.Q_COLLECTION_PATH", "config.retrieval_name"),
    "evaluate": ("config.out_dir", "config.retrieval_name", "data.EVAL_QREL_PATH", "config.eval_metric"),
    "flops": ("config.index_dir", "config.out_dir", "data.flops_queries"),
    "run_all": ("config.index_dir", "config.out_dir", "data.COLLECTION_PATH", "data.Q_COLLECTION_PATH"),
    "create_anserini": ("config.out_dir", "data.COLLECTION_PATH", "data.Q_COLLECTION_PATH"),
    "beir_eval": ("beir.dataset", "beir.dataset_path", "config.index_dir", "config.out_dir"),
    "search": ("config.index_dir",),
    "compare": ("runs", "config.out_dir"),
    "fuse": ("runs", "config.out_dir"),
    "rerank": ("config.out_dir", "data.path_run", "data.document_dir", "data.query_dir"),
}
"""Task to keys that must have a value."""

_VECTORS_INSTEAD = (("index", "data.COLLECTION_PATH"), ("prune", "config.index_dir"))
_LOADS_A_MODEL = (
    "index",
    "retrieve",
    "flops",
    "create_anserini",
    "beir_eval",
    "search",
    "serve",
    "explain",
    "push",
    "export",
    "encode",
)
_INDEXES = ("config.index_dir", "serve.others")
# An index may be named by its file.
_TAKES_A_FILE = [
    ("index_dir", task)
    for task in ("search", "serve", "explain", "retrieve", "flops", "update", "index_info", "export", "prune")
]


def check_inputs(experiment: Experiment, task: str) -> None:
    """Check that the files and folders that a task reads are there.

    Raises:
        DataError: one is not; the message gives the absolute path and what is near it.
        ModelError: a model's folder is not.
        ConfigError: a key has no value, or a file is given where a folder is needed.
    """
    for key, path in named_files(experiment, task):
        if not path.startswith(IR_DATASETS_SCHEME):
            _check_path(path, key)
    run, trains = experiment.config, trains_model(experiment, task)
    for name in ("checkpoint_dir", "index_dir", "out_dir"):
        folder = getattr(run, name)
        if folder is not None and Path(folder).expanduser().is_file() and (name, task) not in _TAKES_A_FILE:
            raise ConfigError(f"config.{name}={folder}: that is a file; give a folder")
    loads_a_model = task in _LOADS_A_MODEL and (task != "beir_eval" or _encodes_sparsely(experiment))
    if loads_a_model and not run.pretrained_no_yamlconfig and run.checkpoint_dir is not None:
        check_checkpoint_folder(Path(run.checkpoint_dir))
    elif loads_a_model or task == "pretrain" or trains:
        for model in (experiment.init_dict.model_type_or_dir, experiment.init_dict.model_type_or_dir_q):
            if model is not None:
                check_model_name(model)
    require_all(experiment, task)


def _encodes_sparsely(experiment: Experiment) -> bool:
    """Return whether `retriever`, or a part of it, needs the sparse model."""
    parts = {"fuse": experiment.fuse.retrievers, "rerank": [experiment.rerank.first_stage]}
    names, seen = [experiment.retriever], set[str]()
    while names:
        name = names.pop()
        if name not in seen:
            seen.add(name)
            names += parts.get(name, [])
    return not seen.isdisjoint(("sparse", "milvus", "seismic"))


def require_all(experiment: Experiment, task: str) -> None:
    """Raise a ConfigError that names the keys without a value that a task cannot do without."""
    keys = list(REQUIRED.get(task, ()))
    if task == "index" and experiment.data.VECTORS_PATH is not None:
        keys.remove("data.COLLECTION_PATH")
    require(experiment, *keys)


def trains_model(experiment: Experiment, task: str) -> bool:
    """Return whether a task trains an encoder on `data.TRAIN`."""
    run = experiment.config
    return task in ("train", "run_all") and not run.pretrained_no_yamlconfig and run.regularizer != "eval_only"


def named_files(experiment: Experiment, task: str) -> Iterator[tuple[str, str]]:
    """Yield (key, path) of the files and folders that a task reads."""
    trains = trains_model(experiment, task)
    for key in READS.get(task, ()):
        if experiment.data.VECTORS_PATH is not None and (task, key) in _VECTORS_INSTEAD:
            key = "data.VECTORS_PATH"
        if trains or key not in (*_TRAINING, *_VALIDATION):
            yield from ((key, path) for path in _paths(experiment, key))


def check_checkpoint_folder(folder: Path) -> None:
    """Check that `config.checkpoint_dir` is a folder.

    Raises:
        ModelError: it is not there.
    """
    if not folder.is_dir():
        raise ModelError(
            f"config.checkpoint_dir: no such folder: {folder.absolute()}{_near_folder(folder)}; train first "
            "(python -m splade.train), or for a pre-trained model set config.pretrained_no_yamlconfig=true"
        )


def check_model_name(name: str) -> None:
    """Check that a model is a folder here, or that its name can be one of the Hugging Face hub.

    Raises:
        ModelError: it is neither.
    """
    if name.startswith(PACKAGE_SCHEME):
        resolve_path(name)
        return
    path = Path(name).expanduser()
    of_hub = not name.startswith((".", "/", "~")) and name.count("/") <= 1
    if path.exists() and not path.is_dir() or not path.exists() and not of_hub:
        what = "is a file, not a folder" if path.exists() else f"no such folder{_near_folder(path)}"
        start = (
            " (the published data archive has it, or splade.pretrain makes it)"
            if name.startswith("models/mlm_flops/")
            else ""
        )
        raise ModelError(
            f"model '{name}': {path.absolute()}: {what}; give a folder{start}, or a name of the Hugging Face hub"
        )


def _near_folder(missing: Path) -> str:
    """Return "; did you mean 'x'?" for the sister of a missing folder with the nearest name, or one with its own."""
    parent = missing.absolute().parent
    near = nearest(missing.name, [entry.name for entry in parent.iterdir()]) if parent.is_dir() else ""
    return near or one_folder_off(missing.absolute())


def _check_path(path: str, key: str) -> None:
    try:
        resolve_path(path)
    except DataError as error:
        hint = "; without one: data.VALIDATION_FULL_RANKING=null" if key in _VALIDATION else ""
        hint = "; build the index first (python -m splade.index)" if key in _INDEXES else hint
        raise DataError(f"{key}: {error}{hint}") from error


def _paths(experiment: Experiment, key: str) -> Iterator[str]:
    """Yield the paths in the value of a key."""
    value: object = experiment
    for part in key.split("."):
        value = getattr(value, part, None)
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    yield from (path for path in values if isinstance(path, str) and path)
