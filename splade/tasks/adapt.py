"""Task: move a trained model to a collection, with or without judged queries; keep it where that does not help."""

import logging
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from splade.config import Experiment, require
from splade.config.jobs import Figures
from splade.config.record import save_record
from splade.datasets.collections import open_collection
from splade.distributed import n_processes
from splade.errors import ConfigError
from splade.models.save import MODEL_FOLDER, QUERY_MODEL_FOLDER
from splade.reports.summaries import TaskResult, before_after_table
from splade.retrieval.evaluate_retriever import EvaluatedRun
from splade.storage.atomic import write_json
from splade.tasks.adaptation import corpus_path, evaluated_set, judged_set
from splade.tasks.adaptation_queries import run_made_stage
from splade.tasks.adaptation_stage import AFTER, BEFORE, CHECKPOINT, Stage, evaluate_in, run_judged_stage
from splade.tasks.evaluation_sets import all_findings
from splade.tasks.made_set import MADE, made_set
from splade.tasks.systems import SparseSystem

logger = logging.getLogger(__name__)

SUMMARY_FILE = "summary.json"
METRICS = {"ndcg@10": "NDCG@10", "recall@100": "Recall@100"}
ENOUGH_JUDGED = 200
"""Judged queries from which training on them is worth while; fewer only say which model is better."""
COSTS = ("flops", "L0_q", "L0_d", "index_bytes")


@dataclass(frozen=True, kw_only=True)
class AdaptResult(TaskResult):
    """An adapted model, or the old one.

    Attributes:
        stages: on made queries, on judged queries, or both.
        test: results on the test queries, before and, if an adapted model was kept, after.
    """

    stages: tuple[Stage, ...]
    test: dict[str, EvaluatedRun]

    def figures(self) -> list[Figures]:
        """Return the metrics on the held-out queries, then the last results on the test queries."""
        held_out = Figures("held-out queries", self.stages[-1].verdict.after)
        return [held_out, *[run.figures() for run in self.test.values()][-1:]]


def adapt(experiment: Experiment) -> AdaptResult:
    """Train a model on queries made from a collection, on judged ones, or both; the best is in out_dir/checkpoint."""
    require(experiment, "config.out_dir", "init_dict.model_type_or_dir")
    if n_processes() > 1:
        raise ConfigError("splade.adapt runs in one process; start it without torchrun")
    out_dir = Path(str(experiment.config.out_dir))
    judged = judged_set(experiment)
    few = judged is None or len(judged.queries) < ENOUGH_JUDGED
    wanted = experiment.adapt.queries or ("made" if few else "judged")
    if judged is None and wanted in ("judged", "both"):
        raise ConfigError(f"adapt.queries={wanted}: there are no judged queries to train on; adapt.queries=made")
    test_queries = evaluated_set(experiment)
    as_it_is = deepcopy(experiment)
    as_it_is.config.pretrained_no_yamlconfig = True
    save_record(experiment, out_dir, "adapt")
    test = {}
    if test_queries is not None:
        logger.info("the model as it is: %s (%s)", test_queries.name, test_queries.split)
        old = SparseSystem(as_it_is, {})
        test[BEFORE] = evaluate_in(out_dir, as_it_is, old, test_queries, BEFORE, BEFORE)
    stages: list[Stage] = []
    trains_on_judged = judged is not None and wanted != "made"
    if wanted != "judged":
        folder = out_dir / MADE if trains_on_judged else out_dir
        train_set = made_set(experiment, open_collection(corpus_path(experiment)), out_dir / MADE)
        stages.append(run_made_stage(experiment, train_set, folder, judged))
    if judged is not None and trains_on_judged:
        so_far = deepcopy(experiment)
        if stages:
            so_far.init_dict.model_type_or_dir = str(out_dir / MADE / CHECKPOINT / MODEL_FOLDER)
            if stages[0].helped:
                so_far.init_dict.model_type_or_dir_q = str(out_dir / MADE / CHECKPOINT / QUERY_MODEL_FOLDER)
        stages.append(run_judged_stage(so_far, judged, out_dir))
    if test_queries is not None and any(stage.helped for stage in stages):
        new = SparseSystem(stages[-1].experiment, {})
        index = stages[-1].index if stages[-1].helped else BEFORE
        test[AFTER] = evaluate_in(out_dir, as_it_is, new, test_queries, index, AFTER)
    write_json(out_dir / SUMMARY_FILE, _summary(stages, test))
    blocks = [*(stage.summary() for stage in stages), *_tables(test)]
    blocks += [f"model in {out_dir / CHECKPOINT / MODEL_FOLDER}\n  in {out_dir / SUMMARY_FILE}"]
    return AdaptResult(
        text="\n\n".join(blocks), findings=all_findings(list(test.values())), stages=tuple(stages), test=test
    )


def _tables(test: dict[str, EvaluatedRun]) -> list[str]:
    stages = {when: (run.metrics, run.costs) for when, run in test.items()}
    dataset = next((run.dataset for run in test.values()), None)
    return [] if dataset is None else [before_after_table(f"{dataset.name} ({dataset.split})", stages)]


def _summary(stages: list[Stage], test: dict[str, EvaluatedRun]) -> dict[str, object]:
    """Return which model was kept, what each stage found, and the figures of the test queries before and after."""
    summary: dict[str, object] = {"kept": AFTER if any(stage.helped for stage in stages) else BEFORE}
    summary |= {stage.name: stage.to_json() for stage in stages}
    if test:
        for name, metric in METRICS.items():
            summary[name] = {when: run.metrics[metric] for when, run in test.items()}
        for name in COSTS:
            summary[name] = {when: getattr(run.costs, name) for when, run in test.items()}
    return summary
