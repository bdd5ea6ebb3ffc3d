"""The data sets that a task retrieves for or evaluates: opened, and checked to belong together. Needs no model."""

from collections.abc import Sequence
from pathlib import Path

from splade.config import Experiment
from splade.config.jobs import JOBS_FOLDER
from splade.config.record import RECORD_FOLDER
from splade.datasets.collections import open_queries
from splade.datasets.dataset import Dataset
from splade.datasets.qrels import read_qrels
from splade.datasets.text_collection import FileCollection, TextCollection
from splade.errors import ConfigError, DataError
from splade.evaluation.checks import Finding, check_collection_against_queries
from splade.evaluation.measures import largest_cut
from splade.evaluation.protocols import TrecProtocol
from splade.reports.summaries import metric_line
from splade.retrieval.evaluate_retriever import EvaluatedRun
from splade.storage.atomic import write_json
from splade.storage.paths import IR_DATASETS_SCHEME, check_folder_name

ALL_METRICS_FILE = "perf_all_datasets.json"
_TAKEN = ("before", RECORD_FOLDER, JOBS_FOLDER)


def open_evaluation_sets(
    experiment: Experiment, with_queries: bool = True
) -> list[tuple[Dataset, TrecProtocol | None]]:
    """Open queries and qrels of every evaluated data set, with the metrics asked for; None without qrels.

    Raises:
        ConfigError: as `check_evaluation_settings`.
        DataError: a file is missing or wrong.
    """
    check_evaluation_settings(experiment)
    run, data = experiment.config, experiment.data
    n_sets = len(run.retrieval_name)
    sets: list[tuple[Dataset, TrecProtocol | None]] = []
    for name, queries, qrels, metrics in zip(
        run.retrieval_name,
        data.Q_COLLECTION_PATH if with_queries else [None] * n_sets,
        data.EVAL_QREL_PATH or [None] * n_sets,
        run.eval_metric or [[]] * n_sets,
        strict=True,
    ):
        if queries is not None:
            dataset = Dataset.open(name, queries, qrels)
        else:
            dataset = Dataset(name, {}, None if qrels is None else read_qrels(qrels))
        sets.append((dataset, TrecProtocol(metrics) if qrels is not None else None))
    return sets


def check_evaluation_settings(experiment: Experiment) -> None:
    """Check that names, queries, qrels and metrics of the data sets belong together, before any work.

    Raises:
        ConfigError: lists of different lengths, a name used twice, an unknown metric, or a metric deeper than top_k.
    """
    run, data = experiment.config, experiment.data
    lists: dict[str, Sequence[object]] = {
        "config.retrieval_name": run.retrieval_name,
        "data.EVAL_QREL_PATH": data.EVAL_QREL_PATH,
        "config.eval_metric": run.eval_metric,
        "data.Q_COLLECTION_PATH": data.Q_COLLECTION_PATH,
    }
    lengths = {name: len(value) for name, value in lists.items() if value}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ConfigError(f"one entry per data set is needed: {listing}")
    check_names(run.retrieval_name)
    for metrics in run.eval_metric:
        check_depth_asked_for(run.top_k, metrics)


def check_names(names: Sequence[str]) -> None:
    """Raise a ConfigError for names of data sets that cannot be folders side by side in `config.out_dir`."""
    for name in names:
        check_folder_name(name, "config.retrieval_name")
        if names.count(name) > 1:
            raise ConfigError(f"config.retrieval_name has '{name}' twice: the second run would replace the first")
        if name in _TAKEN or name.endswith((".json", ".jsonl", ".tsv")):
            raise ConfigError(f"config.retrieval_name: '{name}' names something else in config.out_dir; give another")


def check_depth_asked_for(top_k: int, metrics: Sequence[str]) -> None:
    """Raise a ConfigError for metrics that look deeper than `config.top_k`."""
    deepest = largest_cut(metrics)
    if deepest > top_k:
        raise ConfigError(
            f"config.top_k={top_k} documents are retrieved, but {', '.join(metrics)} looks at {deepest}: raise "
            "config.top_k, or name shallower cuts (recall_100)"
        )


def check_collection(experiment: Experiment, collection: TextCollection) -> list[Finding]:
    """Was one of the query files given as the collection?

    Raises:
        DataError: it was, by the same file.
    """
    findings = []
    for path in experiment.data.Q_COLLECTION_PATH:
        if path.startswith(IR_DATASETS_SCHEME):
            continue  # documents and queries of a catalogue cannot be confused, and looking would download them
        try:
            queries = open_queries(path)
        except DataError:
            continue  # indexing needs no queries; retrieving will say what is wrong with them
        if _files(queries) and _files(queries) == _files(collection):
            raise DataError(
                f"data.COLLECTION_PATH={experiment.data.COLLECTION_PATH}: that is the queries file "
                f"(data.Q_COLLECTION_PATH={path}); give the documents"
            )
        if len(queries) == len(collection):
            ids = ([text_id for text_id, _ in texts] for texts in (collection, queries))
            findings += check_collection_against_queries(*ids)
    return findings


def write_all_metrics(runs: Sequence[EvaluatedRun], out_dir: Path) -> list[str]:
    """Write the metrics of all evaluated data sets to one file; return one line per data set, and the file's."""
    evaluated = {run.dataset.name: run.metrics for run in runs if run.metrics}
    if not evaluated:
        return []
    write_json(out_dir / ALL_METRICS_FILE, evaluated)
    width = max(map(len, evaluated))
    lines = [f"{name:{width}}  {metric_line(metrics)}" for name, metrics in evaluated.items()]
    return [*lines, f"  in {out_dir / ALL_METRICS_FILE}"]


def all_findings(runs: Sequence[EvaluatedRun], before: Sequence[Finding] = ()) -> tuple[Finding, ...]:
    """Return what looks wrong, before and in the evaluations, each thing once."""
    return tuple(dict.fromkeys([*before, *(finding for run in runs for finding in run.findings)]))


def _files(collection: TextCollection) -> list[Path]:
    return [path.resolve() for path in collection.source.files] if isinstance(collection, FileCollection) else []
