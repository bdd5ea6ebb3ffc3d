"""Data sets of the `ir_datasets` catalogue, wherever a file could be given: `ir_datasets:<id>`.

The library downloads and caches in its own folder. Reading in order streams from it; for random access the records
are copied once into this toolkit's cache (`~/.cache/splade`), where they get the same offset index as any file.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from splade.datasets.text_collection import FileCollection, TextCollection
from splade.datasets.training_sets import TrainingExample, TrainingSet, TrainingSetReport
from splade.errors import DataError
from splade.storage.cache import CACHE_FROM_BYTES, user_cache
from splade.storage.line_index import LineIndex, LineSource
from splade.storage.paths import IR_DATASETS_SCHEME

Entity = Literal["docs", "queries", "qrels", "docpairs"]
_ENTITY_OF_ROLE: dict[str, Entity] = {"corpus": "docs", "queries": "queries"}


def open_texts(uri: str, role: str) -> TextCollection:
    """Open the documents (`role` "corpus") or the queries of a data set."""
    return FileCollection(_source(uri, _ENTITY_OF_ROLE[role]), "jsonl")


def ir_datasets_qrels(uri: str) -> Iterator[tuple[str, str, Any, str]]:
    """Yield (query id, document id, relevance, place for messages)."""
    for qrel in _load(uri, "qrels").qrels_iter():
        yield qrel.query_id, qrel.doc_id, qrel.relevance, uri


class DocPairs(TrainingSet):
    """The document pairs of a data set as training triplets."""

    def __init__(self, uri: str):
        """Open the pairs with the queries and documents of the same data set.

        Raises:
            DataError: the data set has none of these.
        """
        self._pairs = LineIndex.open(_source(uri, "docpairs"), "ir_datasets docpairs", _no_id)
        if len(self._pairs) == 0:
            raise DataError(f"{uri}: there are no document pairs in it")
        self._queries, self._docs = open_texts(uri, "queries"), open_texts(uri, "corpus")
        self.report = TrainingSetReport(len(self._pairs))

    def __len__(self) -> int:
        return len(self._pairs)

    def example(self, index: int, draw: int = 0) -> TrainingExample:
        """Return the texts of a pair; `draw` changes nothing."""
        query_id, positive, negative = json.loads(self._pairs[index])
        return TrainingExample(self._queries.text(query_id), self._docs.text(positive), [self._docs.text(negative)])


@dataclass(frozen=True)
class _CatalogueSource(LineSource):
    """The records of a data set as lines of JSON."""

    uri: str = ""
    entity: Entity = "docs"

    @property
    def name(self) -> str:
        return self.uri

    @property
    def addressable(self) -> bool:
        return False

    @property
    def size(self) -> int:
        # Only known once everything was read; the copy is worth keeping in any case.
        return CACHE_FROM_BYTES

    def state(self, kind: str) -> dict[str, Any]:
        import ir_datasets

        return {"kind": kind, "dataset": self.uri, "ir_datasets": ir_datasets.__version__}

    def records(self) -> Iterator[tuple[Path, int, bytes, bytes]]:
        for number, record in enumerate(self._records(), start=1):
            line = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace")
            yield Path(self.uri), number, line, line

    def _records(self) -> Iterable[Any]:
        dataset = _load(self.uri, self.entity)
        if self.entity == "docs":
            return ({"_id": doc.doc_id, "text": doc.default_text()} for doc in dataset.docs_iter())
        if self.entity == "queries":
            return ({"_id": query.query_id, "text": query.default_text()} for query in dataset.queries_iter())
        return ([pair.query_id, pair.doc_id_a, pair.doc_id_b] for pair in dataset.docpairs_iter())


def _source(uri: str, entity: Entity) -> LineSource:
    _load(uri, entity)
    cache = user_cache() / "ir_datasets"
    cache.mkdir(parents=True, exist_ok=True)
    name = uri.removeprefix(IR_DATASETS_SCHEME).replace("/", "-")
    return _CatalogueSource(cache / f"{name}-{entity}", (), uri=uri, entity=entity)


def _load(uri: str, entity: Entity) -> Any:
    try:
        import ir_datasets
    except ImportError as error:
        raise DataError(f"'{uri}': the library ir_datasets is not installed; pip install ir_datasets") from error
    try:
        dataset = ir_datasets.load(uri.removeprefix(IR_DATASETS_SCHEME))
    except KeyError as error:
        raise DataError(f"'{uri}': ir_datasets has no data set of this id; see https://ir-datasets.com") from error
    if not dataset.has(entity):
        there = [kind for kind in ("docs", "queries", "qrels", "docpairs", "scoreddocs") if dataset.has(kind)]
        raise DataError(
            f"'{uri}': this data set has no {entity}; it has {', '.join(there) or 'nothing that is used here'}"
        )
    return dataset


def _no_id(line: str, file: Path, line_number: int) -> None:
    return None
