"""Task: compare runs, also those of other systems."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from splade.config import Experiment, require
from splade.errors import ConfigError, DataError
from splade.evaluation.checks import Finding
from splade.reports.comparison_report import write_comparison
from splade.reports.summaries import warning_block
from splade.tasks.evaluate import top_k_of

# Documents looked up before the texts of a collection are believed to be those of the runs.
_SAMPLE = 1000


@dataclass(frozen=True)
class CompareResult:
    """A comparison as text, and its files.

    Attributes:
        text: effectiveness, differences with their significance, and the queries that differ most.
        paths: the same as text, Markdown, LaTeX, JSON, and both tables as CSV.
        warnings: what looks wrong.
    """

    text: str
    paths: tuple[Path, ...]
    warnings: tuple[Finding, ...]

    def summary(self) -> str:
        """Return the comparison, where its files are, then the warnings."""
        names = ", ".join(path.name for path in self.paths)
        place = f"  in {self.paths[0].parent}: {names}"
        return "\n".join([self.text, "", place, *warning_block(self.warnings)])


class Texts(Mapping[str, str]):
    """The texts of a collection by id, read when asked for.

    Args:
        collection: a `TextCollection`.
    """

    def __init__(self, collection: "TextCollection"):  # type: ignore[name-defined]  # noqa: F821
        self._collection = collection

    def __getitem__(self, text_id: str) -> str:
        row = self._collection.row(text_id)
        if row is None:
            raise KeyError(text_id)
        return self._collection[row][1]

    def __iter__(self) -> Iterator[str]:
        return (text_id for text_id, _ in self._collection)

    def __len__(self) -> int:
        return len(self._collection)


def compare(experiment: Experiment) -> CompareResult:
    """Compare two or more runs: metrics, significance, wins and losses, and the queries that differ most.

    Example: python -m splade.compare +runs={bm25: a/run.trec, splade: b/run.json} +qrels=qrels.json
    '+metrics=[nDCG@10,R@100]' config.out_dir=out. Texts are shown when data.COLLECTION_PATH and data.Q_COLLECTION_PATH
    hold the documents and queries of the runs.
    """
    require(experiment, "runs", "config.out_dir")
    from splade.datasets.qrels import read_qrels
    from splade.datasets.runs import read_run
    from splade.evaluation.beir_protocol import drop_identical_ids
    from splade.evaluation.checks import check_depth, check_run, check_scores, named, raise_errors
    from splade.evaluation.comparison import compare_runs
    from splade.evaluation.measures import largest_cut, parse_metrics

    paths = named_runs(experiment.runs)
    metrics = experiment.metrics or next(iter(experiment.config.eval_metric), None)
    qrels_path = experiment.qrels or next(iter(experiment.data.EVAL_QREL_PATH), None)
    if metrics is None or qrels_path is None:
        raise ConfigError("no value for qrels or metrics: give +qrels=FILE '+metrics=[nDCG@10,R@100]'")
    parse_metrics(metrics)
    qrels = read_qrels(qrels_path)
    runs = {name: read_run(_run_file(path)) for name, path in paths.items()}
    warnings = []
    for name, run in runs.items():
        findings = [*check_run(run, qrels), *check_scores(run)]
        if top_k_of(Path(_run_file(paths[name])).parent) < largest_cut(metrics):
            findings += check_depth(run, metrics)
        warnings += raise_errors(named(name, findings))
    settings = experiment.compare
    if settings.drop_identical_ids:
        runs = {name: drop_identical_ids(run) for name, run in runs.items()}
    texts, query_texts, notes = _texts_at_hand(experiment, runs)
    compared = compare_runs(
        runs,
        qrels,
        metrics,
        baseline=settings.baseline,
        texts=texts,
        query_texts=query_texts,
        test=settings.test,  # type: ignore[arg-type]  # the schema allows these choices only
        correction=settings.correction,  # type: ignore[arg-type]
        alpha=settings.alpha,
        n_queries_shown=settings.n_queries,
        n_documents_shown=settings.n_documents,
    )
    text, written = write_comparison(compared, Path(str(experiment.config.out_dir)) / "compare")
    return CompareResult("\n\n".join([text, *notes]), written, tuple(warnings))


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
        named = dict(zip(_short_names([str(path) for path in runs]), map(str, runs), strict=True))
        if len(named) < len(runs):
            raise ConfigError(f"runs={list(runs)}: the same run twice")
    else:
        raise ConfigError(f"runs={runs}: expected a list [a/run.json,b/run.trec] or names {{bm25: a, splade: b}}")
    if len(named) < 2:
        raise ConfigError(f"runs={runs}: a comparison needs two runs or more")
    return named


def _short_names(paths: Sequence[str]) -> list[str]:
    """Drop the folders that all paths begin and end with."""
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


def _texts_at_hand(
    experiment: Experiment, runs: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> tuple[Mapping[str, str], Mapping[str, str], list[str]]:
    """Return texts of documents and queries, none where the configured files are not those of the runs."""
    from splade.datasets.collections import open_collection, open_queries

    first = next(iter(runs.values()))
    doc_ids = [doc_id for documents in first.values() for doc_id in islice(documents, 10)][:_SAMPLE]
    texts: Mapping[str, str] = {}
    query_texts: Mapping[str, str] = {}
    notes = []
    if experiment.data.COLLECTION_PATH is not None:
        try:
            collection = open_collection(experiment.data.COLLECTION_PATH)
            if (collection.rows(doc_ids) >= 0).all():
                texts = Texts(collection)
        except DataError as error:
            notes.append(f"Documents are shown without texts: {error}")
        if not texts and not notes:
            notes.append(
                f"Documents are shown without texts: data.COLLECTION_PATH={experiment.data.COLLECTION_PATH} is not the "
                "collection of these runs."
            )
    for path in experiment.data.Q_COLLECTION_PATH:
        try:
            queries = open_queries(path)
        except DataError:
            continue
        if all(query_id in queries for query_id in islice(first, _SAMPLE)):
            query_texts = Texts(queries)
            break
    return texts, query_texts, notes
