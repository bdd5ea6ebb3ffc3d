"""Task: the words that stand for a text, and those that made a score."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from splade.config import Experiment
from splade.datasets.collections import open_collection, open_queries
from splade.datasets.runs import read_run
from splade.encoding.load_sparse import load
from splade.encoding.sparse_model import SparseModel
from splade.encoding.text_encoder import TextEncoder
from splade.errors import ConfigError, DataError
from splade.evaluation.checks import Finding
from splade.inspection.explanation import Explanation
from splade.inspection.explanation_page import explanation_page
from splade.inspection.term_differences import as_shares, term_differences
from splade.inspection.traced_text import TracedText, explain_traced, trace
from splade.inspection.views import BagView, DifferenceView, ScoreView, View
from splade.reports.summaries import TaskResult
from splade.retrieval.collection_index import Index
from splade.retrieval.origin import Texts
from splade.retrieval.sparse import SparseRetriever
from splade.storage.atomic import write_text
from splade.storage.paths import resolve_path
from splade.tasks.document_texts import texts_of_index
from splade.tasks.model_loading import load_model, load_model_of_index

_SUFFIXES = (".json", ".html")


def explain(experiment: Experiment) -> TaskResult:
    """Show texts as bags of words or, with a query, the terms that made each document's score.

    Of two documents the terms that put the first above the second are shown, too; with explain.other_model what that
    model does otherwise.
    """
    keys = experiment.explain
    files = [Path(file).expanduser() for file in keys.write or ()]
    for file in files:
        if file.suffix not in _SUFFIXES:
            raise ConfigError(f"explain.write: {file}: names end in {' or '.join(_SUFFIXES)}")
    with_index = experiment.config.index_dir is not None
    model, findings = load_model_of_index(experiment) if with_index else load_model(experiment)
    other = None if keys.other_model is None else load(keys.other_model, max_length=model.documents.max_length)
    asked = _Asked(experiment, model)
    query = asked.query
    documents = list(asked.documents())
    if not documents:
        raise ConfigError(
            "nothing to explain: give a text (splade explain 'some text'), explain.file=FILE, or explain.doc_ids=[ID] "
            "with config.index_dir or data.COLLECTION_PATH; with query='...', an index alone will do"
        )
    if query is None:
        views = [view for one in documents for view in _bags(one, model, other, keys.side)]
    else:
        views = [*_scores(query, documents, model), *_compared(query, documents, model, other)]
    for file in files:
        if file.suffix == ".json":
            write_text(file, json.dumps([view.values() for view in views], ensure_ascii=False, indent=1) + "\n")
        else:
            write_text(file, explanation_page(query or "Bags of words", views, keys.top))
    lines = [view.text(keys.top) + "\n" for view in views] + [f"  in {file}" for file in files]
    stale = [one.name for one in documents if not one.traced.agrees]
    if stale:
        message = f"{', '.join(stale[:3])}: the text is not the one that was indexed (changed, or cut elsewhere); the "
        findings = [*findings, Finding("warning", "other-text", message + "tokens named are those of the present text")]
    return TaskResult(text="\n".join(lines), findings=tuple(findings))


@dataclass(frozen=True)
class _Document:
    """A text to look into, what it is called, and its vector, perhaps of an index."""

    name: str
    text: str | None
    traced: TracedText


class _Asked:
    """What the configuration asks to look into."""

    def __init__(self, experiment: Experiment, model: SparseModel):
        self.experiment = experiment
        self.keys = experiment.explain
        self.model = model
        self.ranking: dict[str, float] = {}
        self.query = self._query()

    @cached_property
    def retriever(self) -> SparseRetriever | None:
        """What searches the index, if one is named."""
        folder = self.experiment.config.index_dir
        return None if folder is None else SparseRetriever(self.model, Index.open(folder, self.model))

    @cached_property
    def texts(self) -> Texts | None:
        """Where the texts of documents are found."""
        if self.retriever is not None:
            return texts_of_index(self.experiment, self.retriever)
        path = self.experiment.data.COLLECTION_PATH
        return None if path is None else open_collection(path)

    def _query(self) -> str | None:
        """Return the text of the query, and take over the ranking of the run."""
        keys, query = self.keys, self.experiment.query
        query_id = keys.query_id
        if keys.run is not None:
            place = resolve_path(keys.run)
            run = read_run(place / "run.json" if place.is_dir() else place)
            query_id = next(iter(run)) if query_id is None else query_id
            if query_id not in run:
                raise DataError(f"explain.query_id={query_id}: the run {keys.run} has no such query")
            self.ranking = run[query_id]
        if query is not None or query_id is None:
            return query
        for path in self.experiment.data.Q_COLLECTION_PATH:
            with suppress(DataError):
                if (text := open_queries(path).get(query_id)) is not None:
                    return text
        raise DataError(f"query '{query_id}': not in data.Q_COLLECTION_PATH; give that, or query='its text'")

    def documents(self) -> Iterator[_Document]:
        """Yield what is named; nothing if nothing is."""
        keys, side = self.keys, self._side()
        if keys.text is not None:
            yield _Document(keys.text, keys.text, trace(side, self.model.tokens, keys.text))
        if keys.file is not None:
            for text_id, text in islice(open_collection(keys.file), keys.most):
                yield _Document(f"{text_id}: {text}", text, trace(side, self.model.tokens, text))
        yield from map(self._by_id, self._doc_ids())

    def _side(self) -> TextEncoder:
        as_query = self.query is None and self.keys.side == "query"
        return self.model.queries if as_query else self.model.documents

    def _doc_ids(self) -> list[str]:
        if self.keys.doc_ids is not None:
            return [str(doc_id) for doc_id in self.keys.doc_ids]
        if self.ranking:
            return list(self.ranking)[:2]
        if self.query is None or self.retriever is None or self.keys.text is not None or self.keys.file is not None:
            return []
        return [hit.doc_id for hit in self.retriever.search(self.query, self.keys.most)]

    def _by_id(self, doc_id: str) -> _Document:
        text = None if self.texts is None else self.texts.get(doc_id)
        if self.retriever is not None:
            postings = self.retriever.index.postings
            vector = postings.vector(postings.doc_number(doc_id))
        elif text is None:
            where = "config.index_dir or data.COLLECTION_PATH" if self.texts is None else "data.COLLECTION_PATH"
            raise DataError(f"document '{doc_id}': not found; {where} must have it")
        else:
            vector = None
        name = doc_id if text is None else f"{doc_id}: {text}"
        return _Document(name, text, trace(self.model.documents, self.model.tokens, text, vector))


def _bags(document: _Document, model: SparseModel, other: SparseModel | None, side: str) -> Iterator[View]:
    yield BagView(document.name, document.traced, model.name)
    if other is None:
        return
    if document.text is None:
        raise DataError(f"document '{document.name}': its text is not known, so explain.other_model cannot encode it")
    encoder = other.queries if side == "query" else other.documents
    traced = trace(encoder, other.tokens, document.text)
    yield BagView(document.name, traced, other.name)
    shares = (as_shares({token: weight for token, weight, _ in one.bag()}) for one in (document.traced, traced))
    title = f"shares of all weights: {document.name}"
    yield DifferenceView(title, (model.name, other.name), term_differences(*shares), percent=True)


def _scores(query: str, documents: list[_Document], model: SparseModel) -> Iterator[View]:
    """Yield the score of each document; of exactly two also what puts the first above the second."""
    asked = trace(model.queries, model.tokens, query)
    found = [explain_traced(asked, document.traced) for document in documents]
    for document, explanation in zip(documents, found, strict=True):
        yield ScoreView(f"{query} → {document.name}", explanation, model.name)
    if len(documents) == 2:
        first, second = found
        where = "above" if first.score > second.score else "not above" if first.score < second.score else "level with"
        title = f"why A ({first.score:.3f}) is {where} B ({second.score:.3f}): score of each term"
        names = documents[0].name, documents[1].name
        yield DifferenceView(title, names, term_differences(_by_term(first), _by_term(second)))


def _compared(query: str, documents: list[_Document], model: SparseModel, other: SparseModel | None) -> Iterator[View]:
    """Yield for each document its score by the other model, and the differences of the terms' shares."""
    if other is None:
        return
    asked, asked_other = (trace(one.queries, one.tokens, query) for one in (model, other))
    for document in documents:
        if document.text is None:
            raise DataError(
                f"document '{document.name}': its text is not known, so explain.other_model cannot encode it"
            )
        ours = explain_traced(asked, document.traced)
        theirs = explain_traced(asked_other, trace(other.documents, other.tokens, document.text))
        yield ScoreView(f"{query} → {document.name}", theirs, other.name)
        shares = as_shares(_by_term(ours)), as_shares(_by_term(theirs))
        title = f"shares of the score: {query} → {document.name}"
        yield DifferenceView(title, (model.name, other.name), term_differences(*shares), percent=True)


def _by_term(explanation: Explanation) -> dict[str, float]:
    return {part.token: part.score for part in explanation.contributions}
