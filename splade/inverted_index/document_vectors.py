"""The vectors of an index once more, document by document: what scores a few documents exactly, and quickly.

Of a document, an inverted index only knows in which posting lists to look. Here its terms and impacts lie side by side,
8 bytes each, so scoring it costs one cache miss and not one for each term of the query.
"""

from pathlib import Path

import numpy as np

from splade.inverted_index.index_source import IndexSource
from splade.inverted_index.indexed_vectors import documents_by_window
from splade.inverted_index.kernels.top_k import keep_best, ranking_key, write_ranking
from splade.inverted_index.kernels.workspace import Rankings
from splade.inverted_index.layout import ascends, check_lengths
from splade.inverted_index.read import InvertedIndex, SearchResults
from splade.progress import progress_bar
from splade.storage.arrays import ArrayFile, Layout, array_writer, open_arrays
from splade.storage.compiled import compiled
from splade.vectors import SparseVectors


class DocumentVectors:
    """The vectors of all documents of an index, in a file of their own.

    Attributes:
        made_of: seal of the index file that they were read from.
    """

    def __init__(self, file: ArrayFile):
        self.made_of = file.text("made_of")
        self.n_bytes = file.n_bytes
        self._starts, self._term_ids, self._impacts = (file.arrays[name] for name in ("starts", "term_ids", "impacts"))
        self._vocab_size = file.integer("vocab_size")

    @classmethod
    def open(cls, path: Path) -> "DocumentVectors":
        """Map the file.

        Raises:
            IndexFileError: it is missing, foreign or damaged.
        """
        return cls(open_arrays(path, _LAYOUT))

    @classmethod
    def write(cls, index: InvertedIndex, path: Path) -> "DocumentVectors":
        """Write the vectors of an index, one window of documents in memory at a time, and open them."""
        source = IndexSource(index.file)
        starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(source.lengths, dtype=np.int64)))
        attributes: dict[str, int | str] = {
            "n_docs": index.n_docs,
            "vocab_size": index.vocab_size,
            "made_of": index.file.seal,
        }
        with (
            array_writer(path, _LAYOUT, attributes) as file,
            progress_bar("vectors by document", total=index.n_docs, unit="doc") as bar,
        ):
            file.write("starts", starts)
            file.create("term_ids", index.n_postings)
            file.create("impacts", index.n_postings)
            for _, vectors in documents_by_window(source, index.vocab_size):
                file.append("term_ids", vectors.term_ids)
                file.append("impacts", vectors.weights)
                bar.update(len(vectors))
        return cls.open(path)

    def rows(self, start: int, stop: int) -> SparseVectors:
        """Return the vectors of documents `start` to `stop` (exclusive)."""
        whole = SparseVectors(self._starts, self._term_ids, self._impacts, self._vocab_size)
        return whole.rows(start, stop)

    def rescore(self, queries: SparseVectors, candidates: SearchResults, top_k: int, threshold: float) -> SearchResults:
        """Return of each query's candidates the `top_k` with the highest dot products above a threshold.

        Products are summed up in float32 in the order of the terms, so a score may differ from that of
        `InvertedIndex.search` by rounding.
        """
        rankings = Rankings.empty(len(queries), top_k)
        _rescore(
            *(self._starts, self._term_ids, self._impacts),
            *(queries.indptr, queries.term_ids, queries.weights.astype(np.float32)),
            *(candidates.indptr, candidates.doc_idx),
            np.zeros(self._vocab_size, np.float32),
            np.float32(threshold),
            top_k,
            rankings,
        )
        n_found = rankings.indptr[-1]
        return SearchResults(rankings.indptr, rankings.doc_idx[:n_found], rankings.scores[:n_found])


def _check_vectors(file: ArrayFile) -> None:
    """Refuse content that cannot be: compiled loops would follow a wrong position out of the memory."""
    starts, term_ids, impacts = (file.arrays[name] for name in ("starts", "term_ids", "impacts"))
    check_lengths(file, {"starts": file.integer("n_docs") + 1, "impacts": len(term_ids)})
    if not ascends(starts, 0, len(term_ids)):
        file.refuse("'starts' points outside")
    if len(term_ids) and not (term_ids.min() >= 0 and term_ids.max() < file.integer("vocab_size")):
        file.refuse("'term_ids' holds a term outside the vocabulary")
    if len(impacts) and not (impacts.min() > 0 and impacts.max() < np.inf):  # written so that NaN is refused too
        file.refuse("'impacts' holds a number that is not finite and positive")


_LAYOUT = Layout("document vectors", {"starts": "<i8", "term_ids": "<i4", "impacts": "<f4"}, _check_vectors)


@compiled()
def _rescore(
    starts: np.ndarray,
    term_ids: np.ndarray,
    impacts: np.ndarray,
    indptr: np.ndarray,
    query_terms: np.ndarray,
    query_weights: np.ndarray,
    candidate_indptr: np.ndarray,
    candidates: np.ndarray,
    of_term: np.ndarray,
    threshold: np.float32,
    top_k: int,
    rankings: Rankings,
) -> None:
    """Fill in the rankings, as `search_batch` does; `of_term` are (vocab_size,) zeros."""
    keys = np.empty(len(candidates), np.uint64)
    for query in range(len(indptr) - 1):
        span = slice(indptr[query], indptr[query + 1])
        for entry in range(span.start, span.stop):
            of_term[query_terms[entry]] = query_weights[entry]
        size = 0
        for i in range(candidate_indptr[query], candidate_indptr[query + 1]):
            doc, score = candidates[i], np.float32(0)
            for entry in range(starts[doc], starts[doc + 1]):
                score += of_term[term_ids[entry]] * impacts[entry]
            if score > threshold:
                keys[size] = ranking_key(score, doc)
                size += 1
        for entry in range(span.start, span.stop):
            of_term[query_terms[entry]] = 0
        write_ranking(keys[: keep_best(keys, size, top_k)], rankings, query)
