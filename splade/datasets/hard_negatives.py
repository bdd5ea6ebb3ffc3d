"""Training on hard negatives: positives from the judgements, negatives and teacher scores from a score file."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from splade.datasets.qrels import Qrels
from splade.datasets.teacher_scores import TeacherScores
from splade.datasets.text_collection import TextCollection
from splade.datasets.training_sets import TrainingExample, TrainingSet, TrainingSetReport
from splade.errors import ConfigError, DataError

NO_TEXT = "judged queries without a text in the queries file"
NO_POSITIVE = "judged queries without a positive judgement"
NO_POSITIVE_TEXT = "queries without a positive in the collection"
NO_SCORES = "judged queries without any teacher score"
NO_CANDIDATE = "queries without a candidate negative"
REPEATED = "queries have too few candidate negatives and repeat them"
NOT_JUDGED = "scored queries without judgements"
POSITIVE_MISSING = "positives that are not in the collection (their queries have others)"

Incomplete = Literal["error", "leave_out"]


class HardNegatives(TrainingSet):
    r"""One example for every usable query: a positive and `n_negatives` of the other scored documents, at random.

    Candidates for negatives are all scored documents that are not judged relevant; a query with fewer than
    `n_negatives` repeats them. A positive that the teacher did not score gets the query's best score.

    Queries that cannot be used are left out and counted by reason in `report`: without text, without a positive
    judgement, without a positive in the collection, without a candidate, scored but not judged. Two faults point
    at files that do not belong together and are errors unless `incomplete="leave_out"`: a judged query that the score
    file does not know, and a positive missing from the collection while others of its query are there.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from splade.datasets.collections import open_collection
        >>> from splade.datasets.teacher_scores import open_scores
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "docs.tsv").write_text("d1\tone\nd2\ttwo\n")
        >>> _ = (folder / "queries.tsv").write_text("q1\tfirst number\n")
        >>> _ = (folder / "scores.json").write_text('{"q1": {"d1": 9, "d2": 1}}')
        >>> queries, collection = open_collection(folder / "queries.tsv"), open_collection(folder / "docs.tsv")
        >>> scores = open_scores(folder / "scores.json")
        >>> dataset = HardNegatives(scores, {"q1": {"d1": 1}}, queries, collection, n_negatives=1, seed=0)
        >>> example = dataset.example(0)
        >>> example.query, example.positive, example.negatives, example.positive_score, example.negative_scores
        ('first number', 'one', ['two'], 9.0, [1.0])
    """

    def __init__(
        self,
        scores: TeacherScores,
        qrels: Qrels,
        queries: TextCollection,
        collection: TextCollection,
        n_negatives: int,
        seed: int,
        incomplete: Incomplete = "error",
    ):
        """Find the usable queries; texts are read when an example is.

        Args:
            scores: scored documents of every query; a run works as well.
            qrels: judgements; a relevance above 0 is positive.
            queries: texts of the queries.
            collection: texts of the documents.
            n_negatives: negatives of each example, at least 1.
            seed: of all drawing, not negative.
            incomplete: what to do about judged queries without scores and about positives outside the collection.

        Raises:
            ConfigError: `n_negatives` or `seed` is out of range.
            DataError: files that do not belong together, or no query is usable.
        """
        if n_negatives < 1:
            raise ConfigError(f"the number of negatives per query must be at least 1, got {n_negatives}")
        if seed < 0:
            raise ConfigError(f"the seed must not be negative, got {seed}")
        self._scores, self._queries, self._collection = scores, queries, collection
        self._n_negatives, self._seed, self._qrels = n_negatives, seed, qrels
        self.report = TrainingSetReport()
        self._items = [
            (query_id, positives)
            for query_id, positives in _usable_positives(qrels, queries, collection, self.report)
            if _has_candidates(query_id, qrels[query_id], scores, n_negatives, self.report)
        ]
        for query_id in scores.query_ids:
            if query_id not in qrels:
                self.report.leave_out(NOT_JUDGED, query_id)
        if incomplete == "error":
            self.report.refuse(NO_SCORES, scores.name)
            self.report.refuse(POSITIVE_MISSING, collection.name)
        self.report.n_examples = len(self._items)
        if not self._items:
            raise DataError(f"{scores.name}: no query can be used for training\n{self.report}")

    @property
    def query_ids(self) -> list[str]:
        """The query of each example."""
        return [query_id for query_id, _ in self._items]

    def __len__(self) -> int:
        return len(self._items)

    def example(self, index: int, draw: int = 0) -> TrainingExample:
        """Return query `index` with a positive and negatives drawn by (seed, draw, index).

        Raises:
            DataError: a drawn negative is not in the collection.
        """
        query_id, positives = self._items[index]
        random = np.random.default_rng((self._seed, draw, index))
        positive = positives[random.integers(len(positives))]
        doc_ids, scores = self._scores[query_id]
        negatives = _draw(_candidates(doc_ids, self._qrels[query_id]), self._n_negatives, random)
        positive_score = scores[doc_ids.index(positive)] if positive in doc_ids else scores.max()
        return TrainingExample(
            query=self._queries.text(query_id),
            positive=self._collection.text(positive),
            negatives=[self._negative_text(query_id, doc_ids[place]) for place in negatives],
            positive_score=float(positive_score),
            negative_scores=[float(scores[place]) for place in negatives],
        )

    def _negative_text(self, query_id: str, doc_id: str) -> str:
        try:
            return self._collection.text(doc_id)
        except DataError as error:
            raise DataError(f"{self._scores.name}: query '{query_id}': document '{doc_id}': {error}") from error


def _usable_positives(
    qrels: Qrels, queries: TextCollection, collection: TextCollection, report: TrainingSetReport
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (query id, its positives that are in the collection) for queries that have a text and a positive."""
    query_ids = list(qrels)
    doc_ids = list({doc_id for judged in qrels.values() for doc_id, relevance in judged.items() if relevance > 0})
    in_collection = dict(zip(doc_ids, (collection.rows(doc_ids) >= 0).tolist(), strict=True))
    for query_id, has_text in zip(query_ids, queries.rows(query_ids) >= 0, strict=True):
        positives = [doc_id for doc_id, relevance in qrels[query_id].items() if relevance > 0]
        present = tuple(doc_id for doc_id in positives if in_collection[doc_id])
        if not has_text:
            report.leave_out(NO_TEXT, query_id)
        elif not positives:
            report.leave_out(NO_POSITIVE, query_id)
        elif not present:
            report.leave_out(NO_POSITIVE_TEXT, query_id)
        else:
            for doc_id in positives:
                if not in_collection[doc_id]:
                    report.leave_out(POSITIVE_MISSING, f"{doc_id}' of the query '{query_id}")
            yield query_id, present


def _has_candidates(
    query_id: str, judged: dict[str, int], scores: TeacherScores, n_negatives: int, report: TrainingSetReport
) -> bool:
    if query_id not in scores or scores.n_documents(query_id) == 0:
        report.leave_out(NO_SCORES, query_id)
        return False
    # Most queries have far more candidates than are needed: only the others are read.
    if scores.n_documents(query_id) - len(judged) >= n_negatives:
        return True
    n_candidates = len(_candidates(scores[query_id][0], judged))
    if n_candidates == 0:
        report.leave_out(NO_CANDIDATE, query_id)
    elif n_candidates < n_negatives:
        report.remark(REPEATED, query_id)
    return n_candidates > 0


def _candidates(doc_ids: list[str], judged: dict[str, int]) -> np.ndarray:
    """Return the places of the documents that are not judged relevant."""
    return np.flatnonzero([judged.get(doc_id, 0) <= 0 for doc_id in doc_ids])


def _draw(candidates: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """Draw `n` candidates, each as often as the others, or once more: without replacement where there are enough."""
    repetitions, rest = divmod(n - 1, len(candidates))
    drawn: np.ndarray = random.choice(candidates, rest + 1, replace=False)
    return np.concatenate([np.tile(candidates, repetitions), drawn])
