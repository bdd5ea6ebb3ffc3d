"""Task: what adapting a model to a collection has brought; the last step of `scripts/adapt.sh`."""

from dataclasses import dataclass
from pathlib import Path

from splade.config import Experiment, require
from splade.errors import DataError
from splade.evaluation.costs import Costs
from splade.reports.summaries import before_after_table
from splade.retrieval.evaluate_retriever import PERF_FILE, STATS_FILE
from splade.storage.atomic import read_json, write_json

BEFORE, AFTER = "before", "after"
SUMMARY_FILE = "summary.json"
METRICS = {"ndcg@10": "NDCG@10", "recall@100": "Recall@100"}
COSTS = ("flops", "L0_q", "L0_d", "index_bytes")


@dataclass(frozen=True)
class AdaptResult:
    """One model on one data set, before and after training on it.

    Attributes:
        dataset: name and split of the data set.
        stages: `before` and `after` to metrics and costs.
        file: the same figures as JSON.
    """

    dataset: str
    stages: dict[str, tuple[dict[str, float], Costs]]
    file: Path

    def summary(self) -> str:
        """Return one line per figure."""
        return f"{before_after_table(self.dataset, self.stages)}\n  in {self.file}"


def adapt(experiment: Experiment) -> AdaptResult:
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
    return AdaptResult(f"{dataset} ({stats[AFTER]['split']})", stages, out_dir / SUMMARY_FILE)
