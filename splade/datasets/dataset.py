"""A test collection: documents, queries and relevance judgements of one split."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from splade.datasets.collections import open_collection, open_queries
from splade.datasets.qrels import Qrels, read_qrels
from splade.datasets.text_collection import TextCollection
from splade.errors import DataError
from splade.storage.paths import check_folder_name


@dataclass(frozen=True)
class Dataset:
    """Documents, queries and qrels that belong together.

    Attributes:
        name: for messages and folders.
        queries: query id to text, in the order of the file.
        qrels: {query_id: {doc_id: relevance}}, None without judgements.
        corpus: the documents; None where only an index of them is at hand.
        split: name of the split, such as `test`.

    Example:
        >>> toy = "pkg://splade/data/toy"
        >>> dataset = Dataset.open("toy", f"{toy}/queries/heldout", f"{toy}/qrels/heldout.json", f"{toy}/collection")
        >>> len(dataset.corpus), len(dataset.queries), len(dataset.judged_queries)
        (240, 25, 25)
    """

    name: str
    queries: Mapping[str, str]
    qrels: Qrels | None = None
    corpus: TextCollection | None = None
    split: str = "test"

    def __post_init__(self) -> None:
        """Check the name: it becomes a folder, perhaps in another one, and stands in runs."""
        for part in self.name.split("/"):
            check_folder_name(part, "the name of the data set")

    @classmethod
    def open(
        cls,
        name: str,
        queries: str | Path,
        qrels: str | Path | None = None,
        corpus: str | Path | None = None,
        split: str = "test",
    ) -> "Dataset":
        """Open files or folders in any of the formats that `open_queries`, `read_qrels`, `open_collection` read.

        Queries and qrels (of `split`, where they are a folder) are read now, documents when asked for. Without qrels
        the data set is not evaluated; without documents an index stands for them.

        Raises:
            DataError: a file is missing or wrong; the message says where.
        """
        return cls(
            name,
            dict(open_queries(queries)),
            None if qrels is None else read_qrels(qrels, split),
            None if corpus is None else open_collection(corpus),
            split,
        )

    @property
    def judged_queries(self) -> dict[str, str]:
        """The queries that have judgements."""
        qrels = self.qrels or {}
        return {query_id: text for query_id, text in self.queries.items() if query_id in qrels}

    @property
    def documents(self) -> TextCollection:
        """The corpus.

        Raises:
            DataError: there is none.
        """
        if self.corpus is None:
            raise DataError(f"{self.name}: no documents were given with this data set")
        return self.corpus

    @cached_property
    def identity(self) -> dict[str, str]:
        """Digests of the parts: results of a data set with the same ones may be used again."""
        qrels = (f"{query_id} {sorted(judged.items())}" for query_id, judged in (self.qrels or {}).items())
        return {
            "source": self.corpus.digest() if self.corpus is not None else "",
            "split": self.split,
            "queries": _digest(f"{query_id}\t{text}" for query_id, text in self.queries.items()),
            "qrels": _digest(qrels),
        }


def _digest(lines: Iterable[str]) -> str:
    value = hashlib.sha256()
    for line in lines:
        value.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return value.hexdigest()[:16]
