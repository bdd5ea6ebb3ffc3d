"""Task: middle-train a language model."""

from splade.config import Experiment, require
from splade.config.processes import processes_to_start
from splade.distributed import working_together
from splade.errors import ConfigError
from splade.tasks.model_loading import DEFAULT_MODEL
from splade.training.pretraining import MiddleTrainResult, middle_train


def pretrain(experiment: Experiment) -> MiddleTrainResult:
    """Train a language model on pretrain.collection, with the regularisers of its vectors; see `splade.training`.

    Raises:
        ConfigError: a key is missing, or is for other kinds of training.
    """
    require(experiment, "config.checkpoint_dir", "pretrain.collection")
    if experiment.pretrain.vocab_size is not None and experiment.init_dict.model_type_or_dir is not None:
        raise ConfigError(
            f"pretrain.vocab_size={experiment.pretrain.vocab_size} starts from random weights, "
            f"init_dict.model_type_or_dir={experiment.init_dict.model_type_or_dir} from those of a model: set one of "
            "them to null"
        )
    if experiment.pretrain.vocab_size is None and experiment.init_dict.model_type_or_dir is None:
        experiment.init_dict.model_type_or_dir = DEFAULT_MODEL
    with working_together():
        return middle_train(experiment)


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the training."""
    return processes_to_start(experiment, trains=True)
