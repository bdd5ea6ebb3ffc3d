"""Task: compare runs, also those of other systems."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import cast

from splade.config import Experiment
from splade.config.inputs import require_all
from splade.datasets.collections import open_collection, open_queries
from splade.datasets.qrels import Qrels, read_qrels
from splade.datasets.runs import Run, read_run
from splade.errors import ConfigError, DataError
from splade.evaluation.beir_protocol import drop_identical_ids
from splade.evaluation.checks import Finding, check_depth, check_run, check_scores, named, raise_errors
from splade.evaluation.comparison import Comparison, TextLookup, compare_runs
from splade.evaluation.measures import largest_cut, parse_metrics
from splade.evaluation.significance import Correction, Test
from splade.inspection.term_scores import term_scores
from splade.reports.comparison_report import write_comparison
from splade.reports.summaries import TaskResult
from splade.retrieval.evaluate_retriever import stored_costs
from splade.tasks.model_loading import load_model

# Ids looked up before the texts of a collection are believed to be those of the runs.
_SAMPLE = 1000


def compare(experiment: Experiment) -> TaskResult:
    """Compare two or more runs: metrics, significance, wins and losses, and the queries that differ most.

    Example: python -m splade.compare +runs={bm25: a/run.trec, splade: b/run.json} +qrels=qrels.json
    '+metrics=[nDCG@10,R@100]' config.out_dir=out. Texts are shown when data.COLLECTION_PATH and data.Q_COLLECTION_PATH
    hold the documents and queries of the runs.
    """
    require_all(experiment, "compare")
    files = {name: _run_file(path) for name, path in named_runs(experiment.runs).items()}
    metrics = experiment.metrics or next(iter(experiment.config.eval_metric), None)
    qrels_path = experiment.qrels or next(iter(experiment.data.EVAL_QREL_PATH), None)
    if metrics is None or qrels_path is None:
        raise ConfigError("no value for qrels or metrics: give +qrels=FILE '+metrics=[nDCG@10,R@100]'")
    parse_metrics(metrics)
    qrels = read_qrels(qrels_path)
    runs = {name: read_run(path) for name, path in files.items()}
    findings = [found for name, run in runs.items() for found in _check(name, files[name], run, qrels, metrics)]
    if experiment.compare.drop_identical_ids:
        runs = {name: drop_identical_ids(run) for name, run in runs.items()}
    first = next(iter(runs.values()))
    texts, notes = _document_texts(experiment.data.COLLECTION_PATH, first)
    compared = _compare(experiment, runs, qrels, metrics, texts)
    out_dir = Path(str(experiment.config.out_dir))
    text, written = write_comparison(compared, out_dir / "compare")
    files_written = f"  in {out_dir}: {', '.join(path.name for path in written)}"
    return TaskResult(text="\n\n".join([text, *notes, files_written]), findings=tuple(findings))


def named_runs(runs: object) -> dict[str, str]:
    """Return name to path, for `{name: path}` or a list of paths, which are named after what tells them apart.

    Raises:
        ConfigError: neither form, or fewer than two runs.

    Example:
        >>> named_runs(["out/bm25/TOY/run.json", "out/splade/TOY/run.json"])
        {'bm25': 'out/bm25/TOY/run.json', 'splade': 'out/splade/TOY/run.json'}
    """
    if isinstance(runs, Mapping):
        named = {str(name): str(path) for name, path in runs.items()}
    elif isinstance(runs, Sequence) and not isinstance(runs, str):
        named = dict(zip(distinct_parts([str(path) for path in runs]), map(str, runs), strict=True))
        if len(named) < len(runs):
            raise ConfigError(f"runs={list(runs)}: the same run twice")
    else:
        raise ConfigError(f"runs={runs}: expected a list [a/run.json,b/run.trec] or names {{bm25: a, splade: b}}")
    if len(named) < 2:
        raise ConfigError(f"runs={runs}: a comparison needs two runs or more")
    return named


def distinct_parts(paths: Sequence[str]) -> list[str]:
    """Return paths without the folders that all of them begin and end with."""
    parts = [Path(path).with_suffix("").parts for path in paths]
    shortest = min(map(len, parts), default=0)
    while shortest > 1 and len({path[0] for path in parts}) == 1:
        parts, shortest = [path[1:] for path in parts], shortest - 1
    while shortest > 1 and len({path[-1] for path in parts}) == 1:
        parts, shortest = [path[:-1] for path in parts], shortest - 1
    return ["/".join(path) for path in parts]


def _run_file(path: str) -> str:
    """Return the run of a folder that splade.retrieve wrote, or the path itself."""
    return str(Path(path) / "run.json") if (Path(path) / "run.json").is_file() else path


def _check(name: str, path: str, run: Run, qrels: Qrels, metrics: Sequence[str]) -> list[Finding]:
    """Return what looks wrong in one run; raise what is wrong."""
    findings = [*check_run(run, qrels), *check_scores(run)]
    if (stored_costs(Path(path).parent).top_k or 0) < largest_cut(metrics):
        findings += check_depth(run, metrics)
    return raise_errors(named(name, findings))


def _compare(
    experiment: Experiment, runs: Mapping[str, Run], qrels: Qrels, metrics: Sequence[str], texts: TextLookup
) -> Comparison:
    settings = experiment.compare
    return compare_runs(
        runs,
        qrels,
        metrics,
        baseline=settings.baseline,
        texts=texts,
        query_texts=_query_texts(experiment.data.Q_COLLECTION_PATH, next(iter(runs.values()))),
        test=cast(Test, settings.test),  # the schema allows these choices only
        correction=cast(Correction, settings.correction),
        alpha=settings.alpha,
        n_queries_shown=settings.n_queries,
        n_documents_shown=settings.n_documents,
        term_scores=term_scores(load_model(experiment)[0]) if settings.terms else None,
    )


def _document_texts(path: str | None, run: Run) -> tuple[TextLookup, list[str]]:
    """Return the texts of a collection, none with a note where it is not that of the run."""
    if path is None:
        return {}, []
    doc_ids = [doc_id for documents in run.values() for doc_id in islice(documents, 10)][:_SAMPLE]
    reason = f"data.COLLECTION_PATH={path} is not the collection of these runs."
    try:
        collection = open_collection(path)
        if (collection.rows(doc_ids) >= 0).all():
            return collection, []
    except DataError as error:
        reason = str(error)
    return {}, [f"Documents are shown without texts: {reason}"]


def _query_texts(paths: Sequence[str], run: Run) -> TextLookup:
    """Return the texts of the first file with the queries of the run."""
    for path in paths:
        try:
            queries = open_queries(path)
            if all(query_id in queries for query_id in islice(run, _SAMPLE)):
                return queries
        except DataError:
            continue  # the comparison itself needs no queries
    return {}
