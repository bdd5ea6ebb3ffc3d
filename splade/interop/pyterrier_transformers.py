"""PyTerrier transformers (https://pyterrier.readthedocs.io): encoders, indexer, search and scorer for its pipelines.

A vector is a dictionary of token to weight in the columns `toks` of documents and `query_toks` of queries, which the
engines of PyTerrier take, too. Tokens that an engine would split have names of their own, as for Anserini.
"""

import uuid
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError, DataError, shown
from splade.interop.anserini import unambiguous_tokens
from splade.interop.vector_groups import AT_ONCE, Group
from splade.retrieval.collection_index import Index
from splade.retrieval.sparse import SparseRetriever
from splade.retrieval.vector_index import index_vectors
from splade.vectors import SparseVectors

try:
    import pyterrier as pt
except ImportError as error:
    raise ConfigError("PyTerrier transformers need PyTerrier: pip install 'splade[pyterrier]'") from error

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, object]


class Vocabulary:
    """Vectors as dictionaries of token to weight, and back."""

    def __init__(self, model: SparseModel):
        self._names = unambiguous_tokens(model.tokens)
        self._terms = {name: term for term, name in enumerate(self._names)}

    def as_dicts(self, vectors: SparseVectors) -> list[dict[str, float]]:
        """Return the vectors as dictionaries, in the order of the vocabulary."""
        rows = ((terms.tolist(), weights.tolist()) for terms, weights in vectors)
        return [dict(zip((self._names[term] for term in terms), weights, strict=True)) for terms, weights in rows]

    def as_vectors(self, dicts: Iterable[dict[str, float]]) -> SparseVectors:
        """Return dictionaries as vectors.

        Raises:
            DataError: a token is not in the vocabulary.
        """
        rows = []
        for bag in dicts:
            unknown = next((token for token in bag if token not in self._terms), None)
            if unknown is not None:
                raise DataError(f"the token {shown(unknown)} is not in the model's vocabulary: another model made it")
            terms = np.array([self._terms[token] for token in bag], np.int32)
            order = np.argsort(terms)
            rows.append((terms[order], np.fromiter(bag.values(), np.float32, len(bag))[order]))
        return SparseVectors.from_rows(rows, len(self._names))


class QueryEncoder(pt.Transformer):
    """Adds `query_toks`, the vector of `query`, to a frame of queries."""

    def __init__(self, model: SparseModel):
        self.model = model
        self._vocabulary = Vocabulary(model)

    def transform(self, queries: "pd.DataFrame") -> "pd.DataFrame":
        """Return the frame with the column `query_toks`."""
        pt.validate.columns(queries, includes=["query"])
        return queries.assign(query_toks=self._vocabulary.as_dicts(self.model.encode_queries(queries["query"])))


class DocumentEncoder(pt.Transformer):
    """Adds `toks`, the vector of a text, to a frame of documents.

    Args:
        model: encodes.
        field: column of the text.
    """

    def __init__(self, model: SparseModel, field: str = "text"):
        self.model = model
        self.field = field
        self._vocabulary = Vocabulary(model)

    def transform(self, documents: "pd.DataFrame") -> "pd.DataFrame":
        """Return the frame with the column `toks`."""
        pt.validate.columns(documents, includes=[self.field])
        return documents.assign(toks=self._vocabulary.as_dicts(self.model.encode_documents(documents[self.field])))


class SpladeIndexer(pt.Indexer):
    """Builds an index of documents, {"docno", "text"} or {"docno", "toks"}, in constant memory.

    Args:
        folder: of the index.
        model: encodes texts; the model of the vectors in `toks`.
        field: column of the text.
        overwrite: replace an index that is there.
    """

    def __init__(self, folder: str | Path, model: SparseModel, field: str = "text", overwrite: bool = False):
        self.folder = Path(folder)
        self.model = model
        self.field = field
        self.overwrite = overwrite

    def index(self, iter: Iterable[Row], **kwargs: object) -> "SpladeSearch":  # noqa: A002  # PyTerrier's name
        """Index all documents and return the transformer that searches them."""
        rows = iter.__iter__()
        first = next(rows, None)
        if first is None:
            raise DataError("no documents to index")
        documents = chain([first], rows)
        if "toks" in first:
            source = _Encoded(documents, Vocabulary(self.model))
            length = self.model.documents.max_length
            index_vectors(self.folder, self.model, source, self.model.fingerprint.as_dict(), length, self.overwrite)
        else:
            pairs = ((str(row["docno"]), str(row[self.field])) for row in documents)
            Index.build(self.folder, self.model, pairs, self.overwrite)
        return SpladeSearch(self.folder, self.model)


class SpladeSearch(pt.Transformer):
    """Searches an index for a frame of queries, by `query_toks` where the frame has them, else by `query`.

    Args:
        index: an index, or its folder; the model must have made it.
        model: encodes the queries.
        num_results: documents per query.
        effort: 1 is exact.
        n_threads: threads that share the queries; 0: one per core.
    """

    def __init__(
        self,
        index: str | Path | Index,
        model: SparseModel,
        num_results: int = 1000,
        effort: float = 1.0,
        n_threads: int = 0,
    ):
        index = index if isinstance(index, Index) else Index.open(index, model)
        self.num_results = num_results
        self.retriever = SparseRetriever(model, index, effort=effort, n_threads=n_threads)
        self._vocabulary = Vocabulary(model)

    def transform(self, queries: "pd.DataFrame") -> "pd.DataFrame":
        """Return a frame of results: the columns of the queries with `docno`, `score` and `rank`, from 0."""
        has_vectors = "query_toks" in queries.columns
        pt.validate.columns(queries, includes=["qid", "query_toks" if has_vectors else "query"])
        if has_vectors:
            vectors = self._vocabulary.as_vectors(queries["query_toks"])
        else:
            vectors = self.retriever.model.encode_queries(queries["query"])
        found = self.retriever.hits(vectors, self.num_results, n_threads=self.retriever.n_threads)
        places = np.repeat(np.arange(len(queries)), [len(hits) for hits in found])
        left = queries.drop(columns=["docno", "score", "rank"], errors="ignore").iloc[places].reset_index(drop=True)
        columns = {
            "docno": [doc_id for hits in found for doc_id in hits.doc_ids],
            "score": [score for hits in found for score in hits.scores.tolist()],
        }
        return left.assign(**columns, rank=[rank for hits in found for rank in range(len(hits))])


class SpladeScorer(pt.Transformer):
    """Scores the documents of a frame of results by their texts: re-ranks what another engine has found.

    Args:
        model: encodes queries and texts.
        field: column of the text.
    """

    def __init__(self, model: SparseModel, field: str = "text"):
        self.model = model
        self.field = field

    def transform(self, results: "pd.DataFrame") -> "pd.DataFrame":
        """Return the frame with the dot product of query and text as `score`, and the new `rank`."""
        pt.validate.columns(results, includes=["qid", "query", self.field])
        queries = list(dict.fromkeys(results["query"]))
        rows = {query: row for row, query in enumerate(queries)}
        of_queries = self.model.encode_queries(queries).to_scipy()[[rows[query] for query in results["query"]]]
        of_texts = self.model.encode_documents(results[self.field]).to_scipy()
        scores = np.asarray(of_queries.multiply(of_texts).sum(axis=1)).ravel()
        return pt.model.add_ranks(results.drop(columns=["score", "rank"], errors="ignore").assign(score=scores))


class _Encoded:
    """Vectors of an iterator of documents, for `index_vectors`."""

    def __init__(self, documents: Iterator[Row], vocabulary: Vocabulary):
        self.name = f"iterator {uuid.uuid4().hex}"
        self._documents = documents
        self._vocabulary = vocabulary

    def __iter__(self) -> Iterator[Group]:
        while rows := list(islice(self._documents, AT_ONCE)):
            yield [str(row["docno"]) for row in rows], self._vocabulary.as_vectors(row["toks"] for row in rows)  # type: ignore[misc]

    def digest(self) -> str:
        """Return a name that no other iterator has."""
        return self.name
