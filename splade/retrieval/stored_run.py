"""A run that exists, of whatever system, as a retriever: it can be fused, re-ranked and evaluated like any other."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from splade.datasets.runs import Run, read_run
from splade.evaluation.costs import Costs
from splade.retrieval.evaluate_retriever import RUN_FILE, stored_costs
from splade.retrieval.protocol import Ranking, Retriever


class StoredRun(Retriever):
    """Ranks as a run does; for a query that the run lacks, nothing is found.

    Example:
        >>> run = StoredRun("bm25", {"q1": {"d1": 3.0, "d2": 1.0}})
        >>> dict(run.retrieve({"q1": "", "q2": ""}, top_k=1))
        {'q1': {'d1': 3.0}, 'q2': {}}
    """

    def __init__(self, name: str, run: Run, costs: Costs | None = None):
        self.name = name
        self.run = run
        self._costs = costs if costs is not None else Costs(model=name)

    @classmethod
    def read(cls, name: str, path: str | Path) -> "StoredRun":
        """Read a run, JSON or TREC, or the one in a folder that `splade.retrieve` wrote, with the costs beside it.

        Raises:
            DataError: there is no run, or it is wrong.
        """
        file = Path(path) / RUN_FILE if (Path(path) / RUN_FILE).is_file() else Path(path)
        return cls(name, read_run(file), stored_costs(file.parent))

    def digest(self) -> str:
        """Return what tells this run from others."""
        lines = (f"{query_id} {list(ranking.items())}" for query_id, ranking in self.run.items())
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def retrieve(self, queries: Mapping[str, str], top_k: int) -> Iterator[tuple[str, Ranking]]:
        """Yield (query_id, {doc_id: score}) for every query, the `top_k` best documents of the run."""
        for query_id in queries:
            yield query_id, dict(list(self.run.get(query_id, {}).items())[:top_k])

    def costs(self) -> Costs:
        """Return the costs that were written with the run."""
        return self._costs
