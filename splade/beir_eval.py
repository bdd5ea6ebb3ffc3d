"""Task: index, retrieve and evaluate one BEIR data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splade.config import Experiment, require, run_task
from splade.config.record import save_record
from splade.files import write_json
from splade.index import write_index_reports
from splade.retrieve import write_run


@dataclass(frozen=True)
class BeirResult:
    """Metrics and costs on one data set.

    Attributes:
        dataset: name and split.
        metrics: NDCG@10, Recall@100, R_cap@100.
        costs: terms, FLOPS, bytes, milliseconds.
        folder: where the results are.
    """

    dataset: str
    metrics: dict[str, float]
    costs: dict[str, Any]
    folder: Path

    def summary(self) -> str:
        """Return effectiveness and cost."""
        effectiveness = "  ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        costs = self.costs
        return (
            f"{self.dataset}: {effectiveness}\n"
            f"  {costs['L0_d']:.1f} terms per document, {costs['L0_q']:.1f} per query, flops {costs['flops']:.3f}, "
            f"index {costs['index_bytes'] / 1e6:.1f} MB, {costs['search_ms_per_query']:.2f} ms search per query "
            f"({costs['n_threads']} threads)\n  in {self.folder}"
        )


def beir_eval(experiment: Experiment) -> BeirResult:
    """Index, search and evaluate the BEIR data set beir.dataset.

    It is taken from the folder beir.dataset_path/<dataset> when that is there, else downloaded to it.
    """
    require(experiment, "beir.dataset", "beir.dataset_path", "config.index_dir", "config.out_dir")
    from splade.datasets.beir import URL, BeirDataset, find_or_download
    from splade.evaluation.beir import evaluate_beir
    from splade.models.checkpoint import load_for_inference
    from splade.pipeline import Retriever, index_collection
    from splade.pipeline.device import pick_device, search_threads

    run, beir = experiment.config, experiment.beir
    name = str(beir.dataset)
    data = BeirDataset(find_or_download(name, Path(str(beir.dataset_path)), url=beir.url or URL), split=beir.split or "test")
    model = load_for_inference(experiment).to(pick_device())
    index_dir, out_dir = Path(str(run.index_dir)) / "beir" / name, Path(str(run.out_dir)) / "beir" / name
    index = index_collection(
        model, data.collection, index_dir, run.max_length, run.index_retrieve_batch_size, run.overwrite_final
    )
    write_index_reports(index, index_dir)
    retriever = Retriever(
        model,
        index,
        run.max_length,
        run.index_retrieve_batch_size,
        run.top_k,
        run.threshold,
        run.search_effort,
        search_threads(run.n_threads),
    )
    stats = write_run(retriever, list(data.queries.items()), out_dir, tag=f"splade-{name.replace('/', '-')}")
    from splade.datasets.runs import read_run

    metrics = evaluate_beir(read_run(out_dir / "run.json"), data.qrels)
    costs = {"L0_d": index.mean_terms, "index_bytes": index.n_bytes, "n_docs": index.n_docs} | stats
    write_json(out_dir / "perf.json", metrics)
    write_json(out_dir / "stats.json", {"dataset": name, "split": beir.split, "model": model.name} | costs)
    save_record(experiment, out_dir, "beir_eval")
    return BeirResult(f"{name} ({beir.split})", metrics, costs, out_dir)


if __name__ == "__main__":
    run_task(beir_eval)
