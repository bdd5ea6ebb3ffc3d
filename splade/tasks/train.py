"""Task: train a model."""

from pathlib import Path

from splade.config import Experiment, require
from splade.config.processes import processes_to_start
from splade.distributed import on_first_process, working_together
from splade.errors import ConfigError
from splade.tasks.figures import FOLDER, draw_quietly
from splade.tasks.model_loading import DEFAULT_MODEL
from splade.training.dense_training import train_dense
from splade.training.run import TrainResult, train_model


def train(experiment: Experiment) -> TrainResult:
    """Train the model init_dict on data.TRAIN; the best checkpoint becomes config.checkpoint_dir/model.

    An interrupted run resumes from its last complete checkpoint and ends with the weights of an uninterrupted one.
    """
    check_can_train(experiment)
    if experiment.config.regularizer == "eval_only":
        raise ConfigError(
            "config.regularizer=eval_only: this configuration is for evaluation, there is nothing to train"
        )
    folder = Path(str(experiment.config.checkpoint_dir))
    with working_together():
        result = train_dense(experiment) if experiment.config.matching_type == "dense" else train_model(experiment)
        on_first_process(lambda: draw_quietly([folder], folder / FOLDER))
    return result


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the training."""
    return processes_to_start(experiment, trains=True)


def check_can_train(experiment: Experiment) -> None:
    """Check that there is a place for the model; start from SPLADE-tiny where no other model is named.

    Raises:
        ConfigError: no value for `config.checkpoint_dir`.
    """
    require(experiment, "config.checkpoint_dir")
    if experiment.init_dict.model_type_or_dir is None:
        experiment.init_dict.model_type_or_dir = DEFAULT_MODEL
