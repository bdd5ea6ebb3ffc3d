"""OpenSearch, and Elasticsearch: the body that creates an index, and requests of the bulk API to fill it.

A document is `{"doc_id", "vector": {token: weight}}`, its vector of type `rank_features`, whose tokens must not have
dots: those that do are written as `[term-<id>]`. Queries are bodies of the search API, `neural_sparse` with
`query_tokens`, so no model runs there.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from splade.interop.anserini import unambiguous_tokens
from splade.interop.exported import AT_ONCE, Exported, SparseVector, Tally, one_by_one, write_entries, write_parts
from splade.interop.vector_groups import Group
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.storage.atomic import JsonObject, write_json

MAPPING = {
    "mappings": {"dynamic": False, "properties": {"doc_id": {"type": "keyword"}, "vector": {"type": "rank_features"}}}
}


def export_documents(folder: Path, vectors: IndexedVectors, tokens: Sequence[str], factor: float) -> Exported:
    """Write `index.json`, the body of `PUT /<index>`, and `bulk.<n>.ndjson`, bodies of `POST /<index>/_bulk`.

    Documents without a term have no vector. `factor` is not needed, weights are not rounded.
    """
    names, tally = names_without_dots(tokens), Tally()
    write_json(folder / "index.json", MAPPING)

    def lines() -> Iterator[str]:
        for doc_id, (terms, weights) in one_by_one(vectors.by_document()):
            tally.count(doc_id, len(terms))
            bag = {names[term]: weight for term, weight in zip(terms.tolist(), weights.tolist(), strict=True)}
            action = json.dumps({"index": {"_id": doc_id}}, ensure_ascii=False)
            entry = json.dumps({"doc_id": doc_id, **({"vector": bag} if bag else {})}, ensure_ascii=False)
            yield f"{action}\n{entry}\n"

    write_parts(folder, "bulk", "ndjson", lines(), AT_ONCE)
    return tally.exported(folder)


def export_queries(folder: Path, name: str, queries: Iterable[Group], tokens: Sequence[str], factor: float) -> Exported:
    """Write `<name>.jsonl`: `{"id", "body"}` a line, the body of `POST /<index>/_search`."""
    names = names_without_dots(tokens)

    def body(vector: SparseVector) -> JsonObject:
        bag = {names[term]: weight for term, weight in zip(vector[0].tolist(), vector[1].tolist(), strict=True)}
        return {"body": {"_source": False, "query": {"neural_sparse": {"vector": {"query_tokens": bag}}}}}

    return write_entries(folder / f"{name}.jsonl", one_by_one(queries), body)


def names_without_dots(tokens: Sequence[str]) -> list[str]:
    """Return one distinct name without a dot for each term.

    Example:
        >>> names_without_dots(["cat", ".", "a.b"])
        ['cat', '[term-1]', '[term-2]']
    """
    names = unambiguous_tokens(tokens)
    return [f"[term-{term}]" if "." in name else name for term, name in enumerate(names)]
