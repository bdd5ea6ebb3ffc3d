"""Qdrant: the body that creates a collection with one sparse vector, `splade`, and requests that fill it.

Points are numbered as the documents are, because Qdrant's ids are numbers; `payload.doc_id` has the users' ids. Terms
are numbers of the vocabulary. Scores are dot products of the weights as they are.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from splade.interop.exported import AT_ONCE, Exported, SparseVector, Tally, one_by_one, write_entries, write_parts
from splade.interop.vector_groups import Group
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.storage.atomic import JsonObject, write_json

VECTOR = "splade"


def export_documents(folder: Path, vectors: IndexedVectors, tokens: Sequence[str], factor: float) -> Exported:
    """Write `collection.json`, the body of `PUT /collections/<name>`, and `points.<n>.json`, of `.../points`.

    `factor` is not needed, weights are not rounded.
    """
    tally = Tally()
    write_json(folder / "collection.json", {"vectors": {}, "sparse_vectors": {VECTOR: {}}})

    def points() -> Iterator[str]:
        for number, (doc_id, vector) in enumerate(one_by_one(vectors.by_document())):
            tally.count(doc_id, len(vector[0]))
            point = {"id": number, "vector": {VECTOR: _sparse(vector)}, "payload": {"doc_id": doc_id}}
            yield json.dumps(point, ensure_ascii=False)

    write_parts(folder, "points", "json", points(), AT_ONCE, before='{"points": [\n', between=",\n", after="\n]}\n")
    return tally.exported(folder)


def export_queries(folder: Path, name: str, queries: Iterable[Group], tokens: Sequence[str], factor: float) -> Exported:
    """Write `<name>.jsonl`: `{"id", "body"}` a line, the body of `POST /collections/<name>/points/query`."""

    def body(vector: SparseVector) -> JsonObject:
        return {"body": {"query": _sparse(vector), "using": VECTOR, "limit": 10, "with_payload": True}}

    return write_entries(folder / f"{name}.jsonl", one_by_one(queries), body)


def _sparse(vector: SparseVector) -> JsonObject:
    return {"indices": vector[0].tolist(), "values": vector[1].tolist()}
