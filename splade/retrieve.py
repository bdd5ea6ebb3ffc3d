"""Task: encode queries, search the index, evaluate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splade.config import Experiment, require, run_task
from splade.config.record import save_record
from splade.evaluate import EvaluationResult, check_datasets, evaluate
from splade.files import write_json


@dataclass(frozen=True)
class RetrieveResult:
    """Runs with their cost, and their metrics where there are judgements.

    Attributes:
        stats: data set name -> figures of `RetrievalStats`.
        evaluation: metrics per data set, or None without judgements.
        folder: where the runs are.
    """

    stats: dict[str, dict[str, Any]]
    evaluation: EvaluationResult | None
    folder: Path

    def summary(self) -> str:
        """Return effectiveness and cost of every data set."""
        lines = []
        for name, stats in self.stats.items():
            lines.append(
                f"{name}: {stats['n_queries']} queries, {stats['L0_q']:.1f} terms each, flops {stats['flops']:.3f}, "
                f"{stats['encoding_ms_per_query']:.1f} ms encoding and {stats['search_ms_per_query']:.2f} ms search "
                f"per query ({stats['n_threads']} threads)"
            )
            if stats["n_empty_queries"]:
                lines.append(
                    f"warning: {name}: {stats['n_empty_queries']} queries have no term at all and find nothing"
                )
        evaluation = [self.evaluation.summary()] if self.evaluation is not None else []
        return "\n".join([*lines, f"  runs in {self.folder}", *evaluation])


def retrieve(experiment: Experiment) -> RetrieveResult:
    """Search config.index_dir for every query of data.Q_COLLECTION_PATH, then evaluate.

    Writes out_dir/<name>/run.json and run.trec, q_stats.json and, with judgements, perf.json.
    """
    require(experiment, "config.index_dir", "config.out_dir", "data.Q_COLLECTION_PATH", "config.retrieval_name")
    has_qrels = any(path is not None for path in experiment.data.EVAL_QREL_PATH)
    check_datasets(experiment)
    from splade.datasets.collections import open_queries
    from splade.datasets.qrels import read_qrels
    from splade.models.checkpoint import load_for_inference
    from splade.pipeline import Retriever, open_index_of
    from splade.pipeline.device import pick_device, search_threads

    run, out_dir = experiment.config, Path(str(experiment.config.out_dir))
    collections = [open_queries(path) for path in experiment.data.Q_COLLECTION_PATH]
    for path in experiment.data.EVAL_QREL_PATH:
        if path is not None:
            read_qrels(path)  # a wrong file shows before the search, not after it
    model = load_for_inference(experiment).to(pick_device())
    index = open_index_of(model, Path(str(run.index_dir)))
    stats = {}
    for name, queries in zip(run.retrieval_name, collections, strict=True):
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
        stats[name] = write_run(retriever, queries, out_dir / name, tag=f"splade-{name}")
    save_record(experiment, out_dir, "retrieve")
    return RetrieveResult(stats, evaluate(experiment) if has_qrels else None, out_dir)


def write_run(retriever: Any, queries: Any, folder: Path, tag: str) -> dict[str, Any]:
    """Retrieve for all queries and write `run.json`, `run.trec` and `q_stats.json`; return the statistics."""
    from splade.datasets.runs import iterate_run, write_run_json, write_run_trec

    write_run_json(folder / "run.json", retriever.run(queries))
    write_run_trec(folder / "run.trec", ((name, dict(pairs)) for name, pairs in iterate_run(folder / "run.json")), tag)
    stats = retriever.stats().as_dict()
    write_json(folder / "q_stats.json", stats)
    return stats


if __name__ == "__main__":
    run_task(retrieve)
