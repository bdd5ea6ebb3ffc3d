"""The best documents of a first stage, put into the order that a reranker gives them."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice, takewhile
from pathlib import Path

import numpy as np

from splade.datasets.text_collection import TextCollection
from splade.encoding.reranker import Reranker
from splade.errors import DataError
from splade.evaluation.checks import Finding
from splade.evaluation.costs import Costs
from splade.retrieval.protocol import Ranking, Retriever
from splade.storage.atomic import JsonObject, read_json_object, write_json
from splade.storage.locks import FolderLock

WINDOW_PAIRS = 4096
"""Rows that are tokenised, sorted by length and scored together: what a kill may cost."""
_DIGEST_LENGTH = 32
SCORES_FILE, STATE_FILE = "scores.part", "scores.json"


class RerankedRetriever(Retriever):
    """Asks a first stage for documents and lets a reranker order the best of them.

    Args:
        first_stage: what is re-ranked; also a `StoredRun`.
        reranker: gives the scores.
        documents: the texts.
        depth: so many documents per query are re-ranked.
        keep_rest: the others follow in the order of the first stage, for measures that look deeper than `depth`.
        folder: keeps scores until all are there, so that a killed run goes on; None: nowhere.
    """

    def __init__(
        self,
        first_stage: Retriever,
        reranker: Reranker,
        documents: TextCollection,
        depth: int = 100,
        keep_rest: bool = False,
        folder: Path | None = None,
    ):
        self.first_stage = first_stage
        self.reranker = reranker
        self.documents = documents
        self.depth = depth
        self.keep_rest = keep_rest
        self.folder = folder
        self.name = f"{first_stage.name} + {reranker.name}"
        self._n_queries, self._n_rows, self._seconds = 0, 0, 0.0

    @property
    def tag(self) -> str:
        """Name in TREC runs."""
        return f"{self.first_stage.tag}-reranked"

    def retrieve(self, queries: Mapping[str, str], top_k: int) -> Iterator[tuple[str, Ranking]]:
        """Yield (query_id, {doc_id: score}) for every query, best document first.

        Raises:
            DataError: the first stage names a document that the collection does not have, or a query is too long.
        """
        self._n_queries, self._n_rows, self._seconds = 0, 0, 0.0
        asked = max(top_k, self.depth) if self.keep_rest else min(top_k, self.depth)
        rows = self.depth * (self.depth - 1) if self.reranker.pairwise else self.depth
        window = max(1, WINDOW_PAIRS // max(1, rows))
        settings = {"reranker": self.reranker.settings(), "depth": asked, "window": window}
        lock = nullcontext() if self.folder is None else FolderLock(self.folder)
        with lock, _Journal(self.folder, settings) as journal:
            rankings = self.first_stage.retrieve(queries, asked)
            while group := dict(islice(rankings, window)):
                for query_id, ranking, scores in self._scored(group, queries, journal):
                    found = self._merged(ranking, scores)
                    yield query_id, dict(islice(found.items(), top_k))

    def costs(self) -> Costs:
        """Return those of the first stage, and those of the last re-ranking."""
        costs, n = self.first_stage.costs(), max(1, self._n_queries)
        return replace(
            costs,
            model=self.name,
            n_queries=self._n_queries or costs.n_queries,
            pairs_per_query=self._n_rows / n,
            reranking_ms_per_query=1e3 * self._seconds / n,
            n_parameters=self.reranker.scorer.n_parameters,
        )

    def findings(self) -> list[Finding]:
        """Return those of the first stage."""
        return self.first_stage.findings()

    def known_doc_ids(self, wanted: Iterable[str]) -> list[str] | None:
        """Return what the first stage says."""
        return self.first_stage.known_doc_ids(wanted)

    def _scored(
        self, rankings: dict[str, Ranking], queries: Mapping[str, str], journal: "_Journal"
    ) -> Iterator[tuple[str, Ranking, np.ndarray]]:
        """Score the best documents of some queries, or take the scores of the journal for the very same ones."""
        best = {query_id: list(islice(ranking, self.depth)) for query_id, ranking in rankings.items()}
        texts = {query_id: [self._text(query_id, doc_id) for doc_id in ids] for query_id, ids in best.items()}
        asked = json.dumps(
            [[query_id, queries[query_id], *zip(ids, texts[query_id], strict=True)] for query_id, ids in best.items()]
        )
        scores = journal.read(asked)
        if scores is None:
            start = time.perf_counter()
            scores = self.reranker.score(queries, texts)
            journal.write(asked, scores, time.perf_counter() - start)
        self._n_queries += len(best)
        self._n_rows += sum(len(ids) * (len(ids) - 1 if self.reranker.pairwise else 1) for ids in best.values())
        self._seconds += journal.seconds
        for query_id, ranking in rankings.items():
            yield query_id, ranking, scores[query_id]

    def _text(self, query_id: str, doc_id: str) -> str:
        text = self.documents.get(doc_id)
        if text is None:
            raise DataError(
                f"query '{query_id}': the run names the document '{doc_id}', which {self.documents.name} does not "
                "have; give the collection that the run is of"
            )
        return text

    def _merged(self, ranking: Ranking, scores: np.ndarray) -> Ranking:
        """Order the best by their scores, equal ones as the first stage did, and append the rest below them."""
        doc_ids = list(ranking)
        order = np.argsort(-scores, kind="stable").tolist()
        merged = {doc_ids[i]: float(scores[i]) for i in order}
        rest = doc_ids[len(scores) :] if self.keep_rest else []
        lowest = float(scores.min()) if len(scores) else 0.0
        return merged | {doc_id: lowest - 1 - i for i, doc_id in enumerate(rest)}


class _Journal:
    """Scores of windows of queries, a line each, in a file that is removed when all is done.

    A window is used again only whole and for the same texts in the same order: batches, and with them the last bits of
    the scores, are those of an undisturbed run. A line begins with a digest of what it holds; what was cut or damaged
    is scored again, with all that follows.
    """

    def __init__(self, folder: Path | None, settings: dict[str, object]):
        self._path = None if folder is None else folder / SCORES_FILE
        self._done: list[JsonObject] = []
        self._next = 0
        self.seconds = 0.0
        if self._path is None:
            return
        state = self._path.with_name(STATE_FILE)
        if not self._path.is_file() or not _same(state, settings):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            write_json(state, settings)
            self._path.touch()
        lines = self._path.read_bytes().splitlines(keepends=True)
        self._done = [json.loads(line[_DIGEST_LENGTH:]) for line in takewhile(_is_whole, lines)]
        self._keep(len(self._done))

    def __enter__(self) -> "_Journal":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._path is not None and kind is None:
            self._path.unlink(missing_ok=True)
            self._path.with_name(STATE_FILE).unlink(missing_ok=True)

    def read(self, asked: str) -> dict[str, np.ndarray] | None:
        """Return the scores of the next window if they are there, for what is asked."""
        if self._next >= len(self._done):
            return None
        found = self._done[self._next]
        if found["asked"] != _digest(asked.encode()):
            self._done = self._done[: self._next]
            self._keep(self._next)
            return None
        self._next += 1
        self.seconds = found["seconds"]
        return {query_id: np.array(values, np.float32) for query_id, values in found["scores"].items()}

    def write(self, asked: str, scores: Mapping[str, np.ndarray], seconds: float) -> None:
        """Append a window."""
        self.seconds = seconds
        self._next += 1
        if self._path is None:
            return
        listed = {query_id: values.tolist() for query_id, values in scores.items()}
        line = json.dumps({"asked": _digest(asked.encode()), "scores": listed, "seconds": seconds}).encode() + b"\n"
        with open(self._path, "ab") as stream:
            stream.write(_digest(line).encode() + line)

    def _keep(self, n_lines: int) -> None:
        """Cut the file after so many lines."""
        if self._path is not None:
            kept = self._path.read_bytes().splitlines(keepends=True)[:n_lines]
            with open(self._path, "rb+") as stream:
                stream.truncate(sum(map(len, kept)))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGEST_LENGTH]


def _is_whole(line: bytes) -> bool:
    return line[:_DIGEST_LENGTH] == _digest(line[_DIGEST_LENGTH:]).encode()


def _same(state: Path, settings: dict[str, object]) -> bool:
    try:
        return read_json_object(state) == settings
    except DataError:
        return False
