"""Task: train, index, retrieve and evaluate, flops, figures; one after the other in one process."""

import logging
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from splade.config import Experiment, require
from splade.reports.summaries import warning_block
from splade.tasks.evaluate import check_datasets
from splade.tasks.flops import FlopsResult, flops
from splade.tasks.index import IndexResult, index
from splade.tasks.retrieve import RetrieveResult, retrieve
from splade.tasks.train import train
from splade.training.run import TrainResult

logger = logging.getLogger(__name__)

# Encoding a collection twice is cheap up to here; beyond, the untrained model is only seen in validation.
COMPARE_UP_TO_DOCUMENTS = 20_000


@dataclass(frozen=True)
class AllResult:
    """Everything that `splade.all` did; `before` is the same retrieval with the untrained model, where it was cheap."""

    train: TrainResult | None
    index: IndexResult
    retrieve: RetrieveResult
    flops: FlopsResult | None
    before: RetrieveResult | None
    index_before: IndexResult | None

    def summary(self) -> str:
        """Return one screen: effectiveness and cost before and after, and where everything is."""
        lines = [self.train.summary() if self.train is not None else "model used as it is, not trained", ""]
        for name, stats in self.retrieve.stats.items():
            lines += [f"{name}  ({stats['n_queries']} queries, {self.index.n_docs} documents)"]
            head = ("", "before", "after") if self.before is not None else ("", "", "")
            rows = [head, *self._rows(name)]
            width = max(len(label) for label, _, _ in rows)
            lines += [f"  {label:{width}}{first:>10}{second:>10}".rstrip() for label, first, second in rows]
        folders = [self.index.folder, self.retrieve.folder]
        lines += ["", "index in   " + str(folders[0]), "results in " + str(folders[1])]
        return "\n".join([*lines, *warning_block([*self.index.warnings, *self.retrieve.warnings])])

    def _rows(self, name: str) -> list[tuple[str, str, str]]:
        values = _figures(self.retrieve, self.index, name)
        before = _figures(self.before, self.index_before, name) if self.before and self.index_before else {}
        if not before:
            return [(label, value, "") for label, value in values.items()]
        return [(label, before.get(label, ""), value) for label, value in values.items()]


def run_all(experiment: Experiment) -> AllResult:
    """Train, index, retrieve, evaluate, and report effectiveness and cost side by side.

    A model used as it is (config.pretrained_no_yamlconfig=true, or config.regularizer=eval_only) is not trained.
    """
    trains = not experiment.config.pretrained_no_yamlconfig and experiment.config.regularizer != "eval_only"
    if experiment.config.regularizer == "eval_only":
        experiment = deepcopy(experiment)
        experiment.config.pretrained_no_yamlconfig = True
    n_documents = _check_inputs(experiment)
    index_before = before = None
    if trains and n_documents <= COMPARE_UP_TO_DOCUMENTS:
        untrained = _untrained(experiment)
        index_before, before = index(untrained), retrieve(untrained)
    return AllResult(
        train=train(experiment) if trains else None,
        index=index(experiment),
        retrieve=retrieve(experiment),
        flops=flops(experiment) if experiment.data.flops_queries else None,
        before=before,
        index_before=index_before,
    )


def _check_inputs(experiment: Experiment) -> int:
    """Open everything that the last tasks read before the first one starts; return the number of documents."""
    from splade.datasets.collections import open_collection, open_queries
    from splade.datasets.qrels import read_qrels

    require(experiment, "config.index_dir", "config.out_dir", "data.COLLECTION_PATH", "data.Q_COLLECTION_PATH")
    check_datasets(experiment)
    flops_queries = [experiment.data.flops_queries] if experiment.data.flops_queries else []
    for path in [*experiment.data.Q_COLLECTION_PATH, *flops_queries]:
        len(open_queries(path))
    for qrels_path in experiment.data.EVAL_QREL_PATH:
        if qrels_path is not None:
            read_qrels(qrels_path)
    return len(open_collection(str(experiment.data.COLLECTION_PATH)))


def _untrained(experiment: Experiment) -> Experiment:
    """Return the experiment with the model before training, its index and runs in sub-folders `before`."""
    untrained = deepcopy(experiment)
    untrained.config.pretrained_no_yamlconfig = True
    untrained.config.index_dir = str(Path(str(experiment.config.index_dir)) / "before")
    untrained.config.out_dir = str(Path(str(experiment.config.out_dir)) / "before")
    return untrained


def _figures(retrieved: RetrieveResult, indexed: IndexResult, name: str) -> dict[str, str]:
    stats = retrieved.stats[name]
    metrics = retrieved.evaluation.metrics.get(name, {}) if retrieved.evaluation is not None else {}
    return {metric: f"{value:.4f}" for metric, value in metrics.items()} | {
        "terms per document": f"{indexed.L0_d:.1f}",
        "terms per query": f"{stats['L0_q']:.1f}",
        "flops": f"{stats['flops']:.3f}",
        "index, MB": f"{indexed.n_bytes / 1e6:.2f}",
        "encoding, ms per query": f"{stats['encoding_ms_per_query']:.2f}",
        f"search, ms per query ({stats['n_threads']} threads)": f"{stats['search_ms_per_query']:.3f}",
    }
