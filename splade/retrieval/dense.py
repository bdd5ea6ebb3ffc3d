"""Dense retrieval: an exact search for the largest dot products, block by block."""

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import ModuleType
from typing import Literal

import numpy as np
import torch

from splade.distributed import available_threads
from splade.encoding.dense_model import DenseModel
from splade.errors import ConfigError
from splade.evaluation.costs import Costs
from splade.progress import progress_bar
from splade.retrieval.dense_index import DenseIndex
from splade.retrieval.protocol import Ranking, Retriever

Engine = Literal["matrix", "faiss"]
BLOCK_DOCUMENTS = 16384
"""Documents whose scores are in memory at a time: 32 MB for 512 queries."""


class DenseRetriever(Retriever):
    """Searches dense vectors for queries given as texts; exact, in memory that does not grow with the collection.

    Args:
        model: encodes the queries.
        index: what is searched.
        engine: `matrix`, products of matrices on the model's device; `faiss`, by that library (its `knn`), which does
            not promise which of several documents with the same score it returns.
        n_threads: of the products on a CPU; 0: one per core.

    Raises:
        ConfigError: faiss is not installed.
    """

    def __init__(self, model: DenseModel, index: DenseIndex, engine: Engine = "matrix", n_threads: int = 0):
        self.model = model
        self.index = index
        self.name = model.name
        self.n_threads = available_threads(n_threads)
        self._faiss = faiss_library() if engine == "faiss" else None
        self._costs = Costs(model=self.name, n_docs=len(index), index_bytes=index.vectors.nbytes)

    @property
    def tag(self) -> str:
        """Name in TREC runs."""
        return "dense"

    def retrieve(self, queries: Mapping[str, str], top_k: int) -> Iterator[tuple[str, Ranking]]:
        """Yield (query_id, {doc_id: score}) for every query, in their order, best document first."""
        encoding_s = search_s = 0.0
        query_ids, groups = iter(queries), self.model.stream(queries.values(), "query")
        with progress_bar("searching", total=len(queries), unit="query") as bar:
            while True:
                start = time.perf_counter()
                vectors = next(groups, None)
                encoding_s += time.perf_counter() - start
                if vectors is None:
                    break
                start = time.perf_counter()
                found, scores = self._search(vectors, min(top_k, len(self.index)))
                search_s += time.perf_counter() - start
                for query_id, rows, values in zip(islice(query_ids, len(vectors)), found, scores, strict=True):
                    ids = (self.index.doc_ids[row] for row in rows.tolist())
                    yield query_id, dict(zip(ids, values.tolist(), strict=True))
                bar.update(len(vectors))
        n = max(1, len(queries))
        self._costs = Costs(
            model=self.name,
            n_docs=len(self.index),
            index_bytes=self.index.vectors.nbytes,
            n_queries=len(queries),
            encoding_ms_per_query=1e3 * encoding_s / n,
            search_ms_per_query=1e3 * search_s / n,
            n_threads=self.n_threads,
            top_k=top_k,
        )

    def costs(self) -> Costs:
        """Return the costs of the index and of the last `retrieve`."""
        return self._costs

    def known_doc_ids(self, wanted: Iterable[str]) -> list[str]:
        """Return a few ids of the index, for messages, then those of the wanted ids that it holds."""
        return [*islice(self.index.doc_ids, 3), *sorted(set(self.index.doc_ids).intersection(wanted))]

    def _search(self, queries: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.n_threads)
        try:
            device = next(self.model.encoder.parameters()).device
            return search_dense(queries, self.index.vectors, top_k, device, faiss=self._faiss)
        finally:
            torch.set_num_threads(before)


def search_dense(
    queries: np.ndarray,
    documents: np.ndarray,
    top_k: int,
    device: torch.device | None = None,
    block: int = BLOCK_DOCUMENTS,
    faiss: ModuleType | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the documents with the largest dot products.

    Args:
        queries: (n, dimensions) float32.
        documents: (documents, dimensions) float32; read a block at a time.
        top_k: at most the number of documents.
        device: where products are computed; None: the CPU.
        block: documents in a block.
        faiss: that library, to search each block with.

    Returns:
        (n, top_k) int64 rows and (n, top_k) float32 scores; higher score first, then the document indexed first.
    """
    best_rows = np.zeros((len(queries), 0), np.int64)
    best_scores = np.zeros((len(queries), 0), np.float32)
    on_device = torch.from_numpy(queries).to(device)
    for start in range(0, len(documents), block):
        part = np.array(documents[start : start + block])  # a copy: the mapped file is read-only
        if faiss is not None:
            scores, rows = faiss.knn(queries, part, min(top_k, len(part)), metric=faiss.METRIC_INNER_PRODUCT)
        else:
            scores = (on_device @ torch.from_numpy(part).to(device).T).cpu().numpy()
            rows = _largest(scores, min(top_k, len(part)))
            scores = np.take_along_axis(scores, rows, 1)
        best_rows = np.concatenate([best_rows, rows + start], 1)
        best_scores = np.concatenate([best_scores, scores], 1)
        order = np.argsort(-best_scores, axis=1, kind="stable")[:, :top_k]
        best_rows, best_scores = np.take_along_axis(best_rows, order, 1), np.take_along_axis(best_scores, order, 1)
    return best_rows, best_scores


def _largest(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the columns of the k largest scores of each row, ascending; of equal ones, the first."""
    if k == scores.shape[1]:
        return np.broadcast_to(np.arange(k), scores.shape)
    least = np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k]
    columns = np.empty((len(scores), k), np.int64)
    for row, (own, threshold) in enumerate(zip(scores, least, strict=True)):
        above, equal = np.flatnonzero(own > threshold), np.flatnonzero(own == threshold)
        columns[row] = np.sort(np.concatenate([above, equal[: k - len(above)]]))
    return columns


def faiss_library() -> ModuleType:
    """Import faiss; a ConfigError where it is not installed."""
    try:
        import faiss
    except ImportError as error:
        raise ConfigError("dense.engine=faiss needs the library faiss: pip install faiss-cpu") from error
    return faiss
