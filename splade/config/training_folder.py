"""`data.TRAIN_DATA_DIR`: the folder of the triplets, as published configurations give it; or what paths begin with."""

import logging
from collections.abc import Iterator

from splade.config.schema import Experiment
from splade.errors import ConfigError

logger = logging.getLogger(__name__)


def settle_training_folder(experiment: Experiment, given: frozenset[str] = frozenset()) -> None:
    """Let `data.TRAIN_DATA_DIR` stand for `data.TRAIN.DATASET_PATH` where training is on triplets.

    A path of the triplets that is given beside it wins, unless only the folder is on the command line.

    Args:
        experiment: the settings; `data.TRAIN.DATASET_PATH` is filled in.
        given: keys and groups that the command line set.

    Raises:
        ConfigError: the command line gives a folder that nothing reads.

    Example:
        >>> experiment = Experiment()
        >>> experiment.data.TRAIN_DATA_DIR = "data/msmarco/triplets"
        >>> settle_training_folder(experiment)
        >>> experiment.data.TRAIN.DATASET_PATH
        'data/msmarco/triplets'
    """
    data, train = experiment.data, experiment.data.TRAIN
    folder, asked_for = data.TRAIN_DATA_DIR, "data.TRAIN_DATA_DIR" in given
    if folder is None:
        return
    if data.type != "hard_negatives":
        inherited = asked_for and "data.TRAIN.DATASET_PATH" not in given
        if inherited and train.DATASET_PATH not in (None, folder):
            logger.info(
                "data.TRAIN_DATA_DIR=%s takes the place of the inherited data.TRAIN.DATASET_PATH=%s",
                folder,
                train.DATASET_PATH,
            )
        if inherited or train.DATASET_PATH is None:
            train.DATASET_PATH = folder
    elif asked_for and not any(path.startswith(folder) for path in _paths(experiment)):
        raise ConfigError(
            f"data.TRAIN_DATA_DIR={folder}: nothing reads it, for data.type=hard_negatives takes DATASET_PATH, "
            "D_COLLECTION_PATH, Q_COLLECTION_PATH and QREL_PATH of data.TRAIN; for the triplets in a folder add "
            "train/data=msmarco, or distil_from_bm25 where they have scores"
        )


def _paths(experiment: Experiment) -> Iterator[str]:
    """Yield the paths that may begin with the folder."""
    data, train = experiment.data, experiment.data.TRAIN
    single = (train.DATASET_PATH, train.D_COLLECTION_PATH, train.Q_COLLECTION_PATH, train.QREL_PATH)
    for path in (*single, data.COLLECTION_PATH, *data.Q_COLLECTION_PATH, *data.EVAL_QREL_PATH):
        if path is not None:
            yield path
