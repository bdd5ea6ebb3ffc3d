"""Task: encode queries, search the index, evaluate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.evaluation.checks import Finding, warning_messages
from splade.reports.summaries import warning_block
from splade.storage.atomic import write_json
from splade.tasks.evaluate import EvaluationResult, check_datasets, evaluate


@dataclass(frozen=True)
class RetrieveResult:
    """Runs with their cost, and their metrics where there are judgements.

    Attributes:
        stats: data set name -> figures of `RetrievalStats`.
        evaluation: metrics per data set, or None without judgements.
        folder: where the runs are.
        warnings: what looks wrong, in searching and in evaluating.
    """

    stats: dict[str, dict[str, Any]]
    evaluation: EvaluationResult | None
    folder: Path
    warnings: tuple[Finding, ...] = ()

    def summary(self) -> str:
        """Return effectiveness and cost of every data set, then the warnings."""
        lines = []
        for name, stats in self.stats.items():
            lines.append(
                f"{name}: {stats['n_queries']} queries, {stats['L0_q']:.1f} terms each, flops {stats['flops']:.3f}, "
                f"{stats['encoding_ms_per_query']:.1f} ms encoding and {stats['search_ms_per_query']:.2f} ms search "
                f"per query ({stats['n_threads']} threads)"
            )
            if stats["n_empty_queries"]:
                lines.append(f"  {stats['n_empty_queries']} of them have no term at all and find nothing")
        evaluation = self.evaluation.lines() if self.evaluation is not None else []
        return "\n".join([*lines, f"  runs in {self.folder}", *evaluation, *warning_block(self.warnings)])


def retrieve(experiment: Experiment) -> RetrieveResult:
    """Search config.index_dir for every query of data.Q_COLLECTION_PATH, then evaluate.

    Writes out_dir/<name>/run.json and run.trec, q_stats.json and, with judgements, perf.json.
    """
    require(experiment, "config.index_dir", "config.out_dir", "data.Q_COLLECTION_PATH", "config.retrieval_name")
    has_qrels = any(path is not None for path in experiment.data.EVAL_QREL_PATH)
    check_datasets(experiment)
    from splade.datasets.collections import open_queries
    from splade.datasets.qrels import read_qrels
    from splade.evaluation.checks import named
    from splade.models.load import load_for_inference
    from splade.pipeline import Retriever, open_index_of
    from splade.pipeline.checks import check_judgements, check_max_length, check_settings

    run, out_dir = experiment.config, Path(str(experiment.config.out_dir))
    warnings = check_settings(experiment)
    collections = [open_queries(path) for path in experiment.data.Q_COLLECTION_PATH]
    paths = experiment.data.EVAL_QREL_PATH or [None] * len(collections)
    judgements = [read_qrels(path) if path is not None else None for path in paths]
    model = load_for_inference(experiment)
    warnings += check_max_length(model, run.max_length)
    index = open_index_of(model, Path(str(run.index_dir)))
    suspicious = {
        # What does not belong together shows before the search, not after it.
        name: named(name, check_judgements(qrels, (query_id for query_id, _ in queries), index) if qrels else [])
        for name, queries, qrels in zip(run.retrieval_name, collections, judgements, strict=True)
    }
    stats = {}
    for name, queries, qrels in zip(run.retrieval_name, collections, judgements, strict=True):
        retriever = Retriever.of(model, index, run)
        stats[name], found = write_run(
            retriever, queries, out_dir / name, f"splade-{name}", suspicious[name], judged=qrels is not None
        )
        warnings += found
    save_record(experiment, out_dir, "retrieve")
    evaluation = evaluate(experiment) if has_qrels else None
    in_evaluation = evaluation.warnings if evaluation is not None else ()
    known = [finding.message for finding in warnings]
    warnings += [finding for finding in in_evaluation if finding.message not in known]
    return RetrieveResult(stats, evaluation, out_dir, tuple(warnings))


def write_run(
    retriever: Any, queries: Any, folder: Path, tag: str, warnings: Sequence[Finding] = (), judged: bool = True
) -> tuple[dict[str, Any], list[Finding]]:
    """Retrieve for all queries and write `run.json`, `run.trec` and `q_stats.json`.

    Args:
        retriever: a `Retriever`.
        queries: (query_id, text) pairs.
        folder: where the files go.
        tag: name of the run in its TREC form.
        warnings: what was found before.
        judged: whether the run will be evaluated, which looks at its scores.

    Returns:
        The statistics, and the warnings with those that the search adds.

    Raises:
        DataError: every query vector is empty, or all documents of every query have the same score.
    """
    from splade.datasets.runs import iterate_run, read_run, write_run_json, write_run_trec
    from splade.evaluation.checks import check_scores, raise_errors
    from splade.pipeline.checks import check_query_vectors

    write_run_json(folder / "run.json", retriever.run(queries))
    write_run_trec(folder / "run.trec", ((name, dict(pairs)) for name, pairs in iterate_run(folder / "run.json")), tag)
    stats = retriever.stats().as_dict()
    found = [*warnings, *check_query_vectors(stats, retriever.model.vocab_size)]
    if not judged:
        found += raise_errors(check_scores(read_run(folder / "run.json")))
    write_json(folder / "q_stats.json", stats | {"warnings": warning_messages(found)})
    return stats, found
