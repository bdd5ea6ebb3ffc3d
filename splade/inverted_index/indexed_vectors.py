"""The vectors of a finished index, for those who take them elsewhere: by term as they are stored, or by document."""

from collections.abc import Iterable, Iterator

import numpy as np

from splade.inverted_index.document_ids import DocumentIds
from splade.inverted_index.index_source import IndexSource
from splade.inverted_index.layout import WINDOW_BITS
from splade.inverted_index.read import InvertedIndex
from splade.inverted_index.sharded import ShardedIndex
from splade.progress import progress_bar
from splade.storage.compiled import compiled
from splade.vectors import SparseVectors


class IndexedVectors:
    """All vectors of an index, in one file or in shards; memory is that of one window of documents, or of one term.

    Attributes:
        n_docs, vocab_size: of the index.
        doc_ids: the users' ids, in order.
        counts: (vocab_size,) int64, documents of each term.

    Example:
        >>> import tempfile
        >>> from splade.inverted_index import IndexBuilder
        >>> folder = tempfile.mkdtemp()
        >>> builder = IndexBuilder(folder, vocab_size=3)
        >>> builder.add(["a", "b"], SparseVectors.from_rows([([0, 2], [1, 2]), ([2], [3])], 3))
        >>> info = builder.finish()
        >>> vectors = IndexedVectors(InvertedIndex.open(folder))
        >>> [(ids, rows.term_ids.tolist()) for ids, rows in vectors.by_document()]
        [(['a', 'b'], [0, 2, 2])]
        >>> [(term, docs.tolist(), impacts.tolist()) for term, docs, impacts in vectors.by_term([2, 1])]
        [(2, [0, 1], [2.0, 3.0])]
    """

    def __init__(self, index: InvertedIndex):
        shards = index.shards if isinstance(index, ShardedIndex) else [index]
        self._sources = [IndexSource(shard.file) for shard in shards]
        self._starts = np.cumsum([0, *(len(source.ids) for source in self._sources)])
        self.n_docs, self.vocab_size = index.n_docs, index.vocab_size
        self.doc_ids = DocumentIds.concatenate([source.ids for source in self._sources])
        self.counts = np.sum([source.counts for source in self._sources], axis=0)

    def by_term(self, terms: Iterable[int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (term, numbers of its documents, ascending int64, their impacts float32) of terms that occur."""
        for term in terms:
            parts = [source.postings(term, term + 1).pairs for source in self._sources]
            docs = [pairs[:, 0] + start for pairs, start in zip(parts, self._starts, strict=False)]
            if self.counts[term]:
                yield term, np.concatenate(docs), np.concatenate([pairs.view(np.float32)[:, 1] for pairs in parts])

    def by_document(self) -> Iterator[tuple[list[str], SparseVectors]]:
        """Yield ids with their vectors, some at a time, in the order of the documents."""
        with progress_bar("reading the index", total=self.n_docs, unit="doc") as bar:
            for source in self._sources:
                for docs, vectors in documents_by_window(source, self.vocab_size):
                    yield [source.ids[i] for i in range(docs.start, docs.stop)], vectors
                    bar.update(len(vectors))


def documents_by_window(source: IndexSource, vocab_size: int) -> Iterator[tuple[slice, SparseVectors]]:
    """Yield the documents of each window of an index file, with their vectors."""
    lists, n_docs = source.lists, len(source.ids)
    blocks = np.argsort(lists.block_windows, kind="stable")
    n_windows = (n_docs + (1 << WINDOW_BITS) - 1) >> WINDOW_BITS
    ends = np.searchsorted(lists.block_windows[blocks], np.arange(n_windows), "right")
    terms_of_blocks = np.repeat(np.arange(vocab_size, dtype=np.int32), np.diff(lists.term_blocks))
    for window, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        docs, chosen = slice(window << WINDOW_BITS, min(n_docs, (window + 1) << WINDOW_BITS)), blocks[begin:end]
        indptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(source.lengths[docs], dtype=np.int64)))
        terms, impacts = _gather(
            *(lists.offsets, lists.impacts, lists.block_postings[chosen], lists.block_postings[chosen + 1]),
            terms_of_blocks[chosen],
            indptr,
        )
        yield docs, SparseVectors(indptr, terms, impacts, vocab_size)


@compiled()
def _gather(
    offsets: np.ndarray,
    impacts: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    block_terms: np.ndarray,
    indptr: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return terms and impacts of the documents of a window, one document after the other."""
    places = indptr[:-1].copy()
    terms, gathered = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    for block in range(len(begins)):
        for posting in range(begins[block], ends[block]):
            place = places[offsets[posting]]
            terms[place], gathered[place] = block_terms[block], impacts[posting]
            places[offsets[posting]] = place + 1
    return terms, gathered
