"""The words of a text that a query matches."""

import re
from collections.abc import Iterator, Set

from transformers import PreTrainedTokenizerBase

from splade.inspection.explanation import Explanation

_WORD = re.compile(r"\w+")
_SMALLEST_SHARE = 0.05
_CONTINUES = "##"  # begins a token of WordPiece that is no beginning of a word


def matching_tokens(explanation: Explanation) -> set[str]:
    """Return the terms that matter for a score: those that add at least a twentieth of it."""
    least = _SMALLEST_SHARE * explanation.score
    return {part.token for part in explanation.contributions if part.score >= least}


def mark_words(text: str, tokens: Set[str], tokenizer: PreTrainedTokenizerBase, before: str, after: str) -> str:
    """Put marks around the words of a text that begin with one of some tokens; none where the tokenizer has no places.

    Example:
        >>> from transformers import AutoTokenizer
        >>> from splade.storage.paths import resolve_path
        >>> tokenizer = AutoTokenizer.from_pretrained(resolve_path("pkg://cognition/model"))
        >>> mark_words("Honey bees dance.", {"bees", "bee"}, tokenizer, "<", ">")
        'Honey <bees> dance.'
    """
    marked, end = [], 0
    for start, stop in word_spans(text, tokens, tokenizer):
        marked += [text[end:start], before, text[start:stop], after]
        end = stop
    return "".join([*marked, text[end:]])


def word_spans(text: str, tokens: Set[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, int]]:
    """Yield where the words of a text begin and end that begin with one of some tokens."""
    if not tokenizer.is_fast or not tokens:
        return
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    names = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    begins = [
        start + len(text[start:stop]) - len(text[start:stop].lstrip())  # some tokenizers count the blank before a word
        for name, (start, stop) in zip(names, encoded["offset_mapping"], strict=True)
        if name in tokens and not name.startswith(_CONTINUES) and text[start:stop].strip()
    ]
    wanted = set(begins)
    for word in _WORD.finditer(text):
        if any(start in wanted for start in range(*word.span())):
            yield word.span()
