"""The last look at a trained model: do its vectors tell texts apart, and have they the terms that were asked for?"""

import logging
from collections.abc import Sequence

from splade.config.schema import RunConfig
from splade.encoding.sparse_model import SparseModel
from splade.errors import CollapseError
from splade.evaluation.collapse import find_collapse
from splade.losses import Regularizer
from splade.models.splade import Splade
from splade.training.sampler import TrainingSampler

logger = logging.getLogger(__name__)

N_EXAMPLES = 32
NEAR = 0.1  # to a number of terms that was asked for, as a share of it
TRIAL_STEPS = 100  # a shorter run is a trial of the settings; from a random start it cannot be sparse yet

_ADVICE = {
    "no term is active": "lower the regulariser's lambda or config.lr, or let lambda grow more slowly (T)",
    "every term is active": "raise the regulariser's lambda or train longer; where the loss did not fall, divide "
    "the logits at the start (init_dict.head_divisor=8) or lower config.lr",
    "all vectors are the same": "lower config.lr, lengthen config.warmup_steps, or divide the logits at the start "
    "(init_dict.head_divisor=8)",
}


def check_trained(
    model: Splade, sampler: TrainingSampler, run: RunConfig, steps: int, regularizers: Sequence[Regularizer] = ()
) -> None:
    """Encode a few training examples with a trained model; a target that was missed is a warning.

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
        vectors = encoder.encode(sorted(texts))
        collapse = find_collapse(vectors)
        if collapse is None:
            for regularizer in regularizers:
                if (regularizer.lambda_q is None) == (side == "document"):
                    _compare_with_target(regularizer, vectors.nnz / len(vectors), f"{len(vectors)} {side} texts")
            continue
        message = f"training has failed: {collapse} in the vectors of {len(texts)} {side} texts"
        if collapse == "every term is active" and steps < TRIAL_STEPS:
            logger.warning("%s, after %d steps", message, steps)
        else:
            raise CollapseError(f"{message}: {_ADVICE[collapse]}; the checkpoints are in {run.checkpoint_dir}")


def _compare_with_target(regularizer: Regularizer, terms: float, texts: str) -> None:
    if regularizer.controller is None:
        return
    target = regularizer.controller.target_terms
    found = f"config.regularizer.{regularizer.name}.target_terms={target:g}: {texts} have {terms:.1f} terms on average"
    if abs(terms / target - 1) <= NEAR:
        logger.info("%s", found)
    elif terms > target:
        logger.warning("%s; train longer (config.nb_iterations), or raise config.lr", found)
    else:
        logger.warning(
            "%s. What was pressed out returns slowly, and lambda cannot add what the model would not have without: "
            "train longer (config.nb_iterations), lower config.lr, or ask for fewer terms",
            found,
        )
