"""Queries made from a collection itself, for training without judgements.

A query is cut out of its document: its title, a sentence, or a few words in a row. What is left of the document is the
one that it asks for. So no query stands word for word in the document that it is to find, which would teach a model
to look for the same words only (the inverse cloze task, arXiv 1906.00300, takes sentences out for that reason).
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from splade.datasets.text_collection import FileCollection, TextCollection, parse_jsonl
from splade.storage.text_files import decode_json

TITLE, SENTENCE, SPAN = "title", "sentence", "span"
KINDS = (TITLE, SENTENCE, SPAN)

_WORD = re.compile(r"\w+")
# A full stop is no end before a small letter or a digit ("et al. found", "p = 0. 5"), nor after a single letter.
_SENTENCE_END = re.compile(
    r"(?<=[^\W\d_]{2}[.!?])\s+(?=[^\sa-z\d])|(?<=[\d)\]\"'][.!?])\s+(?=[^\sa-z\d])|(?<=[。！？])"
)
_LENGTHS = {TITLE: range(3, 41), SENTENCE: range(5, 41), SPAN: range(3, 9)}
"""Words of a query of each kind."""
_FREQUENT = 0.1
_MOST_CUT = 1 / 3
"""Of a document's words at most so many are cut out: enough must be left to be found by."""
_SPANS_TRIED = 40


@dataclass(frozen=True)
class TitledDocument:
    """A document whose title, if it has one, is known.

    Attributes:
        title: empty without one.
        text: what follows the title.
    """

    doc_id: str
    title: str
    text: str

    @property
    def joined(self) -> str:
        """Title and text as models see them."""
        return f"{self.title} {self.text}" if self.title and self.text else self.title or self.text


@dataclass(frozen=True)
class MadeQuery:
    """A query, which of the `KINDS` it is, and the document that it was cut out of."""

    doc_id: str
    kind: str
    text: str


class QueryMaker:
    """Cuts queries out of documents; of each kind about as many, as far as the documents have them.

    Which title, sentence or span is taken is drawn with the weight of its words: the sum of their inverse document
    frequencies over those that also occur in the rest of the document, divided by the square root of their number.
    That prefers what a document is about to what it mentions.

    Args:
        documents: those that words are counted in.
        seed: of all drawing.

    Example:
        >>> text = "Hens lay eggs in nests of straw. Most hens lay an egg on five days of a week. Foxes like hens."
        >>> document = TitledDocument("d1", "How often hens lay eggs", text)
        >>> queries, rest = QueryMaker([document], seed=0).cut(document, n=1)
        >>> queries[0].text in document.joined, queries[0].text in rest, len(rest) > 60
        (True, False, True)
    """

    def __init__(self, documents: Iterable[TitledDocument], seed: int):
        self._seed = seed
        self._counts: Counter[str] = Counter()
        self.n_documents = 0
        for document in documents:
            self._counts.update(set(_words(document.joined)))
            self.n_documents += 1

    def cut(self, document: TitledDocument, n: int) -> tuple[list[MadeQuery], str]:
        """Return at most n queries of different places of a document, and what is left of it."""
        random = np.random.default_rng([self._seed, *document.doc_id.encode()])
        title, text, queries = document.title, document.text, list[MadeQuery]()
        everywhere = Counter(_words(document.joined))
        allowed = _MOST_CUT * everywhere.total()
        for kind in [KINDS[i] for i in random.permutation(len(KINDS))]:
            if len(queries) == n:
                break
            places = [(0, len(title))] if kind == TITLE else list(_places(kind, text, random))
            source = title if kind == TITLE else text
            fitting = [(start, end) for start, end in places if self._fits(kind, _words(source[start:end]), allowed)]
            weights = np.array([self._weight(Counter(_words(source[start:end])), everywhere) for start, end in fitting])
            if not weights.any():
                continue
            start, end = fitting[int(random.choice(len(fitting), p=weights / weights.sum()))]
            cut = source[start:end].strip()
            if kind == TITLE:
                title = ""
            else:
                text = f"{text[:start].rstrip()} {text[end:].lstrip()}".strip()
            allowed -= len(_words(cut))
            everywhere -= Counter(_words(cut))
            queries.append(MadeQuery(document.doc_id, kind, " ".join(cut.split())))
        return queries, TitledDocument(document.doc_id, title, text).joined

    def _fits(self, kind: str, words: Sequence[str], most: float) -> bool:
        """Tell whether words may be a query; a span neither begins nor ends with a word of every tenth document."""
        if len(words) not in _LENGTHS[kind] or len(words) > most:
            return False
        return kind != SPAN or max(self._counts[words[0]], self._counts[words[-1]]) <= _FREQUENT * self.n_documents

    def _weight(self, inside: Counter[str], everywhere: Counter[str]) -> float:
        """Return what a part says of the rest of its document."""
        shared = sum(self._idf(word) for word, count in inside.items() if everywhere[word] > count)
        return shared / math.sqrt(len(inside))

    def _idf(self, word: str) -> float:
        return math.log(1 + self.n_documents / (0.5 + self._counts[word]))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _places(kind: str, text: str, random: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Yield the places of sentences, or of some spans within a sentence."""
    sentences = list(_sentences(text))
    if kind == SENTENCE:
        yield from sentences
        return
    for _ in range(_SPANS_TRIED if sentences else 0):
        start, end = sentences[int(random.integers(len(sentences)))]
        words = list(_WORD.finditer(text, start, end))
        length = int(random.choice(_LENGTHS[SPAN]))
        if len(words) >= length:
            first = int(random.integers(len(words) - length + 1))
            yield words[first].start(), words[first + length - 1].end()


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in _SENTENCE_END.finditer(text):
        yield start, match.start()
        start = match.end()
    if start < len(text):
        yield start, len(text)


def titled_documents(collection: TextCollection) -> Iterator[TitledDocument]:
    """Yield all documents of a collection; only files of JSON lines tell a title from a text."""
    if not isinstance(collection, FileCollection) or collection.kind != "jsonl":
        for doc_id, text in collection:
            yield TitledDocument(doc_id, "", text)
        return
    for file, line_number, line in collection.source:
        doc_id, joined = parse_jsonl(line, file, line_number)
        title = decode_json(line, file, line_number).get("title") or ""
        if joined.startswith(title + " "):
            yield TitledDocument(doc_id, title, joined[len(title) + 1 :])
        else:
            yield TitledDocument(doc_id, "", joined)
