"""Rows for Milvus's bulk import (`pymilvus.bulk_writer`, or `/v2/vectordb/jobs/import`): JSON, weights as they are.

The collection is the one that `retriever=milvus` fills and searches itself: `doc_id` and the sparse vector `vector`.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from splade.interop.exported import AT_ONCE, Exported, SparseVector, Tally, one_by_one, write_entries, write_parts
from splade.interop.vector_groups import Group
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.storage.atomic import write_json

LONGEST_ID = 65_535
SCHEMA = {
    "autoID": False,
    "fields": [
        {
            "fieldName": "doc_id",
            "dataType": "VarChar",
            "isPrimary": True,
            "elementTypeParams": {"max_length": LONGEST_ID},
        },
        {"fieldName": "vector", "dataType": "SparseFloatVector"},
    ],
}
INDEX = [{"fieldName": "vector", "indexName": "vector", "metricType": "IP", "indexType": "SPARSE_INVERTED_INDEX"}]


def export_documents(folder: Path, vectors: IndexedVectors, tokens: Sequence[str], factor: float) -> Exported:
    """Write `collection.json`, a body of `/v2/vectordb/collections/create`, and `rows.<n>.json`.

    Milvus refuses vectors without a term, which no query finds: they are left out. `factor` is not needed.
    """
    tally = Tally()
    write_json(folder / "collection.json", {"schema": SCHEMA, "indexParams": INDEX})

    def rows() -> Iterator[str]:
        for doc_id, vector in one_by_one(vectors.by_document()):
            tally.count(doc_id, len(vector[0]))
            if len(vector[0]):
                yield json.dumps({"doc_id": doc_id, "vector": _entries(vector)}, ensure_ascii=False)

    write_parts(folder, "rows", "json", rows(), AT_ONCE, before='{"rows": [\n', between=",\n", after="\n]}\n")
    return tally.exported(folder)


def export_queries(folder: Path, name: str, queries: Iterable[Group], tokens: Sequence[str], factor: float) -> Exported:
    """Write `<name>.jsonl`: `{"id", "vector": {term id: weight}}` a line."""
    return write_entries(folder / f"{name}.jsonl", one_by_one(queries), lambda vector: {"vector": _entries(vector)})


def _entries(vector: SparseVector) -> dict[str, float]:
    return {str(term): weight for term, weight in zip(vector[0].tolist(), vector[1].tolist(), strict=True)}
