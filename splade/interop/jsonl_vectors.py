"""Vectors as JSON lines, as Anserini and others write them: `{"id": ..., "vector": {token: weight}}`, perhaps gzipped.

Those of uniCOIL and other models over a model's own tokens are read with that model's vocabulary; others, such as
DeepImpact's words, with the vocabulary that `terms` finds in them.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from splade.datasets.nested_json import LARGEST_SCORE
from splade.errors import DataError, shown
from splade.interop.anserini import EMPTY, unambiguous_tokens
from splade.interop.term_names import foreign_term, numbers_of_names
from splade.interop.vector_groups import AT_ONCE, Group, as_group
from splade.storage.atomic import replacing
from splade.storage.text_files import check_keys, decode_json, id_text, iterate_lines
from splade.vectors import SparseVectors

_FEWEST_KEYS = 2
_IDS = ("id", "_id", "docid", "doc_id")


def read(path: Path, tokens: Sequence[str]) -> Iterator[Group]:
    """Yield the vectors of a file, some at a time.

    Args:
        path: the file.
        tokens: the vocabulary.

    Raises:
        DataError: a line that is no such object, a token of another vocabulary, a weight that cannot be.
    """
    term_of = numbers_of_names(tokens)
    ids: list[str] = []
    lengths: list[int] = []
    terms: list[int] = []
    weights: list[float] = []
    for number, doc_id, vector in entries(path):
        try:
            terms += [term_of[token] for token in vector]
        except KeyError as error:
            raise foreign_term(f"{path}: line {number}", error.args[0], tokens) from error
        ids.append(doc_id)
        lengths.append(len(vector))
        weights += map(float, vector.values())
        if len(ids) == AT_ONCE:
            yield as_group(
                ids, np.array(lengths), np.array(terms, np.int64), np.array(weights, float), len(tokens), path
            )
            ids, lengths, terms, weights = [], [], [], []
    if ids:
        yield as_group(ids, np.array(lengths), np.array(terms, np.int64), np.array(weights, float), len(tokens), path)


def terms(path: Path) -> Iterator[str]:
    """Yield the terms of all vectors of a file, most of them often."""
    for _, _, vector in entries(path):
        yield from vector


def entries(path: Path) -> Iterator[tuple[int, str, dict[str, float]]]:
    """Yield number, id and vector of each line.

    Raises:
        DataError: a line that is no such object, or has a key twice, or a weight that cannot be.
    """
    for number, line in iterate_lines(path):
        doc_id, vector = vector_of(decode_json(line, path, number), path, number)
        if line.count('":') > _FEWEST_KEYS + len(vector):  # one twice, or others besides these
            check_keys(line, f"{path}: line {number}")
        vector.pop(EMPTY, None)
        yield number, doc_id, vector


def write(path: Path, ids: Sequence[str], vectors: SparseVectors, tokens: Sequence[str]) -> None:
    """Write vectors to a file, whole or not at all, weights as they are."""
    names = unambiguous_tokens(tokens)
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as lines:
        for doc_id, (terms, weights) in zip(ids, vectors, strict=True):
            bag = {names[term]: float(weight) for term, weight in zip(terms.tolist(), weights, strict=True)}
            lines.write(json.dumps({"id": doc_id, "vector": bag}, ensure_ascii=False) + "\n")


def vector_of(entry: object, path: Path, number: int) -> tuple[str, dict[str, float]]:
    """Return id and vector that a line of a file holds.

    Raises:
        DataError: it is no such object.
    """
    place = f"{path}: line {number}"
    fields = entry if isinstance(entry, dict) else {}
    vector = fields.get("vector")
    found = next((fields[name] for name in _IDS if name in fields), None)
    if not isinstance(vector, dict) or found is None:
        raise DataError(f'{place}: a vector is {{"id": ..., "vector": {{token: weight}}}}, got {shown(entry)}')
    for weight in vector.values():
        if not _is_weight(weight):
            raise DataError(f"{place}: a weight must be a number that float32 can hold, got {shown(weight)}")
    return id_text(found, place), vector


def _is_weight(value: object) -> bool:
    return type(value) in (int, float) and -LARGEST_SCORE <= value <= LARGEST_SCORE  # type: ignore[operator]
