"""What the server answers, as values that JSON can hold; nothing here knows of HTTP."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from splade.encoding.bag_of_words import bag_of_words
from splade.encoding.sparse_model import SparseModel
from splade.errors import DataError, SpladeError
from splade.inspection.matching import matching_tokens, word_spans
from splade.inspection.traced_text import explain_traced, trace
from splade.inspection.views import ScoreView
from splade.inverted_index.sharded import index_file
from splade.retrieval.collection_index import Index
from splade.retrieval.hits import Hit, Hits
from splade.retrieval.origin import Texts
from splade.retrieval.sparse import SparseRetriever
from splade.server.kept_queries import KeptQueries
from splade.server.requests import ExplainRequest, SearchRequest
from splade.storage.atomic import JsonObject
from splade.vectors import SparseVectors

logger = logging.getLogger(__name__)

SHOWN_CHARACTERS = 700
KEPT_BEGINNINGS = 20_000


@dataclass(frozen=True)
class _State:
    """The index that is searched now; replaced as a whole, so that a request sees one index from start to end."""

    retriever: SparseRetriever
    texts: Texts | None
    made: tuple[int, int, int]
    posting_counts: np.ndarray
    beginnings: dict[str, str | None] = field(default_factory=dict)


class SearchService:
    """Searches an index, and takes the new one when it was built again.

    Safe to use from several threads.

    Args:
        model: encodes queries and texts.
        folder: of the index.
        texts: finds where the texts of an index's documents are; None: answers have no texts.
        opened: opens the index of a folder.
        kept_queries: so many of the last queries are not encoded when they are asked again.

    Raises:
        IndexFileError: no index there, or one of another model.
    """

    def __init__(
        self,
        model: SparseModel,
        folder: Path,
        texts: Callable[[SparseRetriever], Texts | None] = lambda _retriever: None,
        opened: Callable[[Path, SparseModel], Index] = Index.open,
        kept_queries: int = 0,
    ):
        model.network.own_memory()
        self.model = model
        self._opened = opened
        self._texts = texts
        self.folder = folder
        self.queries = KeptQueries(self._encoded_queries, kept_queries)
        self._index_problem: str | None = None
        self._texts_problem: str | None = None
        self._state = self._open()
        self._state.retriever.search("a first query", 10)  # compiles the kernels before anybody waits

    @property
    def retriever(self) -> SparseRetriever:
        """What searches the present index."""
        return self._state.retriever

    @property
    def problem(self) -> str | None:
        """Why an index that was built again could not be taken, or texts are not shown; None: all is well."""
        return self._index_problem or self._texts_problem

    def reload(self) -> bool:
        """Open the index again if its file has changed, and return whether it was; a faulty one is not taken."""
        try:
            made = self._file_state()
            if made == self._state.made:
                self._index_problem = None
                return False
            self._state = self._open()
        except OSError as error:
            self._index_problem = f"{self.folder}: {error.strerror}; the index opened before is searched"
            return False
        except SpladeError as error:
            self._index_problem = f"{error}; the index opened before is searched"
            return False
        self._index_problem = self._texts_problem = None
        logger.info("%s was built again: %d documents", self.folder, len(self.retriever.index))
        return True

    def query_vectors(self, texts: list[str]) -> list[SparseVectors]:
        """Encode queries: one on the path for one, several as a batch."""
        return self.queries.vectors(texts)

    def document_vectors(self, texts: list[str]) -> list[SparseVectors]:
        """Encode documents."""
        vectors = self.model.encode_documents(texts[0] if len(texts) == 1 else texts)
        return [vectors.rows(i, i + 1) for i in range(len(vectors))]

    def answer_many(self, requests: list[SearchRequest]) -> list[bytes | Exception]:
        """Return the answers to several searches as JSON, or what is wrong with one."""
        return [
            answer if isinstance(answer, Exception) else json.dumps(answer, ensure_ascii=False).encode()
            for answer in self.search_many(requests)
        ]

    def search_many(self, requests: list[SearchRequest]) -> list[JsonObject | DataError]:
        """Answer several searches: their queries are encoded together, and those alike are searched together.

        Returns:
            In their order; a DataError where a factor names a token that the query does not have.
        """
        state = self._state
        start = time.perf_counter()
        vectors = self.query_vectors([request.query for request in requests])
        encoding_ms = 1e3 * (time.perf_counter() - start)
        answers: list[JsonObject | DataError] = [{} for _ in requests]
        alike: defaultdict[tuple[int, float], list[tuple[int, SparseVectors]]] = defaultdict(list)
        for place, (request, vector) in enumerate(zip(requests, vectors, strict=True)):
            try:
                alike[request.top_k, request.effort].append((place, self._weighted(vector, request.factors)))
            except DataError as error:
                answers[place] = error
        for (top_k, effort), chosen in alike.items():
            together = SparseVectors.concatenate([weighted for _, weighted in chosen], self.model.vocab_size)
            start = time.perf_counter()
            found = state.retriever.hits(together, top_k, effort)
            times = {"encoding_ms": encoding_ms, "search_ms": 1e3 * (time.perf_counter() - start)}
            for (place, weighted), hits in zip(chosen, found, strict=True):
                read = int(state.posting_counts[weighted.term_ids].sum())
                answers[place] = self._answer(state, requests[place], vectors[place], hits) | times | {"postings": read}
        return answers

    def _answer(self, state: _State, request: SearchRequest, vector: SparseVectors, hits: Hits) -> JsonObject:
        own = set(self.model.queries.input_tokens(request.query))
        return {
            "query": request.query,
            "expansion": [
                {"token": token, "weight": weight, "factor": request.factors.get(token, 1.0), "own": token in own}
                for token, weight in bag_of_words(*vector.row(0), self.model.tokens)
            ],
            "hits": [self._hit(state, hit, request.explain, own) for hit in hits],
            "documents": len(state.retriever.index),
            "exact": request.effort == 1.0,
        }

    def explain(self, request: ExplainRequest) -> JsonObject:
        """Return the terms that made a score, each with the token of the query and of the document that gave it.

        Raises:
            DataError: the index has no such document.
        """
        model, tokens, state = self.model, self.model.tokens, self._state
        text, vector = request.text, None
        if request.doc_id is not None:
            postings = state.retriever.index.postings
            vector = postings.vector(postings.doc_number(request.doc_id))
            text = self._text(state, request.doc_id)
        document = trace(model.documents, tokens, text, vector)
        explanation = explain_traced(trace(model.queries, tokens, request.query), document)
        found = ScoreView(request.query, explanation, model.name).values()
        return found | {"agrees": document.agrees}

    def bags(self, vectors: SparseVectors) -> list[list[dict[str, object]]]:
        """Return vectors as lists of tokens and weights, heaviest first."""
        tokens = self.model.tokens
        return [[{"token": token, "weight": weight} for token, weight in bag_of_words(*row, tokens)] for row in vectors]

    def health(self) -> JsonObject:
        """Tell what is served."""
        retriever = self.retriever
        return {
            "status": "ok" if self.problem is None else "degraded",
            "problem": self.problem,
            "model": self.model.name,
            "documents": len(retriever.index),
            "terms": self.model.vocab_size,
            "texts": self._state.texts is not None,
        }

    def _encoded_queries(self, texts: list[str]) -> SparseVectors:
        return self.model.encode_queries(texts[0] if len(texts) == 1 else texts)

    def _open(self) -> _State:
        made = self._file_state()
        retriever = SparseRetriever(self.model, self._opened(self.folder, self.model), n_threads=1)
        return _State(retriever, self._texts(retriever), made, retriever.index.postings.posting_counts)

    def _file_state(self) -> tuple[int, int, int]:
        state = index_file(self.folder).stat()
        return state.st_ino, state.st_mtime_ns, state.st_size

    def _weighted(self, vector: SparseVectors, factors: Mapping[str, float]) -> SparseVectors:
        if not factors:
            return vector
        term_ids, weights = vector.row(0)
        places = {self.model.tokens[int(term)]: place for place, term in enumerate(term_ids)}
        weights = weights.copy()
        for token, factor in factors.items():
            if token not in places:
                raise DataError(f"factors: the query has no term {token[:40]!r}")
            weights[places[token]] *= np.float32(factor)
        kept = weights > 0
        indptr = np.array([0, int(kept.sum())], vector.indptr.dtype)
        return replace(vector, indptr=indptr, term_ids=term_ids[kept], weights=weights[kept])

    def _hit(self, state: _State, hit: Hit, explain: bool, own: set[str]) -> JsonObject:
        answer: JsonObject = {"rank": hit.rank, "doc_id": hit.doc_id, "score": hit.score}
        text = self._beginning(state, hit.doc_id)
        if text is not None:
            answer["text"] = text
        if explain:
            explanation = hit.explain()
            answer["terms"] = [
                asdict(part) | {"score": part.score, "own": part.token in own} for part in explanation.contributions
            ]
            if text is not None:
                tokenizer = self.model.network.tokenizer
                matching = matching_tokens(explanation)
                marks = [
                    {"start": start, "stop": stop, "own": is_own}
                    for is_own, chosen in ((True, matching & own), (False, matching - own))
                    for start, stop in word_spans(text, chosen, tokenizer)
                ]
                answer["marks"] = _apart(marks)
        return answer

    def _text(self, state: _State, doc_id: str) -> str | None:
        """Return the text of a document; None where it is not known, or cannot be read any more."""
        if state.texts is None:
            return None
        try:
            return state.texts.get(doc_id)
        except (SpladeError, OSError) as error:
            self._texts_problem = f"texts of documents are not shown: {error}"
            return None

    def _beginning(self, state: _State, doc_id: str) -> str | None:
        """Return the beginning of a document's text; those shown lately are kept in memory."""
        kept = state.beginnings
        if doc_id in kept:
            return kept[doc_id]
        text = self._text(state, doc_id)
        if text is not None and len(text) > SHOWN_CHARACTERS:
            text = text[:SHOWN_CHARACTERS] + "…"
        if len(kept) >= KEPT_BEGINNINGS:
            kept.clear()
        if self._texts_problem is None:
            kept[doc_id] = text
        return text


def _apart(marks: list[dict[str, int | bool]]) -> list[dict[str, int | bool]]:
    """Return the marks in their order, of two that overlap the one that begins first."""
    found: list[dict[str, int | bool]] = []
    for mark in sorted(marks, key=lambda mark: (mark["start"], not mark["own"])):
        if not found or mark["start"] >= found[-1]["stop"]:
            found.append(mark)
    return found
