"""Static pruning of vectors as JSON lines, `{"id": ..., "vector": {token: weight}}`, as Anserini indexes them.

Tokens are whatever the lines hold: no vocabulary is needed. The result is that of `splade.inverted_index.prune`, with
the order of a line's tokens for that of the terms. Everything else in a line stays as it is.

The lines are read once for the impacts of all terms, where a criterion needs those, and once to be written. Held in
memory is how often a term has which weight, which is little for the whole numbers that Anserini takes.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splade.errors import DataError
from splade.interop.exported import written_whole
from splade.interop.jsonl_vectors import vector_of
from splade.inverted_index.prune import Pruning
from splade.progress import progress_bar
from splade.storage.atomic import JsonObject
from splade.storage.text_files import decode_json, iterate_lines

_Limits = dict[str, tuple[float, float, int]]
"""Of a term the weight below which none stays, and the weight of which so many stay, below which none does."""


@dataclass(frozen=True)
class PrunedLines:
    """What was written.

    Attributes:
        n_docs, n_before, n_after: documents, their terms before and after.
        n_empty: documents without a term.
    """

    n_docs: int
    n_before: int
    n_after: int
    n_empty: int


def prune_lines(files: list[Path], folder: Path, pruning: Pruning) -> PrunedLines:
    """Write pruned copies of files of vectors into a folder, under their names, each whole or not at all.

    Raises:
        DataError: no line, one that holds no vector, or a file that lies in `folder` itself.
    """
    if any(file.parent.resolve() == folder.resolve() for file in files):
        raise DataError(f"{folder} holds the vectors that are to be pruned; write the pruned ones elsewhere")
    by_term = _limits_of_terms(files, pruning)
    n_docs = n_before = n_after = n_empty = 0
    ties = {term: most for term, (_, _, most) in by_term.items()}
    for file in files:
        with written_whole(folder / file.name) as lines, progress_bar(f"pruning {file.name}", unit="doc") as bar:
            for entry, vector in _entries(file):
                kept = _keep(vector, by_term, ties, pruning.size_to_prune)
                lines.write(json.dumps({**entry, "vector": kept}, ensure_ascii=False) + "\n")
                n_docs, n_before, n_after = n_docs + 1, n_before + len(vector), n_after + len(kept)
                n_empty += not kept
                bar.update()
    if not n_docs:
        raise DataError(f"{', '.join(map(str, files))}: no vectors")
    return PrunedLines(n_docs, n_before, n_after, n_empty)


def _limits_of_terms(files: list[Path], pruning: Pruning) -> _Limits:
    if set(pruning.given) <= {"size_to_prune"}:
        return {}
    weights: dict[str, Counter[float]] = {}
    n_docs = 0
    with progress_bar("reading the weights", unit="doc") as bar:
        for file in files:
            for _, vector in _entries(file):
                for token, weight in vector.items():
                    weights.setdefault(token, Counter())[weight] += 1
                n_docs += 1
                bar.update()
    lengths = np.array([of_term.total() for of_term in weights.values()], np.int64)
    sums = np.array([sum(weight * n for weight, n in of_term.items()) for of_term in weights.values()], np.float64)
    smallest, longest = pruning.smallest(lengths, sums, n_docs).tolist(), pruning.longest(lengths).tolist()
    limits = zip(weights.items(), smallest, longest, strict=True)
    return {term: (least, *_limit(of_term, most)) for (term, of_term), least, most in limits}


def _limit(weights: Counter[float], most: int) -> tuple[float, int]:
    """Return the `most`-th largest weight, and how many that equal it are among the `most`."""
    for weight in sorted(weights, reverse=True):
        if weights[weight] >= most:
            return weight, most
        most -= weights[weight]
    return 0.0, 0


def _keep(vector: dict[str, float], by_term: _Limits, ties: dict[str, int], most: int | None) -> dict[str, float]:
    largest = set(sorted(vector, key=lambda token: -vector[token])[:most])
    kept = {}
    for token, weight in vector.items():
        smallest, of_term, _ = by_term.get(token, (0.0, 0.0, 0))
        stays = weight >= smallest and weight >= of_term and token in largest
        if weight == of_term:
            stays = stays and ties[token] > 0
            ties[token] -= 1
        if stays:
            kept[token] = weight
    return kept


def _entries(file: Path) -> Iterator[tuple[JsonObject, dict[str, float]]]:
    """Yield what the lines of a file hold, and their vectors without weights of zero."""
    for number, line in iterate_lines(file):
        entry = decode_json(line, file, number)
        _, vector = vector_of(entry, file, number)
        yield entry, {token: weight for token, weight in vector.items() if weight != 0}
