"""Weights of tokens that are known before training: from a file, or how rare each token is in a collection."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from splade.config.schema import ModelConfig
from splade.datasets.collections import open_collection
from splade.datasets.text_collection import TextCollection
from splade.errors import DataError, SpladeError
from splade.progress import progress
from splade.storage.arrays import Layout
from splade.storage.atomic import read_numbers
from splade.storage.cache import open_cache, user_cache, write_cache

CACHE_FROM_TEXTS = 50_000
"""Smaller collections are counted each time, in a second or two."""

_TEXTS_AT_ONCE = 1000
_LAYOUT = Layout("document frequencies of tokens", {"frequencies": "<i8", "n_texts": "<i8"})

logger = logging.getLogger(__name__)


def token_weights(init: ModelConfig, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> Tensor | None:
    """Return the (vocab_size,) float32 weights that `init_dict.idf_path` or `idf_collection` gives, or None.

    They are multiplied by `init_dict.idf_scale`.

    Raises:
        DataError: a wrong file, or an empty collection.
    """
    if init.idf_collection is not None:
        return init.idf_scale * collection_idf(open_collection(init.idf_collection), tokenizer, vocab_size)
    if init.idf_path is None:
        return None
    weights = init.idf_scale * read_token_weights(Path(init.idf_path), tokenizer)
    return functional.pad(weights, (0, max(vocab_size - len(weights), 0)))  # terms that no token stands for


def read_token_weights(path: Path, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Return the (vocabulary of the tokenizer,) float32 weights in a JSON object {token: weight}, else zero.

    Raises:
        DataError: it is something else, or a token is unknown.
    """
    weights, vocabulary = read_numbers(path), tokenizer.get_vocab()
    if not weights:
        raise DataError(f"{path}: must be a JSON object {{token: weight}}, has no token")
    unknown = [token for token in weights if token not in vocabulary]
    if unknown:
        raise DataError(f"{path}: {len(unknown)} tokens are not in the vocabulary, such as '{unknown[0]}'")
    table = torch.zeros(max(vocabulary.values()) + 1)
    table[[vocabulary[token] for token in weights]] = torch.tensor([float(weight) for weight in weights.values()])
    if not bool(table.isfinite().all()):
        raise DataError(f"{path}: a weight is too large for float32")
    return table


def collection_idf(collection: TextCollection, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> Tensor:
    """Return the IDF of each token, `ln(1 + (N - df + 0.5) / (df + 0.5))` as in BM25; positive for every token.

    N is the number of texts that have a token at all. Whole texts are counted, whatever `config.max_length` is; special
    tokens that the tokenizer adds are not.

    Args:
        collection: texts.
        tokenizer: makes tokens of them.
        vocab_size: number of terms.

    Returns:
        (vocab_size,) float32.

    Raises:
        DataError: no text has a token.
    """
    frequencies, n_texts = _cached_frequencies(collection, tokenizer, vocab_size)
    if n_texts == 0:
        raise DataError(f"{collection.name}: no text has a token, so there are no document frequencies")
    return torch.from_numpy(np.log1p((n_texts - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32))


def _cached_frequencies(
    collection: TextCollection, tokenizer: PreTrainedTokenizerBase, vocab_size: int
) -> tuple[np.ndarray, int]:
    if len(collection) < CACHE_FROM_TEXTS:
        return document_frequencies(collection, tokenizer, vocab_size)
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    state = [collection.digest(), hashlib.sha256(vocabulary.encode()).hexdigest(), vocab_size]
    path = user_cache() / f"{hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]}.splade-idf"
    cached = open_cache(path, _LAYOUT, state)
    if cached is not None:
        return cached["frequencies"], int(cached["n_texts"][0])
    frequencies, n_texts = document_frequencies(collection, tokenizer, vocab_size)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_cache(path, _LAYOUT, {"frequencies": frequencies, "n_texts": np.array([n_texts])}, state)
    except (OSError, SpladeError) as error:
        logger.debug("%s: document frequencies cannot be remembered (%s)", path, error)
    return frequencies, n_texts


def document_frequencies(
    collection: TextCollection, tokenizer: PreTrainedTokenizerBase, vocab_size: int
) -> tuple[np.ndarray, int]:
    """Return in how many texts each token is, (vocab_size,) int64, and how many texts have a token."""
    frequencies, n_texts = np.zeros(vocab_size, dtype=np.int64), 0
    texts: list[str] = []

    def count() -> int:
        rows = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        own = [np.unique(row) for row in rows if row]
        for terms in own:
            frequencies[terms] += 1
        texts.clear()
        return len(own)

    for _, text in progress(collection, "document frequencies", len(collection), "text"):
        texts.append(text)
        if len(texts) == _TEXTS_AT_ONCE:
            n_texts += count()
    if texts:
        n_texts += count()
    return frequencies, n_texts
