"""Queries with documents as rows of token ids: when a row is too long, the document is cut, never the query."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from splade.encoding.tokens import Tokenizer, checked_text
from splade.errors import ConfigError, DataError, ModelError
from splade.models.pair_scorer import KINDS, RerankerType, check_prompts


@dataclass(frozen=True)
class PairRow:
    """A tokenised query with its documents; `token_types` only where the model has them."""

    input_ids: list[int]
    token_types: list[int] | None = None


@dataclass(frozen=True)
class PairTokenizer:
    """Makes rows for a reranker.

    Args:
        tokenizer: of the model.
        kind: type of the reranker.
        max_length: most tokens of a row, special ones and prompts included.
        prompt_q: template of the query; None: that of the type.
        prompt_d: template of the document, or of both; None: that of the type.

    Raises:
        ConfigError: a template without its places, or a length that leaves no room.
    """

    tokenizer: Tokenizer
    kind: RerankerType
    max_length: int
    prompt_q: str | None = None
    prompt_d: str | None = None
    _specials: tuple[list[int], list[int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the templates, and see which special tokens begin and end a text."""
        check_prompts(self.kind, self.query_template, self.document_template)
        bare, full = self._ids("a"), list(self.tokenizer("a")["input_ids"])
        start = next((i for i in range(len(full)) if bare and full[i : i + len(bare)] == bare), None)
        if start is None:
            raise ModelError(
                "the tokenizer does not tell which tokens begin and end a text; no reranker has such a one"
            )
        object.__setattr__(self, "_specials", (full[:start], full[start + len(bare) :]))

    @property
    def query_template(self) -> str:
        """Template of the query."""
        return KINDS[self.kind].prompt_q if self.prompt_q is None else self.prompt_q

    @property
    def document_template(self) -> str:
        """Template of the document, or of both documents."""
        return KINDS[self.kind].prompt_d if self.prompt_d is None else self.prompt_d

    def rows(self, query_id: str, query: str, documents: Sequence[Sequence[str]]) -> list[PairRow]:
        """Return a row for the query with each document (each pair of documents, where the model compares).

        Raises:
            DataError: the query leaves no token for a document.
        """
        if not documents:
            return []
        asked = self.query_template.replace("{}", checked_text(query))
        documents = [tuple(map(checked_text, texts)) for texts in documents]
        if self.kind == "cross-encoder":
            return self._sentence_pairs(
                query_id, asked, [self.document_template.replace("{}", one) for (one,) in documents]
            )
        begin, end = self._specials
        pieces = self.document_template.split("{}")
        fixed = [self._ids(f"{asked} {pieces[0]}".strip()), *(self._ids(piece.strip()) for piece in pieces[1:])]
        room = self._room(query_id, len(begin) + len(end) + sum(map(len, fixed)), len(pieces) - 1)
        texts = [text for pair in documents for text in pair]
        tokenised = iter(self.tokenizer(texts, add_special_tokens=False, truncation=True, max_length=room)["input_ids"])
        rows = []
        for pair in documents:
            ids = begin + fixed[0]
            for piece, _ in zip(fixed[1:], pair, strict=True):
                ids = ids + list(next(tokenised)) + piece
            rows.append(PairRow(ids + end))
        return rows

    def _sentence_pairs(self, query_id: str, query: str, documents: Sequence[str]) -> list[PairRow]:
        self._room(query_id, len(self._ids(query)) + self.tokenizer.num_special_tokens_to_add(pair=True), 1)
        found = self.tokenizer(
            [query] * len(documents), list(documents), truncation="only_second", max_length=self.max_length
        )
        types = found.get("token_type_ids") or [None] * len(documents)
        return [PairRow(ids, kinds) for ids, kinds in zip(found["input_ids"], types, strict=True)]

    def _room(self, query_id: str, taken: int, n_documents: int) -> int:
        room = (self.max_length - taken) // n_documents
        if room < 1:
            raise DataError(
                f"query '{query_id}': with its prompt it takes {taken} of {self.max_length} tokens, which leaves no "
                "room for a document; raise config.max_length if the model takes more, or shorten query or prompts"
            )
        return room

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def check_pair_length(max_length: int, most: int | None, name: str) -> None:
    """Raise a ConfigError for rows longer than the model has positions."""
    if most is not None and max_length > most:
        raise ConfigError(
            f"config.max_length={max_length}: the model '{name}' has positions for at most {most} tokens; set "
            f"config.max_length={most} or less"
        )
