"""Maximum and sum of a logits tile over the tokens of each passage, for the CPU.

A tile holds the logits of the tokens of a few whole passages (rows) for a piece of the vocabulary (columns) and is
small enough to still lie in the cache when it is pooled. The inner loops run along contiguous terms, so the compiler
turns them into vector instructions; `torch.max(dim=0)` with indices takes about ten times as long on the same tile.

NaN wins every maximum and stays, as in PyTorch: a diverged model must not look like an empty vector.
"""

import numpy as np

from splade.storage.compiled import compiled


@compiled()
def segment_max(
    tile: np.ndarray, offsets: np.ndarray, values: np.ndarray, first_term: int, lowest: float = -np.inf
) -> None:
    """Write `values[i, first_term + t] = max(tile[offsets[i]:offsets[i + 1], t])`.

    Args:
        tile: (tokens, terms) floats or int32, C-contiguous.
        offsets: (passages + 1,) int64, the first row of each passage.
        values: (passages, vocabulary) of the tile's dtype, C-contiguous, written for the tile's terms.
        first_term: vocabulary index of the tile's first column.
        lowest: what a passage without tokens gets; no logit is below it.
    """
    terms = tile.shape[1]
    for passage in range(len(offsets) - 1):
        best = values[passage, first_term : first_term + terms]
        best[:] = lowest
        for row in range(offsets[passage], offsets[passage + 1]):
            logits = tile[row]
            for term in range(terms):
                logit = logits[term]
                higher = (logit > best[term]) | (logit != logit)
                best[term] = logit if higher else best[term]


@compiled()
def segment_argmax(
    tile: np.ndarray, offsets: np.ndarray, rows: np.ndarray, values: np.ndarray, argmax: np.ndarray, first_term: int
) -> None:
    """As `segment_max`, and note in `argmax` the entry of `rows` at which the maximum was first reached.

    Args:
        tile: (tokens, terms) floats, C-contiguous.
        offsets: (passages + 1,) int64.
        rows: (tokens,) int64, what to note for each row of the tile.
        values: (passages, vocabulary) floats, C-contiguous.
        argmax: (passages, vocabulary) int32, C-contiguous; untouched for a passage without tokens.
        first_term: vocabulary index of the tile's first column.
    """
    terms = tile.shape[1]
    for passage in range(len(offsets) - 1):
        best = values[passage, first_term : first_term + terms]
        best_row = argmax[passage, first_term : first_term + terms]
        best[:] = -np.inf
        for row in range(offsets[passage], offsets[passage + 1]):
            logits = tile[row]
            source = np.int32(rows[row])
            for term in range(terms):
                logit = logits[term]
                higher = (logit > best[term]) | (logit != logit)
                best[term] = logit if higher else best[term]
                best_row[term] = source if higher else best_row[term]


@compiled()
def segment_sum(tile: np.ndarray, offsets: np.ndarray, values: np.ndarray, first_term: int) -> None:
    """Write `values[i, first_term + t] = sum(tile[offsets[i]:offsets[i + 1], t])`; arguments as in `segment_max`."""
    terms = tile.shape[1]
    for passage in range(len(offsets) - 1):
        total = values[passage, first_term : first_term + terms]
        total[:] = 0.0
        for row in range(offsets[passage], offsets[passage + 1]):
            weights = tile[row]
            for term in range(terms):
                total[term] += weights[term]


@compiled()
def candidate_terms(highest: np.ndarray, scales: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return the terms (int64, ascending) whose logit may be above zero, or is not a number.

    Args:
        highest: (vocabulary,) int32 maxima over the tokens of quantised hidden states . quantised embedding.
        scales: (vocabulary,) float32, what 1 of such a product is worth.
        bounds: (vocabulary,) float32, the bias plus the bound on the quantisation error of a logit.
    """
    terms = np.empty(len(highest), dtype=np.int64)
    found = 0
    for term in range(len(highest)):
        terms[found] = term
        # Not "> 0": NaN must be seen. Without a branch, for there is no telling which way it goes.
        found += not (np.float32(highest[term]) * scales[term] + bounds[term] <= np.float32(0.0))
    return terms[:found].copy()
