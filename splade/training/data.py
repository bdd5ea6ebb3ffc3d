"""From `data` and `config` to training examples, and the checks that come before the first step."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from splade.config.schema import Experiment, FullRanking
from splade.config.validate import check_monitored, require
from splade.datasets.collections import open_collection, open_queries
from splade.datasets.dataset import Dataset
from splade.datasets.hard_negatives import HardNegatives
from splade.datasets.qrels import read_qrels
from splade.datasets.teacher_scores import open_scores
from splade.datasets.training_sets import TrainingSet
from splade.datasets.triplets import ScoredTriplets, open_triplets
from splade.errors import ConfigError, DataError
from splade.evaluation.measures import parse_metrics
from splade.evaluation.protocols import TrecProtocol
from splade.losses import WeightedLoss
from splade.training.sampler import HeldOut, TrainingSampler, split_rows
from splade.training.schedule import Schedule, global_batch_size, schedule_of
from splade.training.validation import FullRankingData

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Everything that a training run reads, and a report of what was left out of the training set and why."""

    sampler: TrainingSampler
    schedule: Schedule
    held_out: HeldOut | None
    full_ranking: FullRankingData | None
    report: str


def load_training_data(experiment: Experiment, loss: WeightedLoss) -> TrainingData:
    """Open the training and validation data that the configuration names.

    Raises:
        ConfigError: the kind of data or the batch does not fit the loss, or what is monitored is not measured.
        DataError: wrong files.
    """
    check_loss_fits(experiment, loss)
    check_monitored(experiment)
    run, data = experiment.config, experiment.data
    examples = open_training_set(experiment)
    n_held_out = held_out_size(data.VALIDATION_SIZE_FOR_LOSS or 0, len(examples))
    rows, held_out_rows = split_rows(len(examples), n_held_out, run.seed)
    schedule = schedule_of(run, len(rows))
    length = schedule.steps * run.gradient_accumulation_steps * schedule.batch_size
    first, *others = str(examples.report).splitlines()
    report = "\n".join([first + (f", {n_held_out} of them held out for validation" if n_held_out else ""), *others])
    logger.info("%s", report)
    return TrainingData(
        sampler=TrainingSampler(examples, rows, run.seed, length),
        schedule=schedule,
        held_out=HeldOut(examples, held_out_rows) if n_held_out else None,
        full_ranking=load_full_ranking(data.VALIDATION_FULL_RANKING, run.validation_metrics),
        report=report,
    )


def held_out_size(wanted: int, n_examples: int) -> int:
    """Return how many examples are held out: those wanted, or a fifth where they would be more than half of all.

    Raises:
        ConfigError: a single example cannot be held out and trained on.

    Example:
        >>> held_out_size(64, 1000), held_out_size(64, 60)
        (64, 12)
    """
    if wanted <= n_examples // 2:
        return wanted
    if n_examples < 2:
        raise ConfigError(
            f"data.VALIDATION_SIZE_FOR_LOSS={wanted}, but there is only {n_examples} training example; set it to 0"
        )
    fewer = max(1, n_examples // 5)
    logger.info(
        "data.VALIDATION_SIZE_FOR_LOSS=%d of %d examples is too many: %d are held out", wanted, n_examples, fewer
    )
    return fewer


def open_training_set(experiment: Experiment) -> TrainingSet:
    """Open `data.TRAIN` as what `data.type` says it is."""
    data, train = experiment.data, experiment.data.TRAIN
    require(experiment, "data.TRAIN.DATASET_PATH")
    if data.type == "triplets":
        return open_triplets(str(train.DATASET_PATH))
    if data.type == "triplets_with_distil":
        return ScoredTriplets(str(train.DATASET_PATH))
    require(experiment, "data.TRAIN.D_COLLECTION_PATH", "data.TRAIN.Q_COLLECTION_PATH", "data.TRAIN.QREL_PATH")
    return HardNegatives(
        open_scores(str(train.DATASET_PATH)),
        read_qrels(str(train.QREL_PATH), split="train"),
        open_queries(str(train.Q_COLLECTION_PATH)),
        open_collection(str(train.D_COLLECTION_PATH)),
        n_negatives=experiment.config.n_negatives,
        seed=experiment.config.seed,
        incomplete="leave_out" if data.incomplete == "leave_out" else "error",
    )


def check_loss_fits(experiment: Experiment, loss: WeightedLoss) -> None:
    """Raise a ConfigError when the loss needs what the data or the batch does not have."""
    run, data = experiment.config, experiment.data
    batch_size = global_batch_size(run)
    if loss.needs_teacher and data.type == "triplets":
        raise ConfigError(
            f"config.loss={loss} needs teacher scores, which data.type=triplets does not have: use "
            "triplets_with_distil or hard_negatives, or another loss"
        )
    if batch_size < loss.smallest_batch:
        raise ConfigError(
            f"config.loss={loss} compares queries with the others of the batch: config.train_batch_size must be at "
            f"least {loss.smallest_batch}, not {batch_size}"
        )
    if data.type != "hard_negatives" and run.n_negatives != 1:
        raise ConfigError(f"config.n_negatives={run.n_negatives} is for data.type=hard_negatives; a triplet has one")


def load_full_ranking(config: FullRanking | None, metrics: Sequence[str]) -> FullRankingData | None:
    """Open the data of `data.VALIDATION_FULL_RANKING`.

    Raises:
        ConfigError: a path is missing.
        DataError: a judged query is not among the queries, or no judged document is in the collection.
    """
    names = ("D_COLLECTION_PATH", "Q_COLLECTION_PATH", "QREL_PATH")
    paths = {name: getattr(config, name) for name in names} if config is not None else {}
    if config is None or all(path is None for path in paths.values()):
        return None
    absent = [f"data.VALIDATION_FULL_RANKING.{name}" for name, path in paths.items() if path is None]
    if absent:
        raise ConfigError(f"no value for {', '.join(absent)}; or set data.VALIDATION_FULL_RANKING=null")
    parse_metrics(metrics)
    dataset = Dataset.open("validation", paths["Q_COLLECTION_PATH"], paths["QREL_PATH"], paths["D_COLLECTION_PATH"])
    queries, qrels = dataset.judged_queries, dataset.qrels or {}
    if not queries:
        raise DataError(f"{paths['Q_COLLECTION_PATH']}: none of its queries is judged in {paths['QREL_PATH']}")
    judged = sorted({doc_id for documents in qrels.values() for doc_id in documents})
    if np.all(dataset.documents.rows(judged) < 0):
        raise DataError(f"{paths['D_COLLECTION_PATH']} has none of the documents judged in {paths['QREL_PATH']}")
    own = replace(dataset, queries=queries, qrels={query_id: qrels[query_id] for query_id in queries})
    return FullRankingData(own, TrecProtocol(metrics), config.TOP_K)
