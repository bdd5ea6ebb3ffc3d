"""Task: train, index, retrieve and evaluate, flops, figures; one after the other."""

import logging
from collections.abc import Sequence
from copy import deepcopy
from itertools import zip_longest
from pathlib import Path

from splade.config import Experiment
from splade.config.inputs import require_all
from splade.config.processes import processes_to_start
from splade.config.schema import Affects
from splade.config.sweep import folder_name, index_affects, swept_values
from splade.datasets.collections import open_collection, open_queries
from splade.distributed import n_processes, on_first_process
from splade.errors import BusyError, CollapseError
from splade.reports.summaries import TaskResult, before_after_table
from splade.retrieval.evaluate_retriever import EvaluatedRun
from splade.tasks.evaluation_sets import open_evaluation_sets
from splade.tasks.figures import FOLDER, draw_quietly
from splade.tasks.flops import flops
from splade.tasks.index import index
from splade.tasks.retrieve import RetrieveResult, retrieve
from splade.tasks.train import check_can_train, train

logger = logging.getLogger(__name__)

# Encoding a collection twice is cheap up to here; beyond, the untrained model is only seen in validation.
COMPARE_UP_TO_DOCUMENTS = 20_000
BEFORE = "before"


def run_all(experiment: Experiment) -> RetrieveResult:
    """Train, index, retrieve, evaluate, and report effectiveness and cost side by side.

    Several processes share training and encoding; the rest is the first one's.
    """
    trains = _trains(experiment)
    if experiment.config.regularizer == "eval_only":
        experiment = deepcopy(experiment)
        experiment.config.pretrained_no_yamlconfig = True
    if trains:
        check_can_train(experiment)
    n_documents = on_first_process(lambda: _check_inputs(experiment))
    before: list[EvaluatedRun] = []
    if trains and n_documents <= COMPARE_UP_TO_DOCUMENTS:
        untrained = _untrained(experiment)
        try:
            _index_before(untrained, Path(str(experiment.config.index_dir)))
            before.extend(retrieve(untrained).runs)
        except CollapseError as error:
            logger.warning("the model before training is not evaluated: %s", error)
    trained = train(experiment).summary() if trains else "model used as it is, not trained"
    indexed = index(experiment)
    retrieved = retrieve(experiment)
    if experiment.data.flops_queries and experiment.config.matching_type != "dense":
        flops(experiment)
    return on_first_process(lambda: _summary(experiment, trained, before, indexed, retrieved))


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share training and encoding."""
    return processes_to_start(experiment, trains=_trains(experiment))


def _trains(experiment: Experiment) -> bool:
    return not experiment.config.pretrained_no_yamlconfig and experiment.config.regularizer != "eval_only"


def _summary(
    experiment: Experiment,
    trained: str,
    before: Sequence[EvaluatedRun],
    indexed: TaskResult,
    retrieved: RetrieveResult,
) -> RetrieveResult:
    folders, figures = experiment.config, Path(str(experiment.config.out_dir)) / FOLDER
    draw_quietly([folders.checkpoint_dir, folders.index_dir, folders.out_dir], figures)
    lines = [trained, "", *(_table(untrained, run) for untrained, run in zip_longest(before, retrieved.runs))]
    lines += ["", f"index in   {folders.index_dir}", f"results in {folders.out_dir}", f"figures in {figures}"]
    findings = (*indexed.findings, *retrieved.findings)
    return RetrieveResult(text="\n".join(lines), findings=findings, runs=retrieved.runs)


def _check_inputs(experiment: Experiment) -> int:
    """Open everything that the last tasks read before the first one starts; return the number of documents."""
    require_all(experiment, "run_all")
    open_evaluation_sets(experiment)
    if experiment.data.flops_queries:
        len(open_queries(experiment.data.flops_queries))
    return len(open_collection(str(experiment.data.COLLECTION_PATH)))


def _untrained(experiment: Experiment) -> Experiment:
    """Return the experiment with the model before training, its index and runs in sub-folders `before`.

    The jobs of a sweep that differ only in how they train share its index.
    """
    untrained, swept = deepcopy(experiment), swept_values()
    untrained.config.pretrained_no_yamlconfig = True
    place, own = Path(str(experiment.config.index_dir)), folder_name(swept, index_affects(experiment))
    if own and place.name == own and n_processes() == 1:
        untrained.config.index_dir = str(place.parent / BEFORE / folder_name(swept, Affects.INDEX))
    else:
        untrained.config.index_dir = str(place / BEFORE)
    untrained.config.out_dir = str(Path(str(experiment.config.out_dir)) / BEFORE)
    return untrained


def _index_before(untrained: Experiment, place: Path) -> None:
    """Index with the untrained model; in `place` while another job of a sweep is doing so."""
    try:
        index(untrained)
    except BusyError:
        untrained.config.index_dir = str(place / BEFORE)
        index(untrained)


def _table(before: EvaluatedRun | None, run: EvaluatedRun) -> str:
    title = f"{run.dataset.name}  ({run.costs.n_queries} queries, {run.costs.n_docs} documents)"
    columns = {"after": (run.metrics, run.costs)}
    if before is not None:
        columns = {"before": (before.metrics, before.costs)} | columns
    return before_after_table(title, columns)
