"""What a retriever is: anything that ranks documents for queries and knows what that costs."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping

from splade.evaluation.checks import Finding
from splade.evaluation.costs import Costs
from splade.storage.atomic import JsonObject

Ranking = dict[str, float]
"""Document id to score, best document first."""


class Retriever(ABC):
    """Ranks documents for queries: the interface of learned sparse retrieval, BM25, and whatever else is compared.

    A class of one's own only needs `retrieve`; `splade.beir_eval retriever=package.module:Class` makes one of it
    with the corpus as its only argument and evaluates it.

    Attributes:
        name: in tables and messages.

    Example:
        >>> class Alphabetical(Retriever):
        ...     name = "alphabetical"
        ...
        ...     def __init__(self, corpus):
        ...         self.doc_ids = sorted(doc_id for doc_id, _ in corpus)
        ...
        ...     def retrieve(self, queries, top_k):
        ...         for query_id in queries:
        ...             yield query_id, {doc_id: 1 / rank for rank, doc_id in enumerate(self.doc_ids[:top_k], 1)}
        >>> retriever = Alphabetical([("b", "Bees."), ("a", "Ants.")])
        >>> dict(retriever.retrieve({"q1": "which?"}, top_k=2))
        {'q1': {'a': 1.0, 'b': 0.5}}
    """

    name: str = "retriever"

    @property
    def tag(self) -> str:
        """Name in TREC runs, without whitespace."""
        return "_".join(self.name.rstrip("/").rpartition("/")[2].split()) or "retriever"

    @abstractmethod
    def retrieve(self, queries: Mapping[str, str], top_k: int) -> Iterator[tuple[str, Ranking]]:
        """Yield (query_id, {doc_id: score}) for every query, in their order.

        Args:
            queries: query id to text.
            top_k: at most so many documents per query, those with the highest scores.
        """

    def share(self, queries: Mapping[str, str], top_k: int) -> None:
        """Do, together with the other processes, what they can share of the next `retrieve`; by default nothing.

        The first process alone retrieves.
        """
        return

    def costs(self) -> Costs:
        """Return what is known of the costs, those per query over the last `retrieve`."""
        return Costs(model=self.name)

    def query_distribution(self) -> JsonObject | None:
        """Return of the last `retrieve` which terms how many queries had, and how many terms; None without terms."""
        return None

    def findings(self) -> list[Finding]:
        """Return what looks wrong about the last `retrieve`."""
        return []

    def known_doc_ids(self, wanted: Iterable[str]) -> list[str] | None:
        """Return a few ids that can be retrieved, for messages, then those of the wanted ones; None: unknown."""
        return None
