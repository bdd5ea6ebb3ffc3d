"""Task: what adapting a model to a collection has brought; the last step of `scripts/adapt.sh`."""

from dataclasses import dataclass
from pathlib import Path

from splade.config import Experiment, require
from splade.errors import DataError
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
        figures: metric or cost -> {"before": value, "after": value}.
        file: the same figures as JSON.
    """

    dataset: str
    figures: dict[str, dict[str, float]]
    file: Path

    def summary(self) -> str:
        """Return one line per figure."""
        lines = [f"{self.dataset:24}{BEFORE:>14}{AFTER:>14}"]
        for name, values in self.figures.items():
            lines.append(f"  {name:22}{values[BEFORE]:>14.4f}{values[AFTER]:>14.4f}")
        return "\n".join([*lines, f"  in {self.file}"])


def adapt(experiment: Experiment) -> AdaptResult:
    """Compare the two evaluations that splade.beir_eval wrote to config.out_dir/before and config.out_dir/after.

    Writes config.out_dir/summary.json: effectiveness and cost of the data set beir.dataset, before and after.
    """
    require(experiment, "config.out_dir", "beir.dataset")
    out_dir, dataset = Path(str(experiment.config.out_dir)), str(experiment.beir.dataset)
    folders = {when: out_dir / when / "beir" / dataset for when in (BEFORE, AFTER)}
    metrics = {when: read_json(folder / "perf.json") for when, folder in folders.items()}
    costs = {when: read_json(folder / "stats.json") for when, folder in folders.items()}
    if costs[BEFORE]["split"] != costs[AFTER]["split"]:
        raise DataError(
            f"{out_dir}: the evaluation before is of the split '{costs[BEFORE]['split']}', the one after of "
            f"'{costs[AFTER]['split']}': run scripts/adapt.sh with the same beir.split for both"
        )
    figures = {name: {when: metrics[when][metric] for when in folders} for name, metric in METRICS.items()}
    figures |= {name: {when: costs[when][name] for when in folders} for name in COSTS}
    write_json(out_dir / SUMMARY_FILE, figures)
    return AdaptResult(f"{dataset} ({costs[AFTER]['split']})", figures, out_dir / SUMMARY_FILE)
