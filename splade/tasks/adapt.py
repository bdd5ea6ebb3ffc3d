"""Task: what adapting a model to a collection has brought; the last step of `scripts/adapt.sh`."""

from pathlib import Path

from splade.config import Experiment, require
from splade.errors import DataError
from splade.evaluation.costs import Costs
from splade.reports.summaries import TaskResult, before_after_table
from splade.retrieval.evaluate_retriever import PERF_FILE, STATS_FILE
from splade.storage.atomic import read_json, write_json

BEFORE, AFTER = "before", "after"
SUMMARY_FILE = "summary.json"
METRICS = {"ndcg@10": "NDCG@10", "recall@100": "Recall@100"}
COSTS = ("flops", "L0_q", "L0_d", "index_bytes")


def adapt(experiment: Experiment) -> TaskResult:
    """Compare the two evaluations that splade.beir_eval wrote to config.out_dir/before and config.out_dir/after."""
    require(experiment, "config.out_dir", "beir.dataset")
    out_dir, dataset = Path(str(experiment.config.out_dir)), str(experiment.beir.dataset)
    folders = {when: out_dir / when / "beir" / dataset for when in (BEFORE, AFTER)}
    metrics = {when: read_json(folder / PERF_FILE) for when, folder in folders.items()}
    stats = {when: read_json(folder / STATS_FILE) for when, folder in folders.items()}
    if stats[BEFORE]["split"] != stats[AFTER]["split"]:
        raise DataError(
            f"{out_dir}: the evaluation before is of the split '{stats[BEFORE]['split']}', the one after of "
            f"'{stats[AFTER]['split']}': run scripts/adapt.sh with the same beir.split for both"
        )
    figures = {name: {when: metrics[when][metric] for when in folders} for name, metric in METRICS.items()}
    figures |= {name: {when: stats[when][name] for when in folders} for name in COSTS}
    write_json(out_dir / SUMMARY_FILE, figures)
    stages = {when: (metrics[when], Costs.from_json(stats[when], str(folders[when]))) for when in folders}
    table = before_after_table(f"{dataset} ({stats[AFTER]['split']})", stages)
    return TaskResult(text=f"{table}\n  in {out_dir / SUMMARY_FILE}")
