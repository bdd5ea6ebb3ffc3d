"""The retrieval engines that `bench_retrieval.py` compares; `build` is ours, for other comparison scripts as well."""

import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numba
import numpy as np
import scipy.sparse

from splade.inverted_index import IndexBuilder, InvertedIndex
from splade.inverted_index.two_step import TwoStepIndex
from splade.vectors import SparseVectors


class ArrayIndex:
    """An index in a temporary folder, which goes when the object does."""

    def __init__(self, documents: SparseVectors) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="splade-index-")
        self.index = build_index(documents, Path(self._folder.name))

    def search(self, term_ids: np.ndarray, weights: np.ndarray, k: int, effort: float = 1.0) -> np.ndarray:
        """Return the numbers of the best k documents, best first."""
        query = SparseVectors(np.array([0, len(term_ids)]), term_ids, weights, self.index.vocab_size)
        return self.index.search(query, top_k=k, effort=effort).doc_idx


def build(indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, vocab_size: int) -> ArrayIndex:
    """Build an index on disk, from the arrays of a CSR matrix to the finished file, and open it."""
    return ArrayIndex(SparseVectors(indptr, indices, data, vocab_size))


def build_index(documents: SparseVectors, folder: Path) -> InvertedIndex:
    """Build an index in a folder and open it; a document's id is its number."""
    builder = IndexBuilder(folder, documents.vocab_size)
    builder.add([str(number) for number in range(len(documents))], documents)
    builder.finish()
    return InvertedIndex.open(folder)


class RetrievalEngine(ABC):
    """A retrieval engine: the constructor builds its index, `search` answers one query."""

    name: ClassVar[str]
    needs: ClassVar[Sequence[str]] = ()
    install: ClassVar[str] = ""
    settings: ClassVar[Sequence[dict[str, float]]] = ({},)

    @abstractmethod
    def __init__(self, documents: SparseVectors, folder: Path) -> None:
        """Build the index; files go to `folder`."""

    def prepare(self, term_ids: np.ndarray, weights: np.ndarray) -> Any:
        """Return the query in the engine's own form; not timed."""
        return term_ids, weights

    @abstractmethod
    def search(self, query: Any, k: int, **setting: float) -> Any:
        """Return the engine's own form of the best k documents; timed."""

    def numbers(self, found: Any) -> list[int]:
        """Return document numbers; not timed."""
        return [int(number) for number in found]


class Splade(RetrievalEngine):
    """This toolkit."""

    name = "splade"
    settings = tuple({"effort": effort} for effort in (1.0, 0.7, 0.6, 0.55, 0.5))

    def __init__(self, documents: SparseVectors, folder: Path) -> None:
        self.index = build_index(documents, folder)

    def prepare(self, term_ids: np.ndarray, weights: np.ndarray) -> SparseVectors:  # noqa: D102
        return SparseVectors(np.array([0, len(term_ids)]), term_ids, weights, self.index.vocab_size)

    def search(self, query: SparseVectors, k: int, **setting: float) -> np.ndarray:  # noqa: D102
        return self.index.search(query, k, effort=setting["effort"]).doc_idx


class SpladeTwoStep(Splade):
    """This toolkit, in two steps."""

    name = "splade-two-step"
    settings = tuple(
        {"document_terms": of_documents, "query_terms": of_queries, "candidates": candidates}
        for of_documents, of_queries, candidates in ((50, 8, 50), (50, 10, 100), (50, 15, 200))
    )

    def __init__(self, documents: SparseVectors, folder: Path) -> None:
        super().__init__(documents, folder)
        self.steps = {
            tuple(setting.values()): TwoStepIndex.beside(self.index, *setting.values()) for setting in self.settings
        }

    def search(self, query: SparseVectors, k: int, **setting: float) -> np.ndarray:  # noqa: D102
        return self.steps[tuple(setting.values())].search(query, k).doc_idx


@numba.njit(nogil=True)
def _add_lists(  # type: ignore[no-untyped-def]
    starts, docs, weights, terms, query_weights, n_docs
):
    scores = np.zeros(n_docs, np.float32)
    for i in range(len(terms)):
        for posting in range(starts[terms[i]], starts[terms[i] + 1]):
            scores[docs[posting]] += query_weights[i] * weights[posting]
    return scores


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the positions of the k highest positive scores, best first."""
    hits = np.flatnonzero(scores > 0)
    if len(hits) > k:
        hits = hits[np.argpartition(-scores[hits], k)[:k]]
    return hits[np.argsort(-scores[hits], kind="stable")]


class Exhaustive(RetrievalEngine):
    """A compiled loop over all posting lists of a query."""

    name = "exhaustive"

    def __init__(self, documents: SparseVectors, folder: Path) -> None:
        order = np.argsort(documents.term_ids, kind="stable")
        self.docs = np.repeat(np.arange(len(documents), dtype=np.int32), documents.lengths)[order]
        self.weights = documents.weights[order]
        self.starts = np.zeros(documents.vocab_size + 1, np.int64)
        np.cumsum(np.bincount(documents.term_ids, minlength=documents.vocab_size), out=self.starts[1:])
        self.n_docs = len(documents)

    def search(self, query: Any, k: int, **setting: float) -> np.ndarray:  # noqa: D102
        terms, weights = query
        return _best(_add_lists(self.starts, self.docs, self.weights, terms, weights, self.n_docs), k)


class SciPy(RetrievalEngine):
    """The product of a sparse matrix and the query."""

    name = "scipy"

    def __init__(self, documents: SparseVectors, folder: Path) -> None:
        shape = (len(documents), documents.vocab_size)
        arrays = (documents.weights, documents.term_ids, documents.indptr)
        self.matrix = scipy.sparse.csr_matrix(arrays, shape).T.tocsr()

    def prepare(self, term_ids: np.ndarray, weights: np.ndarray) -> scipy.sparse.csr_matrix:  # noqa: D102
        rows = np.zeros(len(term_ids), np.int32)
        return scipy.sparse.csr_matrix((weights, (rows, term_ids)), (1, self.matrix.shape[0]))

    def search(self, query: scipy.sparse.csr_matrix, k: int, **setting: float) -> np.ndarray:  # noqa: D102
        return _best((query @ self.matrix).toarray()[0], k)


class SpladeIndex(RetrievalEngine):
    """The exhaustive kernel of splade-index, given the vectors in place of a model and texts."""

    name = "splade-index"
    needs = ("splade_index",)
    install = "splade-index"

    def __init__(self, documents: SparseVectors, folder: Path) -> None:
        from splade_index.numba.retrieve_utils import _retrieve_numba_functional

        shape = (len(documents), documents.vocab_size)
        arrays = (documents.weights, documents.term_ids, documents.indptr)
        matrix = scipy.sparse.csr_matrix(arrays, shape).tocsc()
        self.lists = {
            "data": matrix.data,
            "indices": matrix.indices.astype(np.int32),
            "indptr": matrix.indptr.astype(np.int32),
            "num_docs": len(documents),
        }
        self.retrieve = _retrieve_numba_functional

    def search(self, query: Any, k: int, **setting: float) -> Any:  # noqa: D102
        terms, weights = query
        k = min(k, self.lists["num_docs"])
        return self.retrieve([terms], [weights], self.lists, k=k, show_progress=False)

    def numbers(self, found: Any) -> list[int]:  # noqa: D102
        (numbers,), (scores,) = found
        return [int(number) for number in numbers[scores > 0]]


class Seismic(RetrievalEngine):
    """Seismic, with the build parameters of its README; approximate."""

    name = "seismic"
    needs = ("seismic",)
    install = "pyseismic-lsr"
    settings = tuple(
        {"query_cut": cut, "heap_factor": heap} for cut, heap in ((5, 0.9), (8, 0.85), (10, 0.8), (20, 0.7))
    )

    def __init__(self, documents: SparseVectors, folder: Path) -> None:
        import seismic

        self.string_type = seismic.get_seismic_string()
        path = folder / "documents.jsonl"
        with open(path, "w") as file:
            for number, (terms, weights) in enumerate(documents):
                vector = dict(zip(map(str, terms.tolist()), np.round(weights.astype(float), 5).tolist(), strict=True))
                file.write(json.dumps({"id": number, "content": "", "vector": vector}) + "\n")
        options = {"n_postings": 3500, "centroid_fraction": 0.1, "summary_energy": 0.4}
        self.index = seismic.SeismicIndex.build(str(path), load_content=False, num_threads=1, **options)

    def prepare(self, term_ids: np.ndarray, weights: np.ndarray) -> Any:  # noqa: D102
        return np.array([str(term) for term in term_ids], dtype=self.string_type), weights

    def search(self, query: Any, k: int, **setting: float) -> Any:  # noqa: D102
        return self.index.search("0", *query, k, int(setting["query_cut"]), setting["heap_factor"])

    def numbers(self, found: Any) -> list[int]:  # noqa: D102
        return [int(number) for _, _, number in found]


class Bmp(RetrievalEngine):
    """Block-max pruning on 8-bit weights."""

    name = "bmp"
    needs = ("bmp",)
    install = "bmp"
    settings = ({"alpha": 1.0}, {"alpha": 0.8})

    def __init__(self, documents: SparseVectors, folder: Path) -> None:
        import bmp

        levels = np.maximum(1, np.rint(documents.weights * (255 / documents.weights.max()))).astype(int)
        indexer = bmp.Indexer(str(folder / "bmp"), bsize=32, compress_range=False)
        for number in range(len(documents)):
            span = slice(documents.indptr[number], documents.indptr[number + 1])
            terms = map(str, documents.term_ids[span].tolist())
            indexer.add_document(str(number), dict(zip(terms, levels[span].tolist(), strict=True)))
        indexer.finish()
        self.searcher = bmp.Searcher(str(folder / "bmp"))

    def prepare(self, term_ids: np.ndarray, weights: np.ndarray) -> dict[str, float]:  # noqa: D102
        return {str(term): float(weight) for term, weight in zip(term_ids, weights, strict=True)}

    def search(self, query: dict[str, float], k: int, **setting: float) -> Any:  # noqa: D102
        return self.searcher.search(query, k=k, alpha=setting["alpha"], beta=1.0)[0]


class Sindi(RetrievalEngine):
    """SINDI, the sparse index of VSAG, on float32 weights; exact without query pruning."""

    name = "sindi"
    needs = ("pyvsag",)
    install = "pyvsag"
    settings = ({"query_prune_ratio": 0.0}, {"query_prune_ratio": 0.3})

    def __init__(self, documents: SparseVectors, folder: Path) -> None:
        import pyvsag

        pyvsag.set_logger_off()
        parameters = {"term_id_limit": documents.vocab_size, "window_size": 50_000, "doc_prune_ratio": 0.0}
        parameters |= {"use_reorder": False, "use_quantization": False}
        kind = {"dtype": "sparse", "metric_type": "ip", "dim": documents.vocab_size, "index_param": parameters}
        self.index = pyvsag.Index("sindi", json.dumps(kind))
        arrays = (documents.indptr.astype(np.uint32), documents.term_ids.astype(np.uint32), documents.weights)
        self.index.build(*arrays, np.arange(len(documents), dtype=np.int64))
        self.options = {
            setting["query_prune_ratio"]: json.dumps({"sindi": {**setting, "term_prune_ratio": 0.0, "n_candidate": 0}})
            for setting in self.settings
        }

    def prepare(self, term_ids: np.ndarray, weights: np.ndarray) -> Any:  # noqa: D102
        return np.array([0, len(term_ids)], np.uint32), term_ids.astype(np.uint32), np.ascontiguousarray(weights)

    def search(self, query: Any, k: int, **setting: float) -> Any:  # noqa: D102
        return self.index.knn_search(*query, k, self.options[setting["query_prune_ratio"]])

    def numbers(self, found: Any) -> list[int]:  # noqa: D102
        numbers = next(np.ravel(array) for array in found if np.asarray(array).dtype.kind in "iu")
        return [int(number) for number in numbers if number >= 0]


ENGINES: list[type[RetrievalEngine]] = [Exhaustive, Splade, SpladeTwoStep, SciPy, SpladeIndex, Seismic, Bmp, Sindi]
