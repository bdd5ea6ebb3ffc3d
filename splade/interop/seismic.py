"""Seismic (Bruch et al., arXiv 2404.18812): JSON lines with the weights as they are, from which it builds its index.

Documents are `{"id", "content", "vector": {token: weight}}`, queries the same without content.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from splade.interop.anserini import unambiguous_tokens
from splade.interop.exported import Exported, SparseVector, Tally, one_by_one, write_lines
from splade.interop.vector_groups import Group
from splade.inverted_index.indexed_vectors import IndexedVectors


def export_documents(folder: Path, vectors: IndexedVectors, tokens: Sequence[str], factor: float) -> Exported:
    """Write `documents.jsonl`; `factor` is not needed, weights are not rounded."""
    return _write(folder / "documents.jsonl", one_by_one(vectors.by_document()), tokens, {"content": ""})


def export_queries(folder: Path, name: str, queries: Iterable[Group], tokens: Sequence[str], factor: float) -> Exported:
    """Write `<name>.jsonl`."""
    return _write(folder / f"{name}.jsonl", one_by_one(queries), tokens, {})


def _write(
    path: Path, pairs: Iterable[tuple[str, SparseVector]], tokens: Sequence[str], more: dict[str, str]
) -> Exported:
    names, tally = unambiguous_tokens(tokens), Tally()

    def lines() -> Iterator[str]:
        for some_id, (terms, weights) in pairs:
            tally.count(some_id, len(terms))
            bag = {names[term]: weight for term, weight in zip(terms.tolist(), weights.tolist(), strict=True)}
            yield json.dumps({"id": some_id, **more, "vector": bag}, ensure_ascii=False)

    write_lines(path, lines())
    return tally.exported(path)
