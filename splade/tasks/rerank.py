"""Task: give the best documents of runs the scores of a reranker."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from splade.config import Experiment
from splade.config.inputs import require_all
from splade.config.processes import processes_to_start
from splade.config.record import save_record
from splade.datasets.dataset import Dataset
from splade.distributed import first_process_first, on_first_process, pick_device
from splade.encoding.reranker import Reranker
from splade.errors import ConfigError, DataError
from splade.evaluation.measures import largest_cut
from splade.evaluation.protocols import TrecProtocol
from splade.models.pair_scorer import load_reranker
from splade.reports.summaries import TaskResult, before_after_table
from splade.retrieval.evaluate_retriever import RUN_FILE, EvaluatedRun, evaluate_shared
from splade.retrieval.reranked import RerankedRetriever
from splade.retrieval.stored_results import finished_result, store_result
from splade.retrieval.stored_run import StoredRun
from splade.storage.paths import check_folder_name
from splade.tasks.evaluation_sets import all_findings
from splade.tasks.model_loading import trained_or_named

logger = logging.getLogger(__name__)

Value = TypeVar("Value")


@dataclass(frozen=True)
class RerankJob:
    """A run to re-rank, the data it is of, and where the result goes."""

    run: StoredRun
    dataset: Dataset
    protocol: TrecProtocol | None
    folder: Path


def rerank(experiment: Experiment) -> TaskResult:
    """Re-rank the runs data.path_run."""
    require_all(experiment, "rerank")
    jobs = first_process_first(lambda: list(open_jobs(experiment)))
    reranker = load_trained_reranker(experiment)
    results = [_rerank(job, reranker, experiment.config.top_k) for job in jobs]
    return on_first_process(lambda: _result(experiment, jobs, results))


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the scoring."""
    return processes_to_start(experiment, trains=False)


def _result(experiment: Experiment, jobs: Sequence[RerankJob], results: Sequence[EvaluatedRun]) -> TaskResult:
    save_record(experiment, Path(str(experiment.config.out_dir)), "rerank")
    blocks = [_table(job, result, experiment.config.top_k) for job, result in zip(jobs, results, strict=True)]
    return TaskResult(text="\n\n".join(blocks), findings=all_findings(results))


def load_trained_reranker(experiment: Experiment) -> Reranker:
    """Load config.checkpoint_dir/model, or with config.pretrained_no_yamlconfig the model that `init_dict` names.

    Raises:
        ConfigError: none is named.
        ModelError: it cannot be loaded.
    """
    return open_reranker(experiment, trained_or_named(experiment), experiment.config.max_length)


def open_reranker(experiment: Experiment, name: str, max_length: int | None) -> Reranker:
    """Load a reranker, with type, prompts, precision and batches as `config` says.

    Raises:
        ModelError: it cannot be loaded.
    """
    run = experiment.config
    loaded = load_reranker(name, run.reranker_type)
    loaded.scorer.to(pick_device())
    precision = torch.bfloat16 if run.bf16 else torch.float16 if experiment.init_dict.fp16 else None
    return Reranker(loaded, max_length, run.index_retrieve_batch_size, run.prompt_q, run.prompt_d, precision)


def open_jobs(experiment: Experiment) -> Iterator[RerankJob]:
    """Open the runs with their data, and check that they belong together, before a model is loaded.

    Raises:
        ConfigError: lists of different lengths, or two runs that would go to one folder.
        DataError: a run names queries or documents that are not there.
    """
    data, run = experiment.data, experiment.config
    paths = _listed(data.path_run)
    n = len(paths)
    names = _each("data.run_name", _listed(data.run_name), n) or _names(paths)
    datasets = _each("data.dataset_name", _listed(data.dataset_name), n) or ["dataset"] * n
    documents = _each("data.document_dir", _listed(data.document_dir), n)
    queries = _each("data.query_dir", _listed(data.query_dir), n)
    qrels = _each("data.EVAL_QREL_PATH", data.EVAL_QREL_PATH, n) or [None] * n
    metrics = _each("config.eval_metric", run.eval_metric, n) or [["nDCG@10"]] * n
    places = list(zip(datasets, names, strict=True))
    for dataset, name in places:
        check_folder_name(name, "data.run_name")
        if places.count((dataset, name)) > 1:
            raise ConfigError(f"two runs would go to {dataset}/{name}: give each its data.run_name")
    for i, (dataset, name) in enumerate(places):
        folder = Path(str(run.out_dir)) / dataset / name / str(run.top_k)
        stored = StoredRun.read(name, paths[i])
        own = _opened(stored, Dataset.open(dataset, queries[i], qrels[i], documents[i]), run.top_k)
        protocol = None if qrels[i] is None else TrecProtocol(_shallow(metrics[i], run.top_k))
        yield RerankJob(stored, own, protocol, folder)


def _opened(run: StoredRun, dataset: Dataset, top_k: int) -> Dataset:
    """Return the data set with the queries of the run; check that all texts are there."""
    unknown = [query_id for query_id in run.run if query_id not in dataset.queries]
    if unknown:
        raise DataError(
            f"the run '{run.name}' has {len(unknown)} queries that data.query_dir does not have, such as "
            f"'{unknown[0]}'; give the queries that the run is of"
        )
    doc_ids = list({doc_id for ranking in run.run.values() for doc_id in list(ranking)[:top_k]})
    missing = [doc_id for doc_id, row in zip(doc_ids, dataset.documents.rows(doc_ids), strict=True) if row < 0]
    if missing:
        raise DataError(
            f"the run '{run.name}' names {len(missing)} documents that {dataset.documents.name} does not have, such as "
            f"'{min(missing)}'; give the collection that the run is of"
        )
    queries = {query_id: dataset.queries[query_id] for query_id in run.run}
    return Dataset(dataset.name, queries, dataset.qrels, dataset.corpus, dataset.split)


def _rerank(job: RerankJob, reranker: Reranker, top_k: int) -> EvaluatedRun:
    """Return the result that is there, if it came from the same run, model and settings, or a new one."""
    retriever = RerankedRetriever(job.run, reranker, job.dataset.documents, top_k, folder=job.folder)
    settings = {"reranker": reranker.settings(), "run": job.run.digest(), "top_k": top_k} | job.dataset.identity
    if job.protocol is None:
        return evaluate_shared(retriever, job.dataset, None, top_k, job.folder)
    settings["metrics"] = list(job.protocol.metrics)
    finished = on_first_process(lambda: finished_result(retriever.name, job.dataset, job.folder, settings))
    if finished is not None:
        logger.info("%s: already re-ranked with the same settings", job.folder)
        return finished
    result = evaluate_shared(retriever, job.dataset, job.protocol, top_k, job.folder)
    return on_first_process(lambda: store_result(retriever.name, result, settings))


def _table(job: RerankJob, result: EvaluatedRun, top_k: int) -> str:
    """Return metrics and costs before and after."""
    title = f"{job.dataset.name}, {job.run.name}: the best {top_k} of each query re-ranked by {result.system}"
    stages = {"after": (result.metrics, result.costs)}
    if job.protocol is not None:
        cut = {query_id: dict(list(ranking.items())[:top_k]) for query_id, ranking in job.run.run.items()}
        stages = {"before": (job.protocol.evaluate(cut, job.dataset.qrels or {}), job.run.costs())} | stages
    return f"{before_after_table(title, stages)}\n  in {job.folder / RUN_FILE}"


def _listed(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _each(key: str, values: Sequence[Value], n: int) -> list[Value]:
    """Return a value for each of n runs: as many are given, or one for all."""
    if len(values) not in (0, 1, n):
        raise ConfigError(f"{key} has {len(values)} values, data.path_run has {n}: give one per run, or one for all")
    return list(values) * n if len(values) == 1 else list(values)


def _names(paths: Sequence[str]) -> list[str]:
    """Name runs after their files, or the folders of files called run."""
    files = [Path(path) for path in paths]
    return [file.parent.name if file.stem == "run" else file.stem for file in files]


def _shallow(metrics: Sequence[str], top_k: int) -> list[str]:
    """Leave out metrics that look deeper than what is re-ranked."""
    return [metric for metric in metrics if largest_cut([metric]) <= top_k] or ["nDCG@10"]
