"""Task: train a model."""

from splade.config import Experiment, require
from splade.config.processes import processes_to_start
from splade.distributed import working_together
from splade.errors import ConfigError
from splade.training.run import TrainResult, train_model


def train(experiment: Experiment) -> TrainResult:
    """Train the model init_dict on data.TRAIN; the best checkpoint becomes config.checkpoint_dir/model.

    An interrupted run resumes from its last complete checkpoint and ends with the weights of an uninterrupted one.
    """
    require(experiment, "config.checkpoint_dir", "init_dict.model_type_or_dir")
    if experiment.config.regularizer == "eval_only":
        raise ConfigError(
            "config.regularizer=eval_only: this configuration is for evaluation, there is nothing to train"
        )
    with working_together():
        return train_model(experiment)


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the training."""
    return processes_to_start(experiment, trains=True)
