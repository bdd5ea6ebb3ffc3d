"""Parameters without influence: several processes would wait for gradients that never come."""

import logging
from collections.abc import Mapping

from torch import nn

logger = logging.getLogger(__name__)


def freeze_unused(model: nn.Module, batch: Mapping[str, object]) -> None:
    """Freeze the parameters on which nothing that a model gives of a batch depends, such as a pooler.

    Which they are shows when it is run: a used parameter has a gradient then, if only of zeros.
    """
    training = model.training
    sum(output.sum() for output in model.eval()(**batch)).backward()
    model.train(training)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            logger.info("%s has no influence and is not trained", name)
            parameter.requires_grad_(False)
        parameter.grad = None
