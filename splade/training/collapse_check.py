"""The last look at a trained model: do its vectors tell texts apart?"""

import logging

from splade.config.schema import RunConfig
from splade.encoding.sparse_model import SparseModel
from splade.errors import CollapseError
from splade.evaluation.collapse import find_collapse
from splade.models.splade import Splade
from splade.training.sampler import TrainingSampler

logger = logging.getLogger(__name__)

N_EXAMPLES = 32
TRIAL_STEPS = 100  # a shorter run is a trial of the settings; from a random start it cannot be sparse yet

_ADVICE = {
    "no term is active": "lower the regulariser's lambda or config.lr, or let lambda grow more slowly (T)",
    "every term is active": "raise the regulariser's lambda or train longer; where the loss did not fall, divide "
    "the logits at the start (init_dict.head_divisor=8) or lower config.lr",
    "all vectors are the same": "lower config.lr, lengthen config.warmup_steps, or divide the logits at the start "
    "(init_dict.head_divisor=8)",
}


def check_trained(model: Splade, sampler: TrainingSampler, run: RunConfig, steps: int) -> None:
    """Encode a few training examples with a trained model.

    Raises:
        CollapseError: the vectors of one side say nothing. After fewer than 100 steps, every term may still be active.
    """
    examples = [sampler[i] for i in range(min(N_EXAMPLES, len(sampler)))]
    sides = {
        "document": {text for example in examples for text in (example.positive, *example.negatives)},
        "query": {example.query for example in examples},
    }
    ready = SparseModel(model.eval(), run.max_length, run.eval_batch_size)
    for side, texts in sides.items():
        encoder = ready.documents if side == "document" else ready.queries
        collapse = find_collapse(encoder.encode(sorted(texts)))
        if collapse is None:
            continue
        message = f"training has failed: {collapse} in the vectors of {len(texts)} {side} texts"
        if collapse == "every term is active" and steps < TRIAL_STEPS:
            logger.warning("%s, after %d steps", message, steps)
        else:
            raise CollapseError(f"{message}: {_ADVICE[collapse]}; the checkpoints are in {run.checkpoint_dir}")
