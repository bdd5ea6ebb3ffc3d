"""Several rankings of a query made one: reciprocal rank fusion, or a convex combination of normalised scores."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from splade.errors import ConfigError
from splade.evaluation.costs import Costs
from splade.retrieval.protocol import Ranking, Retriever

Method = Literal["rrf", "convex"]
Normalisation = Literal["min_max", "z_score"]
Weights = tuple[float, ...]


@dataclass(frozen=True)
class Fusion:
    """How the scores of a document in several rankings become one.

    - `rrf`, reciprocal rank fusion (Cormack et al., SIGIR 2009): the sum of `weight / (k + rank)`, ranks from 1, over
      the rankings that have the document.
    - `convex` (arXiv 2210.11934): the sum of `weight * normalised score`; a ranking that lacks the document gives it
      its lowest normalised score. `min_max`: the ranking's scores from 0 to 1 (1 where all are equal); `z_score`: mean
      0, standard deviation 1 (0 where all are equal).

    Attributes:
        method: which of both.
        k: of `rrf`; the larger, the less the first ranks stand out.
        normalise: of `convex`.

    Example:
        >>> lexical, dense = {"a": 9.0, "b": 5.0, "c": 1.0}, {"c": 0.8, "a": 0.6}
        >>> Fusion("convex").fuse([lexical, dense], (0.5, 0.5))
        {'a': 0.5, 'c': 0.5, 'b': 0.25}
    """

    method: Method = "rrf"
    k: int = 60
    normalise: Normalisation = "min_max"

    def fuse(self, rankings: Sequence[Ranking], weights: Sequence[float]) -> Ranking:
        """Return all documents of the rankings, best first; equal scores in the order of the rankings."""
        doc_ids = list(dict.fromkeys(doc_id for ranking in rankings for doc_id in ranking))
        fused = self.parts(rankings, doc_ids) @ np.asarray(weights, dtype=np.float64)
        order = np.argsort(-fused, kind="stable")
        return {doc_ids[i]: float(fused[i]) for i in order.tolist()}

    def parts(self, rankings: Sequence[Ranking], doc_ids: Sequence[str]) -> np.ndarray:
        """Return what each ranking says of each document, (documents, rankings) float64, before it is weighted."""
        parts = np.zeros((len(doc_ids), len(rankings)))
        for column, ranking in enumerate(rankings):
            if ranking:
                own, missing = self._own(np.fromiter(ranking.values(), np.float64, len(ranking)))
                values = dict(zip(ranking, own.tolist(), strict=True))
                parts[:, column] = [values.get(doc_id, missing) for doc_id in doc_ids]
        return parts

    def _own(self, scores: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the values of a ranking's documents, best first, and that of one which it lacks."""
        if self.method == "rrf":
            return 1.0 / (self.k + np.arange(1, len(scores) + 1)), 0.0
        if self.normalise == "min_max":
            spread = scores.max() - scores.min()
            return ((scores - scores.min()) / spread if spread else np.ones_like(scores)), 0.0
        spread = scores.std()
        normalised = (scores - scores.mean()) / spread if spread else np.zeros_like(scores)
        return normalised, float(normalised.min())


class FusedRetriever(Retriever):
    """Several retrievers as one: each is asked for `top_k` documents, and their rankings are fused.

    Args:
        retrievers: what is fused.
        fusion: how.
        weights: one per retriever; None: all the same.
        weights_by_query: other weights for some queries, such as those that were learned without them.

    Raises:
        ConfigError: fewer than two retrievers, or weights that do not fit.

    Example:
        >>> from splade.retrieval.stored_run import StoredRun
        >>> runs = [StoredRun("a", {"q": {"d1": 2.0, "d2": 1.0}}), StoredRun("b", {"q": {"d2": 7.0}})]
        >>> list(dict(FusedRetriever(runs, Fusion("rrf")).retrieve({"q": ""}, top_k=2))["q"])
        ['d2', 'd1']
    """

    def __init__(
        self,
        retrievers: Sequence[Retriever],
        fusion: Fusion,
        weights: Sequence[float] | None = None,
        weights_by_query: Mapping[str, Weights] | None = None,
    ):
        if len(retrievers) < 2:
            raise ConfigError(f"fusion needs two rankings or more, there is {len(retrievers)}")
        self.retrievers = list(retrievers)
        self.fusion = fusion
        self.weights = equal_weights(len(retrievers)) if weights is None else checked_weights(weights, len(retrievers))
        self._weights_by_query = weights_by_query or {}
        parts = ", ".join(retriever.name for retriever in retrievers)
        if len(set(self.weights)) > 1:
            parts += "; weights " + ", ".join(f"{weight:.3g}" for weight in self.weights)
        self.name = f"{fusion.method}({parts})"

    @property
    def tag(self) -> str:
        """Name in TREC runs."""
        return f"{self.fusion.method}-{'-'.join(retriever.tag for retriever in self.retrievers)}"

    def share(self, queries: Mapping[str, str], top_k: int) -> None:
        """Let each share what it can."""
        for retriever in self.retrievers:
            retriever.share(queries, top_k)

    def retrieve(self, queries: Mapping[str, str], top_k: int) -> Iterator[tuple[str, Ranking]]:
        """Yield (query_id, {doc_id: fused score}) for every query, best document first."""
        streams = [retriever.retrieve(queries, top_k) for retriever in self.retrievers]
        for query_id, found in zip(queries, zip(*streams, strict=True), strict=True):
            weights = self._weights_by_query.get(query_id, self.weights)
            fused = self.fusion.fuse([ranking for _, ranking in found], weights)
            yield query_id, dict(list(fused.items())[:top_k])

    def costs(self) -> Costs:
        """Return the sums of what all retrievers know: bytes and milliseconds. Terms are not added up."""
        each = [retriever.costs() for retriever in self.retrievers]

        def added(values: Iterable[float | None]) -> float | None:
            known = list(values)
            return None if None in known else sum(value for value in known if value is not None)

        index_bytes = added(costs.index_bytes for costs in each)
        encoding = [costs.encoding_ms_per_query for costs in each if costs.encoding_ms_per_query is not None]
        return Costs(
            model=self.name,
            n_docs=each[0].n_docs,
            index_bytes=None if index_bytes is None else int(index_bytes),
            n_queries=each[0].n_queries,
            encoding_ms_per_query=sum(encoding) if encoding else None,
            search_ms_per_query=added(costs.search_ms_per_query for costs in each),
            n_threads=max((costs.n_threads for costs in each if costs.n_threads is not None), default=None),
            top_k=min((costs.top_k for costs in each if costs.top_k is not None), default=None),
        )

    def known_doc_ids(self, wanted: Iterable[str]) -> list[str] | None:
        """Return what the first retriever that knows its ids says."""
        wanted = list(wanted)
        answers = (retriever.known_doc_ids(wanted) for retriever in self.retrievers)
        return next((answer for answer in answers if answer is not None), None)


def equal_weights(n: int) -> Weights:
    """Return n weights that add up to 1."""
    return (1.0 / n,) * n


def checked_weights(weights: Sequence[float], n: int) -> Weights:
    """Return n weights, not negative and at least one above zero.

    Raises:
        ConfigError: they are not.
    """
    if len(weights) != n or not all(0 <= weight < np.inf for weight in weights) or not any(weights):
        raise ConfigError(
            f"fuse.weights={list(weights)}: {n} numbers are needed, one per ranking in their order, none negative and "
            "not all zero"
        )
    return tuple(map(float, weights))
