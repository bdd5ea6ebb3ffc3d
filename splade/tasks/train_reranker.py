"""Task: train a reranker."""

from pathlib import Path

from splade.config import Experiment, require
from splade.config.processes import processes_to_start
from splade.config.record import RECORD_FOLDER
from splade.distributed import working_together
from splade.errors import ConfigError
from splade.models.pair_scorer import PairScorer
from splade.training.reranker_training import PairCollator, prepare_reranker_training, save_reranker
from splade.training.run import TrainResult, run_training
from splade.training.trainer import SpladeTrainer


def train_reranker(experiment: Experiment) -> TrainResult:
    """Train the model init_dict.model_type_or_dir on data.TRAIN; the best checkpoint becomes checkpoint_dir/model.

    An interrupted run resumes from its last complete checkpoint and ends with the weights of an uninterrupted one.
    """
    require(experiment, "config.checkpoint_dir", "init_dict.model_type_or_dir")
    folder = Path(str(experiment.config.checkpoint_dir))
    if _record(folder, "train").is_file() and not _record(folder, "train_reranker").is_file():
        raise ConfigError(
            f"config.checkpoint_dir={folder} holds a model of splade.train: give a reranker another folder"
        )
    with working_together():
        return run_training(experiment, "train_reranker", prepare_reranker_training, lambda trainer: None, _save)


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the training."""
    return processes_to_start(experiment, trains=True)


def _record(folder: Path, task: str) -> Path:
    return folder / RECORD_FOLDER / f"{task}.json"


def _save(trainer: SpladeTrainer, folder: Path) -> None:
    scorer, collator = trainer.model, trainer.data_collator
    if isinstance(scorer, PairScorer) and isinstance(collator, PairCollator):
        save_reranker(scorer, collator.tokenizer.tokenizer, folder)
