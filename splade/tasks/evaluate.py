"""Task: evaluate runs that exist; needs no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.errors import ConfigError
from splade.evaluation.checks import Finding, warning_messages
from splade.reports.summaries import warning_block
from splade.storage.atomic import read_json, write_json


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics per data set.

    Attributes:
        metrics: data set name -> metric name -> value.
        path: the file with all of them.
        warnings: what looks wrong.
    """

    metrics: dict[str, dict[str, float]]
    path: Path
    warnings: tuple[Finding, ...] = ()

    def summary(self) -> str:
        """Return one line per data set, then the warnings."""
        return "\n".join([*self.lines(), *warning_block(self.warnings)])

    def lines(self) -> list[str]:
        """Return one line per data set, and where the file is."""
        width = max(map(len, self.metrics), default=0)
        values_of = [
            f"{name:{width}}  " + "  ".join(f"{metric} {value:.4f}" for metric, value in values.items())
            for name, values in self.metrics.items()
        ]
        return [*values_of, f"  in {self.path}"]


def evaluate(experiment: Experiment) -> EvaluationResult:
    """Compare the runs in config.out_dir with the judgements data.EVAL_QREL_PATH."""
    require(experiment, "config.out_dir", "config.retrieval_name", "data.EVAL_QREL_PATH", "config.eval_metric")
    from splade.datasets.qrels import read_qrels
    from splade.datasets.runs import read_run
    from splade.evaluation.checks import check_depth, check_results, check_run, check_scores, named, raise_errors
    from splade.evaluation.measures import largest_cut
    from splade.evaluation.metrics import evaluate_run

    check_datasets(experiment)
    out_dir = Path(str(experiment.config.out_dir))
    metrics: dict[str, dict[str, float]] = {}
    warnings: list[Finding] = []
    for name, qrels_path, names in zip(
        experiment.config.retrieval_name, experiment.data.EVAL_QREL_PATH, experiment.config.eval_metric, strict=True
    ):
        if qrels_path is None:
            continue
        run, qrels = read_run(out_dir / name / "run.json"), read_qrels(qrels_path)
        found = raise_errors(named(name, [*check_run(run, qrels), *check_scores(run)]))
        if top_k_of(out_dir / name) < largest_cut(names):
            found += named(name, check_depth(run, names))
        measured = evaluate_run(run, qrels, names)
        found += named(name, check_results(measured, run))
        metrics[name] = dict(measured.means)
        figures = {"n_queries": measured.n_queries, "n_without_result": len(measured.missing_queries)}
        write_json(out_dir / name / "perf.json", metrics[name])
        write_json(out_dir / name / "eval_stats.json", figures | {"warnings": warning_messages(found)})
        warnings += found
    save_record(experiment, out_dir, "evaluate")
    path = out_dir / "perf_all_datasets.json"
    write_json(path, metrics)
    return EvaluationResult(metrics, path, tuple(warnings))


def check_datasets(experiment: Experiment) -> None:
    """Check that names, queries, judgements and metrics of the data sets belong together, before any work.

    Raises:
        ConfigError: lists of different lengths, a name used twice, an unknown metric, or a metric deeper than top_k.
    """
    from splade.evaluation.measures import largest_cut, parse_metrics

    lists: dict[str, Sequence[object]] = {
        "config.retrieval_name": experiment.config.retrieval_name,
        "data.EVAL_QREL_PATH": experiment.data.EVAL_QREL_PATH,
        "config.eval_metric": experiment.config.eval_metric,
    }
    if experiment.data.Q_COLLECTION_PATH:
        lists["data.Q_COLLECTION_PATH"] = experiment.data.Q_COLLECTION_PATH
    lengths = {name: len(value) for name, value in lists.items() if value}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ConfigError(f"one entry per data set is needed: {listing}")
    names = experiment.config.retrieval_name
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"config.retrieval_name has '{twice}' twice: the second run would replace the first")
    for metrics in experiment.config.eval_metric:
        parse_metrics(metrics)
        if largest_cut(metrics) > experiment.config.top_k:
            raise ConfigError(
                f"config.top_k={experiment.config.top_k} documents are retrieved, but {', '.join(metrics)} looks at "
                f"{largest_cut(metrics)}: raise config.top_k, or name shallower cuts (recall_100)"
            )


def top_k_of(folder: Path) -> int:
    """Return the depth that a run of this toolkit was made with; 0 for runs of other systems."""
    stats = folder / "q_stats.json"
    return int(read_json(stats).get("top_k", 0)) if stats.is_file() else 0
