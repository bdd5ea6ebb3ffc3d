"""Static pruning: an index without the postings that matter least.

Three ways of telling them (Lassance et al., A Static Pruning Study on Sparse Neural Retrievers, arXiv 2304.12702): by
document, by term, and by impact alone; a cap of the posting lists is a fourth, and by impact times the IDF of the term,
what the posting tells its document from others by, a fifth. Each is judged on the index as it was,
and a posting stays if all that are given let it stay. Ties go to the lower term and to the document indexed first, so
the result is determined.

Memory: beside that of a merge, the postings of one window of documents and 8 bytes per document.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from splade.errors import DataError, IndexFileError
from splade.inverted_index.index_source import IndexSource
from splade.inverted_index.indexed_vectors import documents_by_window
from splade.inverted_index.layout import INDEX_FILE
from splade.inverted_index.merge import JoinedSource, merge, term_ranges
from splade.inverted_index.read import InvertedIndex
from splade.inverted_index.segments import Postings
from splade.inverted_index.sharded import ShardedIndex, open_index
from splade.progress import progress_bar
from splade.storage.compiled import compiled
from splade.storage.locks import FolderLock

PRUNED = "pruned"
"""Name in an index's metadata of how it was pruned."""


@dataclass(frozen=True)
class Pruning:
    """What is dropped; None drops nothing.

    Attributes:
        value_to_prune: impacts below so many times the mean impact of the index.
        size_to_prune: all but so many largest impacts of each document.
        quantile: of each term, this share of its postings, the smallest.
        longest_list: of each term, all but so many largest impacts.
        idf_to_prune: impacts that, times the IDF of their term, are below so many times the mean of these products.

    Example:
        >>> Pruning(size_to_prune=16).name
        'size_to_prune-16'
    """

    value_to_prune: float | None = None
    size_to_prune: int | None = None
    quantile: float | None = None
    longest_list: int | None = None
    idf_to_prune: float | None = None

    @property
    def given(self) -> dict[str, float]:
        """What is not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def method(self) -> str:
        """The criteria, without their values."""
        return " + ".join(self.given)

    @property
    def name(self) -> str:
        """The criteria with their values, as the name of a folder."""
        return "__".join(f"{name}-{value:g}" for name, value in self.given.items())

    def longest(self, list_lengths: np.ndarray) -> np.ndarray:
        """Return how many postings of each term stay, of as many as there are (int64); never less than one."""
        kept = list_lengths - np.floor((self.quantile or 0) * list_lengths).astype(np.int64)
        return kept if self.longest_list is None else np.minimum(kept, self.longest_list)

    def smallest(self, list_lengths: np.ndarray, sums: np.ndarray, n_docs: int) -> np.ndarray:
        """Return the impact of each term (float64) below which none stays.

        Args:
            list_lengths: documents of each term.
            sums: sum of each term's impacts.
            n_docs: number of documents.
        """
        idf, n_postings = (
            np.log1p((n_docs - list_lengths + 0.5) / (list_lengths + 0.5)),
            max(1, int(list_lengths.sum())),
        )
        by_impact = (self.value_to_prune or 0) * sums.sum() / n_postings
        by_product = (self.idf_to_prune or 0) * (sums * idf).sum() / n_postings
        return np.maximum(by_impact, by_product / idf)


def prune_index(
    index_dir: str | Path, pruned_dir: str | Path, pruning: Pruning, overwrite: bool = False
) -> InvertedIndex:
    """Write a pruned copy of an index, in one file or in shards, to one file, or return the one that is finished.

    All documents stay, those that lose all their terms too. The copy searches as the index of the same model, and its
    metadata say how it was pruned.

    Args:
        index_dir: folder of the index, or the file itself.
        pruned_dir: folder of the new index.
        pruning: what is dropped.
        overwrite: replace another index in `pruned_dir`.

    Raises:
        BusyError: another process is writing to the folder.
        DataError: nothing would stay.
        IndexFileError: no index there, or another one in `pruned_dir`, and `overwrite` is False.
    """
    index, place = open_index(index_dir), Path(pruned_dir) / INDEX_FILE
    if place.exists() and place.samefile(index.path):
        raise IndexFileError(f"{pruned_dir} holds the index that is to be pruned; write the pruned one elsewhere")
    earlier = index.metadata.get(PRUNED, [])
    metadata = {**index.metadata, PRUNED: [*(earlier if isinstance(earlier, list) else []), pruning.given]}
    with FolderLock(place.parent):
        if place.exists() and not overwrite:
            there = InvertedIndex.open(place)
            if there.metadata == metadata and there.n_docs == index.n_docs and not metadata.get("updated"):
                return there
            raise IndexFileError(f"{place} exists already, and is another index; give another folder, or overwrite it")
        shards = index.shards if isinstance(index, ShardedIndex) else [index]
        source = _PrunedSource([IndexSource(shard.file) for shard in shards], pruning)
        if not source.counts.any():
            raise DataError(f"{index.path}: {pruning.name} leaves no posting of {index.n_postings}")
        merge([source], place, index.vocab_size, metadata)
    return InvertedIndex.open(place)


def was_pruned(metadata: Mapping[str, object]) -> bool:
    """Return whether an index with these metadata was pruned."""
    return bool(metadata.get(PRUNED))


class _PrunedSource:
    """The postings of an index that stay, read from the first term to the last."""

    def __init__(self, shards: Sequence[IndexSource], pruning: Pruning):
        index = self._index = JoinedSource(shards)
        self.ids, n_postings = index.ids, int(index.counts.sum())
        sums = np.sum([_sums(shard) for shard in shards], axis=0)
        self._smallest = pruning.smallest(index.counts, sums, len(index.ids))
        self._longest = pruning.longest(index.counts)
        self._documents = _Documents(shards, pruning.size_to_prune)
        self.lengths = np.zeros(len(index.ids), np.int32)
        self.counts = np.zeros(len(index.counts), np.int64)
        with progress_bar("choosing postings", total=n_postings, unit="posting") as bar:
            for first, last in term_ranges(index.counts):
                kept = self.postings(first, last)
                self.counts[first:last] = np.diff(kept.starts)
                self.lengths += np.bincount(kept.pairs[:, 0], minlength=len(self.lengths)).astype(np.int32)
                bar.update(int(index.counts[first:last].sum()))

    def postings(self, first: int, last: int) -> Postings:
        """Return those of the terms `first` to `last` (exclusive), of which `first` is 0 or the last call's `last`."""
        found = self._index.postings(first, last)
        if first == 0:
            self._ties = self._documents.ties.copy()
        impacts = found.pairs.view(np.float32)
        starts, pairs = _keep(
            found.starts,
            found.pairs,
            impacts,
            self._smallest[first:last],
            self._longest[first:last],
            self._documents.smallest,
            self._ties,
        )
        return Postings(starts, pairs)


def _sums(source: IndexSource) -> np.ndarray:
    """Return the sum of the impacts of each term, float64."""
    starts, sums = source.lists.block_postings[source.lists.term_blocks[:-1]], np.zeros(len(source.counts))
    there = source.counts > 0
    if there.any():
        sums[there] = np.add.reduceat(source.lists.impacts, starts[there], dtype=np.float64)
    return sums


class _Documents:
    """The impact of each document below which nothing stays, and how many of its impacts that equal it do."""

    def __init__(self, shards: Sequence[IndexSource], most: int | None):
        n_docs = sum(len(shard.ids) for shard in shards)
        self.smallest, self.ties = np.zeros(n_docs, np.float32), np.zeros(n_docs, np.int32)
        if most is None:
            return
        with progress_bar("ranking the terms of each document", total=n_docs, unit="doc") as bar:
            first = 0
            for _, vectors in chain.from_iterable(documents_by_window(shard, len(shard.counts)) for shard in shards):
                docs = slice(first, first + len(vectors))
                _limit_documents(vectors.indptr, vectors.weights, most, self.smallest[docs], self.ties[docs])
                first = docs.stop
                bar.update(len(vectors))


@compiled()
def _limit(impacts: np.ndarray, most: int) -> tuple[np.float32, int]:
    """Return the `most`-th largest impact and how many that equal it are among the `most`; (0, 0) where all are."""
    if most >= len(impacts):
        return np.float32(0), 0
    ascending = np.sort(impacts)
    smallest = ascending[len(impacts) - most]
    above = len(impacts) - np.searchsorted(ascending, smallest, "right")
    return smallest, most - above


@compiled()
def _limit_documents(
    indptr: np.ndarray, impacts: np.ndarray, most: int, smallest: np.ndarray, ties: np.ndarray
) -> None:
    """Fill in `smallest` and `ties` of some documents."""
    for doc in range(len(smallest)):
        smallest[doc], ties[doc] = _limit(impacts[indptr[doc] : indptr[doc + 1]], most)


@compiled()
def _keep(
    starts: np.ndarray,
    pairs: np.ndarray,
    pairs_as_floats: np.ndarray,
    smallest: np.ndarray,
    longest: np.ndarray,
    doc_smallest: np.ndarray,
    doc_ties: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return starts and pairs, as in `Postings`, of what stays; count down `doc_ties`."""
    new_starts, kept, count = np.zeros(len(starts), np.int64), np.empty_like(pairs), 0
    for term in range(len(starts) - 1):
        begin, end = starts[term], starts[term + 1]
        term_smallest, term_ties = _limit(pairs_as_floats[begin:end, 1].copy(), longest[term])
        for posting in range(begin, end):
            doc, impact = pairs[posting, 0], pairs_as_floats[posting, 1]
            stays = impact >= smallest[term]
            if impact <= term_smallest:
                stays &= impact == term_smallest and term_ties > 0
                term_ties -= impact == term_smallest
            if impact <= doc_smallest[doc]:
                stays &= impact == doc_smallest[doc] and doc_ties[doc] > 0
                doc_ties[doc] -= impact == doc_smallest[doc]
            if stays:
                kept[count] = pairs[posting]
                count += 1
        new_starts[term + 1] = count
    return new_starts, kept[:count]
