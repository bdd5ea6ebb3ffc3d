"""What a configuration says without having been asked for it gives way to what the command line says.

Somebody who asks for five documents per query did not ask for the recall at 100 that a configuration brought along.
Each such change is a line of the log. A contradiction between two keys that were both given stays an error.
"""

import logging
import re
from collections.abc import Iterator

from splade.config.schema import Experiment

logger = logging.getLogger(__name__)

ALTERNATIVES = (
    ("nb_iterations", "nb_epochs"),
    ("warmup_steps", "warmup_ratio"),
    ("train_batch_size", "per_device_train_batch_size"),
)
"""Keys of `config` of which exactly one is given."""

USUAL_METRICS = ("mrr_10", "ndcg_cut_10", "recall_100")
_LONGER_WITHOUT_CUT = ("recall", "ndcg_cut", "P", "success", "map_cut")  # trec_eval's usual cuts, up to 1000


def give_way(experiment: Experiment, given: frozenset[str]) -> None:
    """Change what is inherited where it contradicts what was given.

    Args:
        experiment: the settings.
        given: keys and groups that the command line set.

    Example:
        >>> experiment = Experiment()
        >>> experiment.config.top_k, experiment.config.eval_metric = 5, [["mrr_10", "nDCG@3"]]
        >>> give_way(experiment, frozenset({"config.top_k"}))
        >>> experiment.config.eval_metric
        [['mrr_5', 'nDCG@3']]
    """
    for rule in (_alternatives, _own_queries, _metrics, _monitored):
        for note in rule(experiment, given):
            logger.info("%s", note)


def _alternatives(experiment: Experiment, given: frozenset[str]) -> Iterator[str]:
    run = experiment.config
    for pair in ALTERNATIVES:
        for name, other in (pair, pair[::-1]):
            inherited = getattr(run, other)
            mine = f"config.{name}" in given and getattr(run, name) is not None and f"config.{other}" not in given
            if mine and inherited is not None:
                setattr(run, other, None)
                yield f"config.{name}={getattr(run, name)} takes the place of the inherited config.{other}={inherited}"


def _own_queries(experiment: Experiment, given: frozenset[str]) -> Iterator[str]:
    """Name the sets of queries after their files, and evaluate the usual metrics, where nothing else fits them."""
    run, data = experiment.config, experiment.data
    for key, paths, name in (
        ("data.Q_COLLECTION_PATH", data.Q_COLLECTION_PATH, "retrieval_name"),
        ("data.EVAL_QREL_PATH", data.EVAL_QREL_PATH, "eval_metric"),
    ):
        if key in given and f"config.{name}" not in given and len(getattr(run, name)) != len(paths):
            setattr(run, name, [])  # those are of the configuration's own sets
    if "data.Q_COLLECTION_PATH" in given and not run.retrieval_name:
        names = [_name_of(path) for path in data.Q_COLLECTION_PATH]
        if len(set(names)) == len(names) and all(names):
            run.retrieval_name = names
            yield f"config.retrieval_name={names}, after the files of the queries"
    if "data.EVAL_QREL_PATH" in given and not run.eval_metric and any(data.EVAL_QREL_PATH):
        names = [_cut(metric, run.top_k) for metric in USUAL_METRICS]
        run.eval_metric = [list(names) for _ in data.EVAL_QREL_PATH]
        yield f"config.eval_metric=[{', '.join(names)}]"


def _name_of(path: str) -> str:
    parts = re.split(r"[/:]", path.rstrip("/"))
    name = parts[-2] if len(parts) > 1 and parts[-1].startswith("raw.") else parts[-1]
    return re.sub(r"[^\w.+-]+", "_", name.partition(".")[0]).strip("_.-")


def _metrics(experiment: Experiment, given: frozenset[str]) -> Iterator[str]:
    run = experiment.config
    if "config.top_k" not in given or "config.eval_metric" in given:
        return
    cut = [list(dict.fromkeys(_cut(name, run.top_k) for name in names)) for names in run.eval_metric]
    if cut != run.eval_metric:
        shown = "; ".join(", ".join(names) for names in cut)
        yield f"config.top_k={run.top_k}: inherited metrics that look deeper are cut there: {shown}"
        run.eval_metric = cut


def _cut(metric: str, top_k: int) -> str:
    """Return a metric that looks at no more than `top_k` documents."""
    if metric in _LONGER_WITHOUT_CUT:
        return f"{metric}_{top_k}"
    return re.sub(r"(?<=[_@])\d+$", lambda depth: str(min(int(depth[0]), top_k)), metric)


def _monitored(experiment: Experiment, given: frozenset[str]) -> Iterator[str]:
    run, data = experiment.config, experiment.data
    ranking = data.VALIDATION_FULL_RANKING
    ranks = ranking is not None and ranking.D_COLLECTION_PATH is not None
    switched_off = any(name.startswith("data.VALIDATION_FULL_RANKING") for name in given)
    if switched_off and not ranks and run.monitoring_ckpt != "loss" and "config.monitoring_ckpt" not in given:
        yield f"without full ranking, the inherited config.monitoring_ckpt={run.monitoring_ckpt} gives way to loss"
        run.monitoring_ckpt = "loss"
