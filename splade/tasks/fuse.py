"""Task: fuse runs into one, evaluate it, and compare it with each of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from splade.config import Experiment
from splade.config.inputs import require_all
from splade.config.record import save_record
from splade.config.schema import FuseConfig
from splade.datasets.dataset import Dataset
from splade.datasets.qrels import Qrels, read_qrels
from splade.datasets.runs import read_run
from splade.errors import ConfigError, nearest
from splade.evaluation.comparison import compare_runs
from splade.evaluation.measures import parse_metrics
from splade.evaluation.protocols import TrecProtocol
from splade.reports.comparison_report import write_comparison
from splade.reports.summaries import TaskResult, cost_line
from splade.retrieval.evaluate_retriever import RUN_FILE, evaluate_retriever
from splade.retrieval.fusion import FusedRetriever, Fusion
from splade.retrieval.fusion_weights import learn_weights
from splade.retrieval.stored_run import StoredRun
from splade.tasks.compare import named_runs

FUSED = "fused"
_METRICS = ("nDCG@10", "R@100")


def fuse(experiment: Experiment) -> TaskResult:
    """Fuse `runs` into config.out_dir/run.json; with qrels, evaluate."""
    require_all(experiment, "fuse")
    out_dir, settings = Path(str(experiment.config.out_dir)), experiment.fuse
    metrics = experiment.metrics or next(iter(experiment.config.eval_metric), list(_METRICS))
    parse_metrics([*metrics, settings.metric])
    runs = [StoredRun.read(name, path) for name, path in named_runs(experiment.runs).items()]
    qrels = None if experiment.qrels is None else read_qrels(experiment.qrels)
    learned_from = qrels if settings.qrels is None else read_qrels(settings.qrels)
    retriever, notes = fused(runs, settings, learned_from)
    queries = dict.fromkeys((query_id for run in runs for query_id in run.run), "")
    protocol = None if qrels is None else TrecProtocol(metrics)
    top_k = experiment.config.top_k
    result = evaluate_retriever(retriever, Dataset(FUSED, queries, qrels), protocol, top_k, out_dir)
    save_record(experiment, out_dir, "fuse")
    lines = [f"{retriever.name}: {cost_line(result.costs)}", *notes, f"  in {out_dir / RUN_FILE}"]
    blocks = ["\n".join(lines)]
    if qrels is not None:
        both = {FUSED: read_run(out_dir / RUN_FILE)} | {run.name: run.run for run in runs}
        compared = compare_runs(both, qrels, metrics, baseline=FUSED)
        blocks.insert(0, write_comparison(compared, out_dir / "compare")[0])
    return TaskResult(text="\n\n".join(blocks), findings=result.findings)


def fused(runs: Sequence[StoredRun], settings: FuseConfig, qrels: Qrels | None) -> tuple[FusedRetriever, list[str]]:
    """Return the fusion of runs as `fuse` says, and what was learned, a line each.

    Raises:
        ConfigError: the weights do not fit the runs, or are to be learned without judgements.
    """
    fusion = Fusion(settings.method, settings.k, settings.normalise)
    if settings.weights != "learn":
        return FusedRetriever(runs, fusion, weights_in_order(settings.weights, [run.name for run in runs])), []
    if qrels is None:
        raise ConfigError("fuse.weights=learn needs judged queries: give fuse.qrels=FILE, or +qrels=FILE")
    learned = learn_weights([run.run for run in runs], qrels, fusion, settings.metric)
    return FusedRetriever(runs, fusion, learned.weights, learned.by_query), [f"  {learned}"]


def weights_in_order(weights: Sequence[float] | Mapping[str, float] | None, names: Sequence[str]) -> list[float] | None:
    """Return the weights of `fuse.weights` in the order of the rankings; one that is not named has 0.

    Raises:
        ConfigError: a name that no ranking has.
    """
    if not isinstance(weights, Mapping):
        return None if weights is None else list(weights)
    for name in weights:
        if name not in names:
            known = ", ".join(names)
            raise ConfigError(f"fuse.weights.{name}: nothing of that name is fused{nearest(name, names)}: {known}")
    return [weights.get(name, 0.0) for name in names]
