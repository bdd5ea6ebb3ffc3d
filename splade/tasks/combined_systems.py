"""Systems that are made of other systems, and the one place that knows all of them by name."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from splade.config import Experiment, require
from splade.config.identity import settings_affecting
from splade.config.schema import Affects
from splade.config.sweep import folder_name, index_affects, swept_settings
from splade.datasets.beir import open_beir
from splade.datasets.dataset import Dataset
from splade.errors import ConfigError, nearest
from splade.evaluation.checks import Finding
from splade.retrieval.fusion import FusedRetriever, Fusion, Weights
from splade.retrieval.fusion_weights import learn_weights
from splade.retrieval.protocol import Retriever
from splade.retrieval.reranked import RerankedRetriever
from splade.tasks.fuse import weights_in_order
from splade.tasks.rerank import open_reranker
from splade.tasks.systems import (
    Bm25System,
    DenseSystem,
    ImportedSystem,
    MilvusSystem,
    SeismicSystem,
    SparseSystem,
    System,
)

logger = logging.getLogger(__name__)

RETRIEVERS = ("sparse", "bm25", "dense", "milvus", "seismic", "fuse", "rerank")


class FusedSystem(System):
    """Several systems, whose rankings are fused; weights may be learned from another split of the data set."""

    def __init__(self, experiment: Experiment, swept: Mapping[str, str]):
        self._experiment, self._fuse = experiment, experiment.fuse
        names = self._fuse.retrievers
        if len(names) < 2 or len(set(names)) < len(names) or "fuse" in names:
            raise ConfigError(
                f"fuse.retrievers={names}: two or more different ones are fused, of sparse, bm25, dense, "
                "package.module:Class"
            )
        if "rerank" in names and experiment.rerank.first_stage == "fuse":
            raise ConfigError(
                "fuse.retrievers has rerank, and rerank.first_stage=fuse: each would be made of the other. To fuse a "
                "reranker with the fusion that it re-ranks: retriever=rerank rerank.first_stage=fuse "
                "rerank.first_stage_weight=0.5"
            )
        self._systems = [open_system(replace(experiment, retriever=name), swept) for name in names]
        method = {"rrf": "RRF", "convex": "convex"}[self._fuse.method]
        learned = ", weights learned" if self._fuse.weights == "learn" else ""
        own = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self._swept(swept).items())
        parts = " + ".join(system.label for system in self._systems)
        self.label = f"{method}({parts}{learned}{', ' + own if own else ''})"
        folder = "_".join(["fuse", self._fuse.method, *(name.replace(":", ".") for name in names)])
        suffix = folder_name(swept, Affects.FUSION | Affects.DENSE | Affects.INDEX)
        self.folder_name = "__".join([folder, *(["learned"] if learned else []), *([suffix] if suffix else [])])

    @staticmethod
    def _swept(swept: Mapping[str, str]) -> dict[str, str]:
        return swept_settings(swept, Affects.FUSION)

    def settings(self, dataset: Dataset) -> dict[str, object] | None:
        """Return those of each system, and how they are fused."""
        fusion = settings_affecting(self._experiment, Affects.FUSION)
        each = {system.label: system.settings(dataset) for system in self._systems}
        if None in each.values():
            return None
        judged = self._judged(dataset).identity if self._fuse.weights == "learn" else None
        return {"fusion": fusion, "systems": each, "learned_from": judged} | dataset.identity

    def build(self, dataset: Dataset, index_dir: Path) -> tuple[Retriever, list[Finding]]:
        """Build each system, and learn weights where that is asked for."""
        built = [system.build(dataset, index_dir) for system in self._systems]
        retrievers, findings = [retriever for retriever, _ in built], [one for _, found in built for one in found]
        fusion = Fusion(self._fuse.method, self._fuse.k, self._fuse.normalise)
        if self._fuse.weights == "learn":
            return FusedRetriever(retrievers, fusion, self._learned(dataset, retrievers, fusion)), findings
        weights_given = weights_in_order(self._fuse.weights, self._fuse.retrievers)
        return FusedRetriever(retrievers, fusion, weights_given), findings

    def _judged(self, dataset: Dataset) -> Dataset:
        """Open the split that weights are learned from."""
        split, beir = self._fuse.split, self._experiment.beir
        if split == dataset.split:
            raise ConfigError(f"fuse.split={split}: weights cannot be learned from the split that is evaluated")
        return open_beir(dataset.name, str(beir.dataset_path), split, beir.url)[0]

    def _learned(self, dataset: Dataset, retrievers: list[Retriever], fusion: Fusion) -> Weights:
        judged = self._judged(dataset)
        queries = dict(list(judged.queries.items())[: self._fuse.n_queries])
        runs = [dict(retriever.retrieve(queries, self._experiment.config.top_k)) for retriever in retrievers]
        qrels = {query_id: (judged.qrels or {})[query_id] for query_id in queries}
        learned = learn_weights(runs, qrels, fusion, self._fuse.metric)
        logger.info("%s (%s): %s", dataset.name, judged.split, learned)
        return learned.weights


class RerankedSystem(System):
    """A system whose best documents a reranker puts into another order; what is below follows as it was."""

    def __init__(self, experiment: Experiment, swept: Mapping[str, str]):
        self._experiment, self._rerank = experiment, experiment.rerank
        if self._rerank.first_stage == "rerank":
            raise ConfigError("rerank.first_stage=rerank: give what is re-ranked, such as bm25, sparse, dense or fuse")
        self._first = open_system(replace(experiment, retriever=self._rerank.first_stage), swept)
        require(experiment, "rerank.model_type_or_dir")
        self._reranker = open_reranker(experiment, str(self._rerank.model_type_or_dir), self._rerank.max_length)
        weight = self._rerank.first_stage_weight
        fused = f", first stage {weight:g}" if weight else ""
        self.label = f"{self._first.label} + {self._reranker.name}, top {self._rerank.depth}{fused}"
        first = self._first.folder_name or self._rerank.first_stage
        suffix = folder_name(swept, Affects.RERANKING | Affects.FUSION | Affects.DENSE | Affects.INDEX)
        self.folder_name = "__".join([f"rerank_{first}", *([suffix] if suffix else [])])

    def settings(self, dataset: Dataset) -> dict[str, object] | None:
        """Return those of the first stage, of the reranker, and how deep it goes."""
        first, keys = self._first.settings(dataset), self._rerank
        if first is None:
            return None
        own = {"reranker": self._reranker.settings(), "depth": keys.depth, "weight": keys.first_stage_weight}
        return {"first": first} | own | dataset.identity

    def build(self, dataset: Dataset, index_dir: Path) -> tuple[Retriever, list[Finding]]:
        """Build the first stage; scores are kept beside the index until all are there."""
        first, findings = self._first.build(dataset, index_dir)
        folder, keys = index_dir / self.folder_name, self._rerank
        reranked = RerankedRetriever(
            first, self._reranker, dataset.documents, keys.depth, True, folder, keys.first_stage_weight
        )
        return reranked, findings


def open_system(experiment: Experiment, swept: Mapping[str, str]) -> System:
    """Return the system that `retriever` names.

    Raises:
        ConfigError: there is no such one.
    """
    if experiment.retriever == "sparse":
        return SparseSystem(experiment, swept_settings(swept, index_affects(experiment) | Affects.SEARCH))
    if experiment.retriever == "milvus":
        return MilvusSystem(experiment, swept_settings(swept, index_affects(experiment) | Affects.SEARCH))
    if experiment.retriever == "seismic":
        return SeismicSystem(experiment, swept_settings(swept, index_affects(experiment) | Affects.SEARCH))
    if experiment.retriever == "bm25":
        return Bm25System(experiment, swept)
    if ":" in experiment.retriever:
        return ImportedSystem(experiment.retriever)
    if experiment.retriever == "dense":
        return DenseSystem(experiment, swept)
    if experiment.retriever == "fuse":
        return FusedSystem(experiment, swept)
    if experiment.retriever == "rerank":
        return RerankedSystem(experiment, swept)
    raise ConfigError(
        f"retriever={experiment.retriever}{nearest(experiment.retriever, RETRIEVERS)}; allowed are "
        f"{', '.join(RETRIEVERS)}, package.module:Class"
    )
