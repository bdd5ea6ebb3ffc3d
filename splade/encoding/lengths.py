"""How many tokens a model can take."""

from torch import nn

from splade.errors import ModelError
from splade.evaluation.checks import Finding


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
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and its kin count positions from padding_idx + 1 on.
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - skipped, None
    # Relative and rotary positions have no end, only a length up to which they were trained.
    return None, getattr(getattr(model, "config", None), "max_position_embeddings", None)
