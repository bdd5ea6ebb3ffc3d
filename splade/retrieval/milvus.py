"""Milvus as the place where vectors are searched: a file that its embedded form keeps, a server, or a cluster.

The vectors come from an index of this toolkit, which also numbers the documents and is the exact search that Milvus is
compared with. A collection has the fields `doc_id` and `vector`, and says in its property `splade` which model and
index its vectors are of.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np

from splade.config.cluster import MilvusConfig, MilvusParams
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError, DataError, IndexFileError, printable
from splade.inverted_index import InvertedIndex
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.progress import progress_bar
from splade.retrieval.collection_index import Index
from splade.retrieval.elsewhere import Answers, ElsewhereRetriever
from splade.storage.atomic import JsonObject
from splade.vectors import SparseVectors

EMBEDDED_FILE = "milvus.db"
PROPERTY = "splade"
_LONGEST_ID = 65_535  # bytes; the most that Milvus allows
_RESULTS_AT_ONCE = 10_000

Answer = TypeVar("Answer")


def milvus_library() -> ModuleType:
    """Import the client of Milvus.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pymilvus
    except ImportError as error:
        raise ConfigError("retriever=milvus needs pymilvus: pip install 'splade[milvus]'") from error
    for name in ("pymilvus", "milvus_lite", "grpc", "faiss"):  # they log what they also raise, and what works
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


class MilvusCollection:
    """A collection of Milvus that holds the vectors of an index.

    Args:
        keys: where it is, what it is called, how it is searched.
        folder: where the embedded form keeps its file.

    Raises:
        ConfigError: the client is not installed, or nothing answers at `milvus.uri`.
    """

    def __init__(self, keys: MilvusConfig, folder: Path):
        self._milvus, self._keys = milvus_library(), keys
        from grpc import RpcError  # comes with pymilvus, which lets some of these through

        self._faults = (self._milvus.MilvusException, RpcError, OSError, RuntimeError, ImportError)
        self._place = keys.uri or str(folder / EMBEDDED_FILE)
        folder.mkdir(parents=True, exist_ok=True)
        with self._errors("cannot be reached"):
            self._client = self._milvus.MilvusClient(self._place, token=keys.token or "", timeout=keys.timeout)

    @classmethod
    def filled(cls, index: InvertedIndex, keys: MilvusConfig, folder: Path, overwrite: bool) -> "MilvusCollection":
        """Open the collection of an index, and bring the vectors there that it does not have yet.

        Raises:
            ConfigError: nothing answers at `milvus.uri`, or Milvus refuses what is asked.
            IndexFileError: the collection is of another model or index, and `overwrite` is False.
        """
        collection = cls(keys, folder)
        collection._begin(index, overwrite)
        collection._fill(index)
        return collection

    def search(self, vectors: SparseVectors, top_k: int) -> Answers:
        """Yield ids and scores (float32) of the best documents for each query, as Milvus finds them.

        Raises:
            ConfigError: Milvus does not answer.
        """
        size = max(1, _RESULTS_AT_ONCE // top_k)
        params = {"metric_type": "IP", "params": _params(self._keys.search_params)}
        for start in range(0, len(vectors), size):
            some = vectors.rows(start, min(len(vectors), start + size))
            asked = [dict(zip(terms.tolist(), weights.tolist(), strict=True)) for terms, weights in some]
            queries = [query for query in asked if query]  # Milvus refuses empty ones
            options = {"anns_field": "vector", "limit": top_k, "search_params": params}
            found = iter(self._ask(lambda: self._client.search, data=queries, **options) if queries else [])
            for query in asked:
                hits = next(found) if query else []
                yield [hit["doc_id"] for hit in hits], np.array([hit["distance"] for hit in hits], np.float32)

    def _begin(self, index: InvertedIndex, overwrite: bool) -> None:
        """Make the collection, unless that of this index is there."""
        name = self._keys.collection
        made_of = {key: index.metadata.get(key) for key in ("fingerprint", "max_length", "source")}
        made_of["n_docs"] = index.n_docs
        if self._ask(lambda: self._client.has_collection):
            if (found := self._said()) == made_of:
                return
            if not overwrite:
                theirs = "nobody says what" if found is None else f"{found.get('source')}, of another model or state"
                raise IndexFileError(
                    f"the collection '{name}' of {self._place} holds vectors of {theirs}; give another "
                    "milvus.collection, or replace it with config.overwrite=true"
                )
            self._ask(lambda: self._client.drop_collection)
        kinds = self._milvus.DataType
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("doc_id", kinds.VARCHAR, is_primary=True, max_length=_LONGEST_ID)
        schema.add_field("vector", kinds.SPARSE_FLOAT_VECTOR)
        params = self._client.prepare_index_params()
        params.add_index(
            "vector", index_type=self._keys.index_type, metric_type="IP", params=_params(self._keys.index_params)
        )
        self._ask(
            lambda: self._client.create_collection,
            schema=schema,
            index_params=params,
            consistency_level="Strong",
            properties={PROPERTY: json.dumps(made_of, sort_keys=True)},
        )

    def _said(self) -> JsonObject | None:
        """Return what the collection says of its vectors; None: nothing."""
        try:
            said = json.loads(self._ask(lambda: self._client.describe_collection)["properties"][PROPERTY])
            return said if isinstance(said, dict) else None
        except (KeyError, TypeError, ValueError):
            return None

    def _fill(self, index: InvertedIndex) -> None:
        """Send the documents after those that are there; they were sent in order, a batch at a time.

        Milvus refuses vectors without any term; no query finds them here either.
        """
        there, n_docs, size = self._count(), index.n_docs - index.n_empty, self._keys.batch_size
        if there < n_docs:
            skip = max(0, there - size)  # of a batch that was under way, any may be there
            with progress_bar("to Milvus", total=n_docs, unit="doc", done=skip) as bar:
                for ids, vectors in _batches(index, skip, size):
                    rows = [
                        {"doc_id": doc_id, "vector": dict(zip(terms.tolist(), weights.tolist(), strict=True))}
                        for doc_id, (terms, weights) in zip(ids, vectors, strict=True)
                    ]
                    self._ask(lambda: self._client.upsert, data=rows)
                    bar.update(len(rows))
            self._ask(lambda: self._client.flush)
            there = self._count()
        if there != n_docs:
            raise DataError(
                f"the collection '{self._keys.collection}' of {self._place} holds {there} documents of {n_docs} after "
                "all were sent: somebody else writes to it"
            )

    def _count(self) -> int:
        self._ask(lambda: self._client.load_collection)
        (row,) = self._ask(lambda: self._client.query, filter="", output_fields=["count(*)"])
        return int(row["count(*)"])

    def _ask(self, method: "Callable[[], Callable[..., Answer]]", **arguments: object) -> Answer:
        """Call a method of the client on the collection."""
        with self._errors("does not do what was asked, or does not answer"):
            return method()(self._keys.collection, timeout=self._keys.timeout, **arguments)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._faults as error:
            reason = " ".join(printable(str(getattr(error, "message", "") or error)).split())[:300]
            hint = "it must run, and be the right one" if self._keys.uri else "no other process may use the file"
            raise ConfigError(
                f"milvus.uri={self._keys.uri or 'null'}: Milvus at {self._place} {what} ({reason}); {hint}; the same "
                "command goes on where it was"
            ) from error


class MilvusRetriever(ElsewhereRetriever):
    """Queries are encoded here and searched by Milvus.

    Args:
        model: encodes the queries.
        index: where the vectors come from.
        collection: the same vectors in Milvus.
        threshold: only documents with a greater score are returned.
    """

    def __init__(self, model: SparseModel, index: Index, collection: MilvusCollection, threshold: float = 0.0):
        super().__init__("Milvus", model, index, threshold)
        self._collection = collection

    def _ask(self, vectors: SparseVectors, top_k: int) -> Answers:
        return self._collection.search(vectors, top_k)


def _params(asked: MilvusParams) -> dict[str, str | float]:
    return {} if asked == "default" else dict(asked)


def _batches(index: InvertedIndex, skip: int, size: int) -> Iterator[tuple[list[str], SparseVectors]]:
    """Yield ids and vectors of the documents that have any term, `size` at a time, without the first `skip` of them."""
    for ids, vectors in IndexedVectors(index).by_document():
        wanted = np.flatnonzero(vectors.lengths)
        wanted, skip = wanted[skip:], max(0, skip - len(wanted))
        for start in range(0, len(wanted), size):
            some = wanted[start : start + size]
            yield [ids[i] for i in some.tolist()], vectors.take(some)
