"""The best documents of a first stage, put into the order that a reranker gives them."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np

from splade.datasets.text_collection import TextCollection
from splade.distributed import all_or_none, gather, held_by_first_process, n_processes, on_first_process, process_rank
from splade.encoding.reranker import Reranker
from splade.errors import DataError
from splade.evaluation.checks import Finding
from splade.evaluation.costs import Costs
from splade.progress import progress_bar
from splade.retrieval.fusion import Fusion
from splade.retrieval.protocol import Ranking, Retriever
from splade.retrieval.score_journal import ScoreJournal, WindowScores
from splade.storage.locks import FolderLock

WINDOW_PAIRS = 1024
"""Rows that are tokenised, sorted by length and scored together: what a kill may cost."""
_BOTH = Fusion("convex", normalise="min_max")


@dataclass(frozen=True)
class _Window:
    """Some queries with their rankings; the best documents of these are scored together.

    Attributes:
        texts: query id to the texts of its best documents.
        asked: what the scores are of, to know them again.
    """

    rankings: Mapping[str, Ranking]
    texts: Mapping[str, list[str]]
    asked: str


@dataclass(frozen=True)
class _SharedRankings:
    """What the first stage has found, from when several processes scored it."""

    queries: Mapping[str, str]
    n_asked: int
    rankings: list[tuple[str, Ranking]]


class RerankedRetriever(Retriever):
    """Asks a first stage for documents and lets a reranker order the best of them.

    Args:
        first_stage: what is re-ranked; also a `StoredRun`.
        reranker: gives the scores.
        documents: the texts.
        depth: so many documents per query are re-ranked.
        keep_rest: the others follow in the order of the first stage, for measures that look deeper than `depth`.
        folder: keeps scores until all are there, so that a killed run goes on; None: nowhere.
        first_stage_weight: 0 to 1. Above 0 the order is that of a convex combination of both scores, each between 0
            and 1 for the documents of a query.
    """

    def __init__(
        self,
        first_stage: Retriever,
        reranker: Reranker,
        documents: TextCollection,
        depth: int = 100,
        keep_rest: bool = False,
        folder: Path | None = None,
        first_stage_weight: float = 0.0,
    ):
        self.first_stage = first_stage
        self.reranker = reranker
        self.documents = documents
        self.depth = depth
        self.keep_rest = keep_rest
        self.folder = folder
        self.first_stage_weight = first_stage_weight
        self.name = f"{first_stage.name} + {reranker.name}"
        self._n_queries, self._n_rows, self._seconds = 0, 0, 0.0
        self._shared: _SharedRankings | None = None

    @property
    def tag(self) -> str:
        """Name in TREC runs."""
        return f"{self.first_stage.tag}-reranked"

    def share(self, queries: Mapping[str, str], top_k: int) -> None:
        """Score by all processes, each every n-th window; the first one keeps the scores in `folder`."""
        if n_processes() == 1 or self.folder is None or not queries:
            return
        n_asked = self._n_asked(top_k)
        self.first_stage.share(queries, n_asked)
        rankings = on_first_process(lambda: list(self.first_stage.retrieve(queries, n_asked)))
        self._shared = _SharedRankings(queries, n_asked, rankings)
        journals: list[ScoreJournal] = []

        def begin() -> int:
            journals.append(self._journal())
            windows = enumerate(self._windows(iter(rankings), queries))
            return next((i for i, window in windows if journals[0].read(window.asked) is None), len(queries))

        with held_by_first_process(partial(FolderLock, self.folder)):
            n_done = on_first_process(begin)
            windows = islice(self._windows(iter(rankings), queries), n_done, None)
            with progress_bar("re-ranking", len(queries), "query", n_done * self._queries_per_window) as bar:
                while group := list(islice(windows, n_processes())):
                    began = time.perf_counter()
                    own = group[process_rank() : process_rank() + 1]
                    found = gather(all_or_none(partial(self._scores, own, queries)))
                    seconds = (time.perf_counter() - began) / len(group)
                    for journal in journals:
                        for window, scored in zip(group, chain.from_iterable(found), strict=True):
                            journal.write(window.asked, replace(scored, seconds=seconds))
                    bar.update(sum(len(window.rankings) for window in group))

    def retrieve(self, queries: Mapping[str, str], top_k: int) -> Iterator[tuple[str, Ranking]]:
        """Yield (query_id, {doc_id: score}) for every query, best document first.

        Raises:
            DataError: the first stage names a document that the collection does not have, or a query is too long.
        """
        self._n_queries, self._n_rows, self._seconds = 0, 0, 0.0
        lock = nullcontext() if self.folder is None else FolderLock(self.folder)
        with lock, progress_bar("re-ranking", total=len(queries), unit="query") as bar:
            journal = self._journal()
            for window in self._windows(self._first(queries, self._n_asked(top_k)), queries):
                found = journal.read(window.asked)
                if found is None:
                    [found] = self._scores([window], queries)
                    journal.write(window.asked, found)
                self._count(window, found)
                for query_id, ranking in window.rankings.items():
                    merged = self._merged(ranking, found.scores[query_id])
                    yield query_id, dict(islice(merged.items(), top_k))
                bar.update(len(window.rankings))
            journal.remove()

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

    def _n_asked(self, top_k: int) -> int:
        """Return for how many documents the first stage is asked."""
        return max(top_k, self.depth) if self.keep_rest else min(top_k, self.depth)

    def _first(self, queries: Mapping[str, str], n_asked: int) -> Iterator[tuple[str, Ranking]]:
        """Return what the first stage finds: for the processes that have shared the scoring, or now."""
        shared, self._shared = self._shared, None
        if shared is None or shared.queries is not queries or shared.n_asked != n_asked:
            return iter(self.first_stage.retrieve(queries, n_asked))
        return iter(shared.rankings)

    def _journal(self) -> ScoreJournal:
        settings = {"reranker": self.reranker.settings(), "depth": self.depth, "window": self._queries_per_window}
        return ScoreJournal(self.folder, settings)

    @property
    def _queries_per_window(self) -> int:
        rows = self.depth * (self.depth - 1) if self.reranker.pairwise else self.depth
        return max(1, WINDOW_PAIRS // max(1, rows))

    def _windows(self, rankings: Iterator[tuple[str, Ranking]], queries: Mapping[str, str]) -> Iterator[_Window]:
        while group := dict(islice(rankings, self._queries_per_window)):
            best = {query_id: list(islice(ranking, self.depth)) for query_id, ranking in group.items()}
            texts = {query_id: [self._text(query_id, doc_id) for doc_id in ids] for query_id, ids in best.items()}
            asked = [
                [query_id, queries[query_id], *zip(ids, texts[query_id], strict=True)] for query_id, ids in best.items()
            ]
            yield _Window(group, texts, json.dumps(asked))

    def _scores(self, windows: Iterable[_Window], queries: Mapping[str, str]) -> list[WindowScores]:
        found = []
        for window in windows:
            start = time.perf_counter()
            scores = self.reranker.score(queries, window.texts)
            found.append(WindowScores(scores, time.perf_counter() - start))
        return found

    def _count(self, window: _Window, found: WindowScores) -> None:
        lengths = [len(texts) for texts in window.texts.values()]
        self._n_queries += len(lengths)
        self._n_rows += sum(n * (n - 1) if self.reranker.pairwise else n for n in lengths)
        self._seconds += found.seconds

    def _text(self, query_id: str, doc_id: str) -> str:
        text = self.documents.get(doc_id)
        if text is None:
            raise DataError(
                f"query '{query_id}': the run names the document '{doc_id}', which {self.documents.name} does not "
                "have; give the collection that the run is of"
            )
        return text

    def _merged(self, ranking: Ranking, scores: np.ndarray) -> Ranking:
        """Put the best into their order, equal ones as the first stage did, and append the rest below them."""
        doc_ids = list(ranking)
        order = np.argsort(-scores, kind="stable").tolist()
        merged = {doc_ids[i]: float(scores[i]) for i in order}
        weight = self.first_stage_weight
        if weight > 0:
            best = dict(islice(ranking.items(), len(scores)))
            merged = _BOTH.fuse([best, merged], (weight, 1 - weight))
        rest = doc_ids[len(scores) :] if self.keep_rest else []
        lowest = min(merged.values(), default=0.0)
        return merged | {doc_id: lowest - 1 - i for i, doc_id in enumerate(rest)}
