"""What splade.adapt works with: the judged queries of a collection, and the settings that their number allows."""

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from splade.config import Experiment, require
from splade.datasets.beir import available_splits, beir_dataset
from splade.datasets.dataset import Dataset
from splade.datasets.hard_negatives import HardNegatives
from splade.errors import ConfigError, DataError
from splade.storage.paths import resolve_path
from splade.tasks.made_set import DOCUMENTS_FILE, QRELS_FILE, QUERIES_FILE
from splade.training.data import open_training_set
from splade.training.sampler import split_rows

OWN_NAME = "own"
"""Name of a data set that is no BEIR folder, which would bring one."""

# Held out as long as that is no more than half: on fewer nobody sees whether a model is better.
_FEWEST_HELD_OUT = 25
# Validations in a run whose length follows from the number of queries, and its warm-up.
_VALIDATIONS, _WARMUP_SHARE = 4, 0.05


def judged_set(experiment: Experiment) -> Dataset | None:
    """Open the judged queries to train on, with their documents; None: there are none.

    They are the split `train` of the BEIR folder data.TRAIN_DATA_DIR, or one's own files: data.TRAIN.Q_COLLECTION_PATH,
    data.TRAIN.QREL_PATH, data.COLLECTION_PATH.

    Raises:
        ConfigError: a file is not given.
        DataError: a file is missing or wrong, or no query is judged.
    """
    data, own = experiment.data, own_files(experiment)
    if _names_queries(own):
        require(experiment, "data.TRAIN.Q_COLLECTION_PATH", "data.TRAIN.QREL_PATH")
        return _judged(data.TRAIN.Q_COLLECTION_PATH, data.TRAIN.QREL_PATH, corpus_path(experiment), "train")
    if "data.COLLECTION_PATH" in own:
        return None
    folder = _beir_folder(experiment)
    return beir_dataset(folder, "train") if "train" in available_splits(folder) else None


def evaluated_set(experiment: Experiment) -> Dataset | None:
    """Open the queries to test on: the split `beir.split` of the BEIR folder, or data.EVAL_QREL_PATH; None: no test.

    Raises:
        ConfigError: qrels without queries.
        DataError: a file is missing or wrong, or no query is judged.
    """
    own = own_files(experiment)
    if _names_queries(own) or "data.COLLECTION_PATH" in own:
        if "data.EVAL_QREL_PATH" not in own:
            return None
        queries = own.get("data.Q_COLLECTION_PATH", own.get("data.TRAIN.Q_COLLECTION_PATH"))
        if queries is None:
            raise ConfigError("no value for data.Q_COLLECTION_PATH: the queries that data.EVAL_QREL_PATH judges")
        return _judged(queries, own["data.EVAL_QREL_PATH"], corpus_path(experiment), "test")
    folder, split = _beir_folder(experiment), experiment.beir.split
    if split is None and "test" not in available_splits(folder):
        return None
    return beir_dataset(folder, split or "test")


def made_experiment(experiment: Experiment, folder: Path) -> Experiment:
    """Return the settings with the made queries in `folder`, and their documents, in place of the judged ones."""
    made = deepcopy(experiment)
    data = made.data
    data.COLLECTION_PATH = data.TRAIN.D_COLLECTION_PATH = str(folder / DOCUMENTS_FILE)
    data.TRAIN.Q_COLLECTION_PATH, data.TRAIN.QREL_PATH = str(folder / QUERIES_FILE), str(folder / QRELS_FILE)
    return made


def _names_queries(own: dict[str, str]) -> bool:
    return "data.TRAIN.Q_COLLECTION_PATH" in own or "data.TRAIN.QREL_PATH" in own


def _beir_folder(experiment: Experiment) -> Path:
    require(experiment, "data.TRAIN_DATA_DIR")
    return resolve_path(str(experiment.data.TRAIN_DATA_DIR))


def own_files(experiment: Experiment) -> dict[str, str]:
    """Return key to path for the files that are not just what config_domain_adaptation says of data.TRAIN_DATA_DIR."""
    data, folder = experiment.data, experiment.data.TRAIN_DATA_DIR
    files = {
        "data.COLLECTION_PATH": (data.COLLECTION_PATH, folder),
        "data.TRAIN.D_COLLECTION_PATH": (data.TRAIN.D_COLLECTION_PATH, folder),
        "data.TRAIN.Q_COLLECTION_PATH": (data.TRAIN.Q_COLLECTION_PATH, folder),
        "data.TRAIN.QREL_PATH": (data.TRAIN.QREL_PATH, f"{folder}/qrels/train.tsv"),
        "data.TRAIN.DATASET_PATH": (data.TRAIN.DATASET_PATH, f"{folder}/mined/train/run.json"),
        "data.Q_COLLECTION_PATH": (next(iter(data.Q_COLLECTION_PATH), None), folder),
        "data.EVAL_QREL_PATH": (next(iter(data.EVAL_QREL_PATH), None), f"{folder}/qrels/test.tsv"),
    }
    return {key: path for key, (path, inherited) in files.items() if path is not None and path != inherited}


def corpus_path(experiment: Experiment) -> str:
    """Return the path of the documents.

    Raises:
        ConfigError: none is given with one's own queries.
    """
    own = own_files(experiment)
    named = own.get("data.COLLECTION_PATH", own.get("data.TRAIN.D_COLLECTION_PATH"))
    if named is None and "data.TRAIN.Q_COLLECTION_PATH" in own:
        raise ConfigError("no value for data.COLLECTION_PATH: the documents that the queries are judged for")
    return named or str(experiment.data.TRAIN_DATA_DIR)


def training_experiment(experiment: Experiment, run_file: Path, checkpoint_dir: Path) -> tuple[Experiment, set[str]]:
    """Return what trains on a run of the training queries, as long as their number allows; and the held-out queries.

    Args:
        experiment: of the whole adaptation.
        run_file: what the model retrieves for the training queries; hard negatives are drawn from it, unless
            data.TRAIN.DATASET_PATH names another run.
        checkpoint_dir: where the model goes.

    Raises:
        ConfigError: another kind of training set.
        DataError: too few queries can be used.
    """
    training = deepcopy(experiment)
    run, data = training.config, training.data
    run.pretrained_no_yamlconfig, run.checkpoint_dir = False, str(checkpoint_dir)
    data.TRAIN.DATASET_PATH = own_files(experiment).get("data.TRAIN.DATASET_PATH", str(run_file))
    data.TRAIN.D_COLLECTION_PATH = data.COLLECTION_PATH = corpus_path(experiment)
    examples = open_training_set(training)
    if not isinstance(examples, HardNegatives):
        raise ConfigError(f"data.type={data.type}: a model is adapted with data.type=hard_negatives")
    n_held_out = _n_held_out(experiment, len(examples))
    rows, held_out = split_rows(len(examples), n_held_out, run.seed)
    data.VALIDATION_SIZE_FOR_LOSS = n_held_out
    _shorten(training, len(rows))
    return training, {examples.query_ids[row] for row in held_out}


def _n_held_out(experiment: Experiment, n_queries: int) -> int:
    wanted, most = experiment.adapt.held_out, experiment.data.VALIDATION_SIZE_FOR_LOSS or n_queries
    if wanted is None:
        wanted = min(most, max(n_queries // 5, min(_FEWEST_HELD_OUT, n_queries // 2)))
    elif wanted > n_queries // 2:
        raise ConfigError(f"adapt.held_out={wanted}: more than half of the {n_queries} judged queries that can be used")
    if wanted == 0:
        raise DataError(
            f"{n_queries} judged queries can be used: too few to train on some and to see with others whether that "
            "has helped. Sixty are a beginning; docs/adapting.md says what to expect from how many"
        )
    return wanted


def _shorten(training: Experiment, n_queries: int) -> None:
    """Let a run over few queries end after `adapt.most_epochs`, with as many validations as a longer one."""
    run, most = training.config, training.adapt.most_epochs
    if most is None or run.nb_iterations is None or run.train_batch_size is None:
        return
    steps = math.ceil(most * n_queries / (run.train_batch_size * run.gradient_accumulation_steps))
    if steps < run.nb_iterations:
        run.nb_iterations = steps
        run.record_frequency = min(run.record_frequency, math.ceil(steps / _VALIDATIONS))
        if run.warmup_steps is not None:
            run.warmup_steps = min(run.warmup_steps, math.ceil(_WARMUP_SHARE * steps))


def _judged(queries: str | None, qrels: str | None, corpus: str, split: str) -> Dataset:
    dataset = Dataset.open(OWN_NAME, str(queries), str(qrels), corpus, split)
    judged = dataset.judged_queries
    if not judged:
        raise DataError(f"{qrels}: none of its queries has a text in {queries}")
    own = {query_id: documents for query_id, documents in (dataset.qrels or {}).items() if query_id in judged}
    return replace(dataset, queries=judged, qrels=own)
