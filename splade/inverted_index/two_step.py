"""Two-step search: an approximate first step finds candidates, and their vectors score them exactly.

The first step searches an index of each document's largest terms for each query's largest terms (Two-Step SPLADE, arXiv
2404.13357). Documents that it passes over are lost; those that it finds get the scores of exact search, but for
rounding. The paper also dampens weights in the first step, for the sake of engines that skip by impacts; that is left
out here.

Both files lie in the folder of the index, `two_step/`, and are made anew when the index has changed.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splade.errors import ConfigError, IndexFileError
from splade.inverted_index.build import IndexBuilder
from splade.inverted_index.document_vectors import DocumentVectors
from splade.inverted_index.read import InvertedIndex, SearchResults
from splade.inverted_index.sharded import ShardedIndex
from splade.storage.compiled import compiled
from splade.storage.locks import FolderLock
from splade.vectors import SparseVectors

FOLDER, VECTORS_FILE = "two_step", "vectors.h5"
_MADE_OF = "made_of"
_LONGEST_BUILD_S = 3600.0
_STEP = 1 << 15  # documents pruned at a time


@dataclass(frozen=True)
class TwoStepIndex:
    """A pruned index for the first step, and the vectors for the second.

    Attributes:
        whole: the index itself.
        first: of the documents' largest terms.
        vectors: of all terms.
        query_terms: how many terms of a query the first step looks for, those with the largest weights.
        candidates: how many documents it finds; as many as are asked for, if those are more.
    """

    whole: InvertedIndex
    first: InvertedIndex
    vectors: DocumentVectors
    query_terms: int
    candidates: int

    @classmethod
    def beside(cls, index: InvertedIndex, document_terms: int, query_terms: int, candidates: int) -> "TwoStepIndex":
        """Open what lies beside an index, once it is made; another process may be making it.

        Raises:
            BusyError: another process has not finished within an hour.
            ConfigError: the index is in shards.
            WriteError: it must be made, and cannot be written there.
        """
        if isinstance(index, ShardedIndex):
            raise ConfigError(
                f"{index.path}: an index in shards is searched in one step; set config.two_step.candidates=null, or "
                "index into one file, without config.n_shards"
            )
        folder = index.path.parent / FOLDER
        found = _find(index, folder, document_terms)
        if found is None:
            with FolderLock(folder, wait_s=_LONGEST_BUILD_S):
                found = _find(index, folder, document_terms) or _make(index, folder, document_terms)
        return cls(index, *found, query_terms, candidates)

    def search(
        self, queries: SparseVectors, top_k: int, threshold: float = 0.0, effort: float = 1.0, n_threads: int = 1
    ) -> SearchResults:
        """Return for each query the best of the candidates; the arguments are those of `InvertedIndex.search`.

        `effort` is that of the first step.

        Raises:
            DataError: as `InvertedIndex.search`.
        """
        self.whole.check_search(queries, top_k, threshold, effort, n_threads)
        largest = largest_terms(queries, self.query_terms)
        found = self.first.search(largest, max(self.candidates, top_k), 0.0, effort, n_threads)
        return self.vectors.rescore(queries, found, min(top_k, self.whole.n_docs), threshold)


def largest_terms(vectors: SparseVectors, n: int) -> SparseVectors:
    """Keep the `n` largest weights of each vector; of equal ones, those of the lower terms.

    Example:
        >>> vectors = SparseVectors.from_rows([([1, 2, 3], [0.5, 2.0, 1.0]), ([0], [1.0])], vocab_size=4)
        >>> largest_terms(vectors, 2).term_ids.tolist()
        [2, 3, 0]
    """
    kept = np.flatnonzero(_largest(vectors.indptr, vectors.weights, n))
    indptr = np.zeros(len(vectors) + 1, np.int64)
    np.cumsum(np.minimum(vectors.lengths, n), out=indptr[1:])
    return SparseVectors(indptr, vectors.term_ids[kept], vectors.weights[kept], vectors.vocab_size)


@compiled()
def _largest(indptr: np.ndarray, weights: np.ndarray, n: int) -> np.ndarray:
    """Return (entries,) bool: whether an entry is among the `n` largest of its row."""
    kept = np.ones(len(weights), np.bool_)
    for row in range(len(indptr) - 1):
        begin, end = indptr[row], indptr[row + 1]
        if end - begin <= n:
            continue
        least = np.partition(weights[begin:end], end - begin - n)[end - begin - n]
        equal = n - (weights[begin:end] > least).sum()
        for entry in range(begin, end):
            kept[entry] = weights[entry] > least
            if weights[entry] == least and equal > 0:
                kept[entry] = True
                equal -= 1
    return kept


def _find(index: InvertedIndex, folder: Path, document_terms: int) -> tuple[InvertedIndex, DocumentVectors] | None:
    """Open both files if they were made of this index."""
    with suppress(IndexFileError):
        first, vectors = (
            InvertedIndex.open(folder / f"terms-{document_terms}"),
            DocumentVectors.open(folder / VECTORS_FILE),
        )
        if first.metadata.get(_MADE_OF) == vectors.made_of == index.file.seal:
            return first, vectors
    return None


def _make(index: InvertedIndex, folder: Path, document_terms: int) -> tuple[InvertedIndex, DocumentVectors]:
    vectors = _vectors(index, folder / VECTORS_FILE)
    metadata = {_MADE_OF: vectors.made_of, "document_terms": document_terms}
    builder = IndexBuilder(folder / f"terms-{document_terms}", index.vocab_size, metadata, overwrite=True)
    for start in range(builder.documents_done, index.n_docs, _STEP):
        stop = min(index.n_docs, start + _STEP)
        builder.add(index.doc_ids(range(start, stop)), largest_terms(vectors.rows(start, stop), document_terms))
    builder.finish()
    return InvertedIndex.open(builder.index_dir), vectors


def _vectors(index: InvertedIndex, path: Path) -> DocumentVectors:
    """Return the vectors of an index, written before for another number of terms, or now."""
    with suppress(IndexFileError):
        vectors = DocumentVectors.open(path)
        if vectors.made_of == index.file.seal:
            return vectors
    return DocumentVectors.write(index, path)
