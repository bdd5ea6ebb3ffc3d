"""The data sets that a task retrieves for or evaluates: opened, and checked to belong together. Needs no model."""

from collections.abc import Sequence
from dataclasses import dataclass
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
from splade.evaluation.measures import largest_cut, parse_metrics
from splade.evaluation.protocols import EvaluationProtocol, SeveralQrels, TrecProtocol
from splade.interop.query_files import open_vector_queries
from splade.reports.summaries import metric_line
from splade.retrieval.evaluate_retriever import EvaluatedRun
from splade.storage.atomic import write_json
from splade.storage.paths import IR_DATASETS_SCHEME, check_folder_name

ALL_METRICS_FILE = "perf_all_datasets.json"
_TAKEN = ("before", RECORD_FOLDER, JOBS_FOLDER, "anserini_collection", "anserini_index")


@dataclass(frozen=True)
class _Named:
    """The paths of a data set, and its qrels with the metrics asked for: as many as its name is repeated."""

    name: str
    queries: str | None
    judgements: Sequence[tuple[str | None, list[str]]]


def open_evaluation_sets(
    experiment: Experiment, with_queries: bool = True, own_terms: Sequence[str] | None = None
) -> list[tuple[Dataset, EvaluationProtocol | None]]:
    """Open queries and qrels of every evaluated data set, with the metrics asked for; None without qrels.

    A name that `config.retrieval_name` repeats is one data set, whose run several qrels judge. With `own_terms`, those
    of an index without a model, queries are vectors.

    Raises:
        ConfigError: as `check_evaluation_settings`.
        DataError: a file is missing or wrong.
    """
    sets: list[tuple[Dataset, EvaluationProtocol | None]] = []
    for one in check_evaluation_settings(experiment):
        (path, metrics), *others = one.judgements
        qrels = None if path is None else read_qrels(path)
        if one.queries is None or not with_queries:
            dataset = Dataset(one.name, {}, qrels)
        elif own_terms is not None:
            dataset = Dataset(one.name, open_vector_queries(one.queries, own_terms), qrels)
        else:
            dataset = Dataset(one.name, dict(open_queries(one.queries)), qrels)
        protocol = None if path is None else TrecProtocol(metrics)
        if protocol is None or not others:
            sets.append((dataset, protocol))
        else:
            judged = [(read_qrels(str(other)), TrecProtocol(names)) for other, names in others]
            sets.append((dataset, SeveralQrels(protocol, judged)))
    return sets


def check_evaluation_settings(experiment: Experiment) -> list[_Named]:
    """Check that names, queries, qrels and metrics of the data sets belong together, before any work; return them.

    Raises:
        ConfigError: lists of different lengths, a name repeated with other queries or without qrels, an unknown metric,
            one that two qrels of a name give, or one that is deeper than top_k.
    """
    run, data = experiment.config, experiment.data
    names, distinct = run.retrieval_name, list(dict.fromkeys(run.retrieval_name))
    queries: Sequence[str | None] = data.Q_COLLECTION_PATH
    if len(queries) == len(distinct) < len(names):
        queries = [queries[distinct.index(name)] for name in names]
    lists: dict[str, Sequence[object]] = {
        "config.retrieval_name": names,
        "data.EVAL_QREL_PATH": data.EVAL_QREL_PATH,
        "config.eval_metric": run.eval_metric,
        "data.Q_COLLECTION_PATH": queries,
    }
    lengths = {name: len(value) for name, value in lists.items() if value}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ConfigError(f"one entry per data set is needed: {listing}")
    check_names(distinct)
    for metrics in run.eval_metric:
        check_depth_asked_for(run.top_k, metrics)
    judgements = list(
        zip(data.EVAL_QREL_PATH or [None] * len(names), run.eval_metric or [[] for _ in names], strict=True)
    )
    sets = []
    for name in distinct:
        places = [place for place, other in enumerate(names) if other == name]
        own = [queries[place] if queries else None for place in places]
        sets.append(_Named(name, own[0], [judgements[place] for place in places]))
        _check_repeated(sets[-1], own)
    return sets


def _check_repeated(one: _Named, queries: Sequence[str | None]) -> None:
    """Raise a ConfigError unless the repeated name stands for one run that several qrels judge."""
    twice = f"config.retrieval_name has '{one.name}' twice"
    if len(set(queries)) > 1:
        raise ConfigError(
            f"{twice}, with the queries {' and '.join(map(str, queries))}: the second run would replace the first"
        )
    if len(one.judgements) > 1 and any(path is None for path, _ in one.judgements):
        raise ConfigError(f"{twice}: give qrels for each (data.EVAL_QREL_PATH), or name it once")
    by: dict[str, str | None] = {}
    for path, metrics in one.judgements if len(one.judgements) > 1 else ():
        for measure in parse_metrics(metrics):
            if measure.name in by:
                raise ConfigError(
                    f"{twice}, and both {by[measure.name]} and {path} give {measure.name}, of which perf.json can hold "
                    "one: leave it out of one entry of config.eval_metric"
                )
            by[measure.name] = path


def names_of_queries(experiment: Experiment) -> list[str]:
    """Return a name for the file of each query collection: those of config.retrieval_name, or their numbers.

    Raises:
        ConfigError: there are more or fewer names than collections.
    """
    n_collections, given = len(experiment.data.Q_COLLECTION_PATH), experiment.config.retrieval_name
    names = list(dict.fromkeys(given)) or [str(i) if n_collections > 1 else "queries" for i in range(n_collections)]
    names = names if len(names) == n_collections else given
    if n_collections and len(names) != n_collections:
        raise ConfigError(
            f"one entry per query collection is needed: config.retrieval_name has {len(names)}, data."
            f"Q_COLLECTION_PATH has {n_collections}"
        )
    check_names(names)
    return names[:n_collections]


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
