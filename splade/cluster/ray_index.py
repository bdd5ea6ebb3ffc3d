"""An index whose shards are searched by a Ray actor each, on whatever machines these are."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from splade.cluster.ray_runner import answer, connect, next_done
from splade.cluster.shard_actor import ShardActor
from splade.config.cluster import RayConfig
from splade.inverted_index import InvertedIndex, SearchResults, ShardedIndex
from splade.inverted_index.layout import TermStatistics
from splade.storage.atomic import JsonObject
from splade.vectors import SparseVectors

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

TRIES = 5
"""How often Ray asks a shard again whose actor died, each time a new one, before that is an error."""


class RayIndex(ShardedIndex):
    """An index in shards, or in one file, each searched by an actor that maps it into memory.

    An actor that dies is started again by Ray, on any machine that is left, and asked again. Queries go to all actors
    at once; the caller waits for all of them, so no more than one group of queries is ever under way.

    Args:
        path, shards, metadata: as of `ShardedIndex`.
        keys: which cluster.

    Raises:
        ConfigError: there is no cluster.
    """

    def __init__(self, path: Path, shards: Sequence[InvertedIndex], metadata: JsonObject, keys: RayConfig):
        super().__init__(path, shards, metadata)
        self._ray, self._keys = connect(keys), keys
        # A search uses a processor only while it lasts: actors reserve none, and are spread over the machines.
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": TRIES, "scheduling_strategy": "SPREAD"}
        actor = self._ray.remote(**options)(ShardActor)
        self._actors: list[ActorHandle] = [actor.remote(str(shard.path.absolute())) for shard in self.shards]

    @classmethod
    def of(cls, index: InvertedIndex, keys: RayConfig) -> "RayIndex":
        """Start actors for the shards of an index."""
        shards = index.shards if isinstance(index, ShardedIndex) else [index]
        return cls(index.path, shards, index.metadata, keys)

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _search_shards(
        self, queries: SparseVectors, top_k: int, threshold: float, effort: float, n_threads: int
    ) -> list[SearchResults]:
        """Return what each actor finds, in the order of the shards."""
        terms = np.unique(queries.term_ids)
        known = terms, TermStatistics(self.statistics.largest[terms], self.statistics.counts[terms])
        given = self._ray.put((queries, top_k, threshold, effort, self._keys.cpus))
        asked: list[ObjectRef] = [actor.search.remote(given, known) for actor in self._actors]
        waiting = list(asked)
        while waiting:
            done = next_done(self._ray, waiting, self._keys)
            waiting = [one for one in waiting if one not in done]
        return [cast(SearchResults, answer(self._ray, one)) for one in asked]
