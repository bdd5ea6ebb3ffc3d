"""How many tokens a model can take."""

import logging
from functools import cache

from torch import nn

from splade.encoding.tokens import Tokenizer
from splade.errors import ConfigError, ModelError
from splade.evaluation.checks import Finding
from splade.models.splade import Splade

logger = logging.getLogger(__name__)

_NO_LIMIT = 10**6  # tokenizers without one have a number far beyond
DEFAULT_MAX_LENGTH = 256
_POSITION_TABLES = ("position_embeddings", ".wpe", "embed_positions")


def text_length(
    encoder: object, asked: int | None, said: int | None, name: str, side: str
) -> tuple[int, list[Finding]]:
    """Return the number of tokens after which texts are cut, and what is worth saying about it.

    Args:
        encoder: what encodes the texts.
        asked: by the user or the configuration; None: nothing.
        said: by the model's folder; None: nothing.
        name: of the model, for messages.
        side: `document` or `query`, for messages.
    """
    if said is None:
        return DEFAULT_MAX_LENGTH if asked is None else asked, []
    if asked is None:
        return min(said, _positions(encoder)[0] or said), []
    if asked <= said:
        return asked, []
    message = f"'{name}' itself cuts texts of the {side} side at {said} tokens, so config.max_length={asked} has no "
    return said, [Finding("warning", "model-cuts-earlier", message + "effect")]


def settle_max_length(max_length: int | None, network: Splade) -> int:
    """Return `config.max_length`, the tokens after which texts are cut; None stands for the model's own limit.

    A limit that is lower than the model's own is said in the log, once per process.

    Raises:
        ConfigError: the model has no limit of its own.
    """
    limits = (
        network.document_settings.max_length or own_max_length(network.document_encoder, network.tokenizer),
        network.query_settings.max_length or own_max_length(network.query_encoder, network.query_tokenizer),
    )
    own = min((limit for limit in limits if limit is not None), default=None)
    if max_length is None:
        if own is None:
            raise ConfigError(f"config.max_length=null: the model '{network.name}' has no limit of its own; give one")
        return own
    said_otherwise = network.document_settings.max_length is not None and max_length > (
        own or 0
    )  # a finding of its own
    if own is not None and own != max_length and not said_otherwise:
        _say_once(
            f"texts are cut at config.max_length={max_length} tokens; the own limit of the model is {own} "
            "(config.max_length=null follows it)"
        )
    return max_length


def own_max_length(encoder: object, tokenizer: Tokenizer) -> int | None:
    """Return the limit of a model whose folder says none: that of its positions, or a lower one of its tokenizer."""
    known = [limit for limit in (*_positions(encoder), tokenizer.model_max_length) if limit is not None]
    return min((int(limit) for limit in known if limit < _NO_LIMIT), default=None)


@cache
def _say_once(message: str) -> None:
    logger.info("%s", message)


def check_max_length(encoder: object, max_length: int, name: str, side: str) -> list[Finding]:
    """Can an encoder take texts of `max_length` tokens? One without a transformer takes any length.

    The model's name and the side, `document` or `query`, are for messages.

    Raises:
        ModelError: more tokens than it has positions for; it would crash on the first long text.
    """
    limit, trained = _positions(encoder)
    if limit is not None and max_length > limit:
        raise ModelError(
            f"config.max_length={max_length}: the {side} encoder of '{name}' has positions for at most {limit} tokens; "
            f"set config.max_length={limit} or less"
        )
    if trained is not None and max_length > trained:
        message = f"config.max_length={max_length} is more than the {trained} tokens that the {side} encoder of "
        return [Finding("warning", "length-beyond-training", f"{message}'{name}' was trained on")]
    return []


def _positions(encoder: object) -> tuple[int | None, int | None]:
    """Return the most tokens that can be encoded, and the most seen in training, where these are known."""
    model = getattr(encoder, "model", None)
    if not isinstance(model, nn.Module):
        return None, None
    copies = getattr(encoder, "copies", 1)  # of a text, which a decoder may read twice
    for name, module in model.named_modules():
        if name.endswith(_POSITION_TABLES) and isinstance(module, nn.Embedding):
            # RoBERTa and its kin count positions from padding_idx + 1 on, OPT from `offset`.
            skipped = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            return (module.num_embeddings - skipped) // copies, None
    # Relative and rotary positions have no end, only a length up to which they were trained.
    trained = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return None, None if trained is None else trained // copies
