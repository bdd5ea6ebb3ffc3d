"""An index in several files, its shards: searched one by one, or each by a process of its own, and answered as one.

`shards.json` in the folder of the index names the files, in the order of their documents, says how many documents each
holds and what its seal is, and which model and collection they are of. It is written last, when every shard is there;
an index without it is unfinished. Shards know the statistics of the terms in all of them, so scores and rankings are
those of one index of all documents, to the last bit.
"""

import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from splade.errors import DataError, IndexFileError
from splade.inverted_index.document_ids import DocumentIds, check_unique_across
from splade.inverted_index.layout import INDEX_FILE, SHARDS_FILE, TermStatistics
from splade.inverted_index.read import InvertedIndex, SearchResults
from splade.storage.atomic import JsonObject, read_json_object, write_json
from splade.vectors import SparseVectors

SHARDS_FOLDER = "shards-"
"""Begins the names of folders with the files of shards, finished or not."""


@dataclass(frozen=True)
class ShardEntry:
    """What `shards.json` says of a shard.

    Attributes:
        file: its path inside the folder of the index.
        n_docs: its documents.
        seal: length and checksum of the file.
    """

    file: str
    n_docs: int
    seal: str


class ShardedIndex(InvertedIndex):
    """An index in shards; what it returns is what one index of all documents returns.

    Made by `open_index`. Safe to use from several threads.

    Args:
        path: of `shards.json`.
        shards: in the order of their documents.
        metadata: of all.
    """

    def __init__(self, path: Path, shards: Sequence[InvertedIndex], metadata: JsonObject):
        self.path = path
        self.shards = list(shards)
        self.metadata = metadata
        self.vocab_size = self.shards[0].vocab_size
        self.n_docs, self.n_empty = sum(one.n_docs for one in shards), sum(one.n_empty for one in shards)
        self.n_postings, self.n_bytes = sum(one.n_postings for one in shards), sum(one.n_bytes for one in shards)
        self._starts = np.cumsum([0, *(one.n_docs for one in shards)], dtype=np.int64)
        largest, counts = zip(*(one.own_statistics() for one in shards), strict=True)
        self.statistics = TermStatistics(np.max(largest, axis=0), np.sum(counts, axis=0))
        for one in self.shards:
            one.statistics = self.statistics

    def __repr__(self) -> str:
        return f"ShardedIndex({str(self.path)!r}, {self.n_docs} documents in {len(self.shards)} shards)"

    @property
    def posting_counts(self) -> np.ndarray:
        """(vocab_size,) int64: number of documents that each term occurs in."""
        return self.statistics.counts

    def doc_id(self, doc_idx: int) -> str:
        """Return the user's id of a document."""
        shard, number = self._place(doc_idx)
        return shard.doc_id(number)

    def doc_number(self, doc_id: str) -> int:
        """Return the position of a document, from 0; a DataError for an id that the index does not hold."""
        for start, shard in zip(self._starts.tolist(), self.shards, strict=False):
            if doc_id in shard.known_doc_ids([doc_id]):
                return int(start) + shard.doc_number(doc_id)
        raise DataError(f"document '{doc_id}' is not in the index, which holds {self.n_docs} documents")

    def doc_ids(self, doc_idx: Iterable[int] | None = None) -> list[str]:
        """Return the user's ids of some documents, of all by default."""
        if doc_idx is None:
            return [doc_id for shard in self.shards for doc_id in shard.doc_ids()]
        return [self.doc_id(int(number)) for number in doc_idx]

    def known_doc_ids(self, doc_ids: Iterable[str]) -> set[str]:
        """Return those of the given ids that the index holds."""
        wanted = set(doc_ids)
        return set().union(*(shard.known_doc_ids(wanted) for shard in self.shards))

    def search(
        self,
        queries: SparseVectors,
        top_k: int,
        threshold: float = 0.0,
        effort: float = 1.0,
        n_threads: int = 1,
    ) -> SearchResults:
        """Return for each query the documents with the highest dot products; `doc_idx` is int64.

        See `InvertedIndex.search`. Threads share the queries or, where those are fewer, the shards.
        """
        found = self._search_shards(queries, top_k, threshold, effort, n_threads)
        return merge_rankings(found, self._starts[:-1], top_k)

    def _search_shards(
        self, queries: SparseVectors, top_k: int, threshold: float, effort: float, n_threads: int
    ) -> list[SearchResults]:
        """Return what each shard finds."""
        if n_threads <= max(1, len(queries)):
            return [shard.search(queries, top_k, threshold, effort, n_threads) for shard in self.shards]
        with ThreadPoolExecutor(n_threads) as pool:
            return list(pool.map(lambda shard: shard.search(queries, top_k, threshold, effort), self.shards))

    def vector(self, doc_idx: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the term ids (int32) and weights (float32) of a document."""
        shard, number = self._place(doc_idx)
        return shard.vector(number)

    def impacts(self, doc_idx: int, term_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return those of some terms that a document has, and their weights (float32), in their order."""
        shard, number = self._place(doc_idx)
        return shard.impacts(number, term_ids)

    def verify(self) -> None:
        """Read all files and compare their checksums.

        Raises:
            IndexFileError: one is damaged.
        """
        for shard in self.shards:
            shard.verify()

    def describe(self) -> dict[str, object]:
        """Return what is in the index, as values that JSON can hold."""
        return {**super().describe(), "n_shards": len(self.shards)}

    def _place(self, doc_idx: int) -> tuple[InvertedIndex, int]:
        """Return the shard of a document, and its number there."""
        if not 0 <= doc_idx < self.n_docs:
            raise DataError(f"document number {doc_idx}: the index holds 0 to {self.n_docs - 1}")
        number = int(np.searchsorted(self._starts, doc_idx, "right")) - 1
        return self.shards[number], int(doc_idx - self._starts[number])


def merge_rankings(found: Sequence[SearchResults], starts: np.ndarray, top_k: int) -> SearchResults:
    """Make one ranking per query of those of several shards.

    Args:
        found: the shards' results for the same queries, in the order of their documents.
        starts: (n_shards,) int64, the number of each shard's first document.
        top_k: at most so many documents for each query.
    """
    n_queries = len(found[0])
    indptr, docs, scores = np.zeros(n_queries + 1, np.int64), [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for query in range(n_queries):
        rows = [one.row(query) for one in found]
        joined = np.concatenate([row_scores for _, row_scores in rows])
        # Of equal scores, the first stays first: the document of the earlier shard, or the earlier one of its shard.
        best = np.argsort(-joined, kind="stable")[:top_k]
        numbers = np.concatenate([row_docs + start for (row_docs, _), start in zip(rows, starts, strict=True)])
        docs.append(numbers[best])
        scores.append(joined[best])
        indptr[query + 1] = indptr[query] + len(best)
    return SearchResults(indptr, np.concatenate(docs), np.concatenate(scores))


def index_file(place: Path) -> Path:
    """Return the file that is replaced when the index of a folder is: the index itself, or what names its shards."""
    if not place.is_dir():
        return place
    return place / (SHARDS_FILE if (place / SHARDS_FILE).is_file() else INDEX_FILE)


def open_index(place: str | Path) -> InvertedIndex:
    """Open the index of a folder, in one file or in shards, or an index file itself.

    Raises:
        IndexFileError: no index there, one that is unfinished, foreign, truncated or damaged, or shards that do not
            belong together.
    """
    path = index_file(Path(place))
    if path.name != SHARDS_FILE:
        return InvertedIndex.open(place)
    entries, metadata = _read_manifest(path)
    shards = []
    for entry in entries:
        file = path.parent / entry.file
        shard = InvertedIndex.open(file)
        if (shard.n_docs, shard.file.seal) != (entry.n_docs, entry.seal) or shard.metadata != metadata:
            raise IndexFileError(f"{file}: is not the shard that {path} names; index again with config.overwrite=true")
        shards.append(shard)
    return ShardedIndex(path, shards, metadata)


def join_shards(folder: Path, files: Sequence[Path]) -> None:
    """Make index files that lie in a folder, or below it, the shards of one index: write `shards.json`.

    Raises:
        DataError: a document is in two of them.
        IndexFileError: one is damaged, or they are not of one model and collection.
    """
    shards = [InvertedIndex.open(file) for file in files]
    first = shards[0]
    for shard in shards:
        if (shard.vocab_size, shard.metadata) != (first.vocab_size, first.metadata):
            raise IndexFileError(f"{shard.path}: of another model or collection than {first.path}; index again")
    check_unique_across([DocumentIds(one.file.arrays["id_text"], one.file.arrays["id_ends"]) for one in shards])
    entries = [
        ShardEntry(file.relative_to(folder).as_posix(), shard.n_docs, shard.file.seal)
        for file, shard in zip(files, shards, strict=True)
    ]
    write_json(folder / SHARDS_FILE, {"metadata": first.metadata, "shards": [asdict(entry) for entry in entries]})
    (folder / INDEX_FILE).unlink(missing_ok=True)


def forget_shards(folder: Path, but: Path | None = None) -> None:
    """Remove shards from a folder whose index is another one now: the one file, or the shards in the folder `but`."""
    if but is None:
        (folder / SHARDS_FILE).unlink(missing_ok=True)
    for place in folder.glob(f"{SHARDS_FOLDER}*"):
        if place != but:
            shutil.rmtree(place)


def _read_manifest(path: Path) -> tuple[list[ShardEntry], JsonObject]:
    try:
        said = read_json_object(path)
        entries = [ShardEntry(**entry) for entry in said["shards"]]
        inside = all(not Path(entry.file).is_absolute() and ".." not in Path(entry.file).parts for entry in entries)
        if entries and inside and isinstance(said["metadata"], dict):
            return entries, said["metadata"]
    except (DataError, KeyError, TypeError):
        pass
    raise IndexFileError(f"{path}: not what indexing in shards writes; index again with config.overwrite=true")
