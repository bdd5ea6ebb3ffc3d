"""A training set for a collection without judgements: queries made from it, and the documents that they ask for."""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from splade.config import Experiment
from splade.datasets.dataset import Dataset
from splade.datasets.made_queries import KINDS, MadeQuery, QueryMaker, TitledDocument, titled_documents
from splade.datasets.text_collection import TextCollection
from splade.encoding.query_generator import QueryGenerator
from splade.errors import DataError
from splade.storage.atomic import read_json_object, write_json, write_text

logger = logging.getLogger(__name__)

MADE = "made"
DOCUMENTS_FILE, QUERIES_FILE, QRELS_FILE, STATE_FILE = "documents.jsonl", "queries.jsonl", "qrels.json", "made.json"
GENERATED = "generated"


def made_set(experiment: Experiment, collection: TextCollection, folder: Path) -> Dataset:
    """Make at most `adapt.made` queries from at most `adapt.most_documents` documents, or open what is there.

    `folder` takes queries, qrels (each query's own document) and the documents, less the queries cut out of them.

    Raises:
        DataError: nothing in the collection is long enough to be a query.
    """
    settings = experiment.adapt
    state: dict[str, object] = {
        "collection": collection.digest(),
        "made": settings.made,
        "most_documents": settings.most_documents,
        "generator": settings.query_generator,
        "seed": experiment.config.seed,
    }
    if not (folder / STATE_FILE).is_file() or read_json_object(folder / STATE_FILE).get("settings") != state:
        documents = _sampled(collection, settings.most_documents, experiment.config.seed)
        queries, left = _make(documents, experiment)
        if not queries:
            raise DataError(
                f"{collection.name}: no query can be made from its documents: they are too short, or share no words. "
                "Give a query generator (adapt.query_generator) or judged queries"
            )
        _write(folder, queries, left)
        kinds = Counter(query.kind for query in queries)
        write_json(folder / STATE_FILE, {"settings": state, "kinds": kinds, "documents": len(left)})
        logger.info("%d queries made from %d documents: %s", len(queries), len(left), dict(kinds))
    return Dataset.open(f"{MADE}_queries", folder / QUERIES_FILE, folder / QRELS_FILE, folder / DOCUMENTS_FILE, "train")


def _sampled(collection: TextCollection, n: int, seed: int) -> list[TitledDocument]:
    """Return n documents at random, in an order at random; all that has no word in it is left out."""
    rows = np.random.default_rng([seed, 1]).permutation(len(collection))[:n]
    places = {row: place for place, row in enumerate(rows.tolist())}
    taken = {places[row]: document for row, document in enumerate(titled_documents(collection)) if row in places}
    return [taken[place] for place in sorted(taken) if taken[place].joined.strip()]


def _make(documents: list[TitledDocument], experiment: Experiment) -> tuple[list[MadeQuery], list[tuple[str, str]]]:
    """Return the queries and all documents, (id, what is left of the text)."""
    settings, seed = experiment.adapt, experiment.config.seed
    queries: list[MadeQuery] = []
    if settings.query_generator is not None:
        asked = documents[: settings.made // 2]
        generator = QueryGenerator.load(settings.query_generator)
        texts = generator.generate([document.joined for document in asked], seed)
        pairs = zip(asked, texts, strict=True)
        queries = [MadeQuery(document.doc_id, GENERATED, text) for document, text in pairs if text]
    maker = QueryMaker(documents, seed)
    each = min(len(KINDS), -(-(settings.made - len(queries)) // max(1, len(documents))))
    left = [(document.doc_id, document.joined) for document in documents]
    # From the end: those at the beginning have generated queries.
    for place in range(len(documents) - 1, -1, -1):
        wanted = min(each, settings.made - len(queries))
        if wanted <= 0:
            break
        cut, rest = maker.cut(documents[place], wanted)
        queries += cut
        left[place] = documents[place].doc_id, rest
    return queries, left


def _write(folder: Path, queries: list[MadeQuery], documents: list[tuple[str, str]]) -> None:
    query_ids = [f"made-{number}" for number in range(len(queries))]
    write_text(folder / DOCUMENTS_FILE, _json_lines(documents))
    write_text(folder / QUERIES_FILE, _json_lines(zip(query_ids, (query.text for query in queries), strict=True)))
    pairs = zip(query_ids, queries, strict=True)
    write_json(folder / QRELS_FILE, {query_id: {query.doc_id: 1} for query_id, query in pairs})


def _json_lines(texts: Iterable[tuple[str, str]]) -> str:
    return "".join(json.dumps({"_id": text_id, "text": text}, ensure_ascii=False) + "\n" for text_id, text in texts)


def round_trip(dataset: Dataset, found: dict[str, dict[str, float]], depth: int) -> dict[str, dict[str, int]]:
    """Return the qrels of the queries that find their own document among the best `depth` (arXiv 1906.05416).

    Raises:
        DataError: none does.
    """
    qrels = dataset.qrels or {}
    kept = {query_id: own for query_id, own in qrels.items() if set(own) & set(list(found.get(query_id, {}))[:depth])}
    if not kept:
        raise DataError(
            f"none of the {len(qrels)} queries made from the collection finds its own document among the best "
            f"{depth}: nothing can be learned from them; adapt.round_trip looks deeper"
        )
    logger.info("%d of %d made queries find their own document among the best %d", len(kept), len(qrels), depth)
    return kept
