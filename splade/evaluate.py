"""Task: evaluate runs that exist; needs no model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from splade.config import Experiment, require, run_task
from splade.config.record import save_record
from splade.errors import ConfigError
from splade.files import write_json


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics per data set.

    Attributes:
        metrics: data set name -> metric name -> value.
        notes: what the user should know about the runs.
        path: the file with all of them.
    """

    metrics: dict[str, dict[str, float]]
    path: Path
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Return one line per data set."""
        width = max(map(len, self.metrics), default=0)
        lines = [
            f"{name:{width}}  " + "  ".join(f"{metric} {value:.4f}" for metric, value in values.items())
            for name, values in self.metrics.items()
        ]
        return "\n".join([*lines, *(f"warning: {note}" for note in self.notes), f"  in {self.path}"])


def evaluate(experiment: Experiment) -> EvaluationResult:
    """Compare the runs in config.out_dir with the judgements data.EVAL_QREL_PATH."""
    require(experiment, "config.out_dir", "config.retrieval_name", "data.EVAL_QREL_PATH", "config.eval_metric")
    from splade.datasets.qrels import read_qrels
    from splade.datasets.runs import read_run
    from splade.evaluation.metrics import evaluate_run

    check_datasets(experiment)
    out_dir = Path(str(experiment.config.out_dir))
    metrics, notes = {}, []
    for name, qrels_path, names in zip(
        experiment.config.retrieval_name, experiment.data.EVAL_QREL_PATH, experiment.config.eval_metric, strict=True
    ):
        if qrels_path is None:
            continue
        measured = evaluate_run(read_run(out_dir / name / "run.json"), read_qrels(qrels_path), names)
        metrics[name] = dict(measured.means)
        if measured.missing_queries:
            notes.append(
                f"{name}: {len(measured.missing_queries)} of {measured.n_queries} judged queries have no result "
                "and count as zero"
            )
        write_json(out_dir / name / "perf.json", metrics[name])
    save_record(experiment, out_dir, "evaluate")
    path = out_dir / "perf_all_datasets.json"
    write_json(path, metrics)
    return EvaluationResult(metrics, path, notes)


def check_datasets(experiment: Experiment) -> None:
    """Check that names, queries, judgements and metrics of the data sets belong together, before any work.

    Raises:
        ConfigError: lists of different lengths, a name used twice, an unknown metric, or a metric deeper than top_k.
    """
    from splade.evaluation.names import largest_cut, parse_metrics

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


if __name__ == "__main__":
    run_task(evaluate)
