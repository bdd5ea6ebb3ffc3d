"""Seismic (Bruch et al., arXiv 2404.18812): JSON lines with the weights as they are, from which it builds its index.

Documents are `{"id", "content", "vector": {token: weight}}`, queries the same without content.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from splade.interop.anserini import unambiguous_tokens
from splade.interop.exported import Exported, SparseVector, one_by_one, write_entries
from splade.interop.vector_groups import Group
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.storage.atomic import JsonObject


def export_documents(folder: Path, vectors: IndexedVectors, tokens: Sequence[str], factor: float) -> Exported:
    """Write `documents.jsonl`; `factor` is not needed, weights are not rounded."""
    return _write(folder / "documents.jsonl", one_by_one(vectors.by_document()), tokens, {"content": ""})


def export_queries(folder: Path, name: str, queries: Iterable[Group], tokens: Sequence[str], factor: float) -> Exported:
    """Write `<name>.jsonl`."""
    return _write(folder / f"{name}.jsonl", one_by_one(queries), tokens, {})


def _write(
    path: Path, pairs: Iterable[tuple[str, SparseVector]], tokens: Sequence[str], more: dict[str, str]
) -> Exported:
    names = unambiguous_tokens(tokens)

    def entry(vector: SparseVector) -> JsonObject:
        return {
            **more,
            "vector": dict(zip((names[term] for term in vector[0].tolist()), vector[1].tolist(), strict=True)),
        }

    return write_entries(path, pairs, entry)
