"""The one road from a retriever and a data set to numbers: retrieve, write, evaluate, look for what is wrong."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from splade.config.jobs import Figures
from splade.datasets.dataset import Dataset
from splade.datasets.runs import iterate_run, read_run, write_run_json, write_run_trec
from splade.distributed import on_first_process
from splade.evaluation.checks import (
    Finding,
    check_depth,
    check_qrels_against_collection,
    check_qrels_against_queries,
    check_results,
    check_run,
    check_scores,
    named,
    raise_errors,
    warning_messages,
)
from splade.evaluation.costs import Costs
from splade.evaluation.measures import largest_cut
from splade.evaluation.protocols import EvaluationProtocol
from splade.retrieval.protocol import Retriever
from splade.storage.atomic import read_json_object, write_json
from splade.storage.locks import FolderLock
from splade.storage.paths import resolve_path

RUN_FILE, PERF_FILE, COSTS_FILE, TERMS_FILE = "run.json", "perf.json", "q_stats.json", "q_dist.json"
STATS_FILE, EVALUATION_FILE, BY_QUERY_FILE = "stats.json", "eval_stats.json", "perf_by_query.json"


@dataclass(frozen=True)
class EvaluatedRun:
    """A system, by its label in tables, on a data set.

    Attributes:
        metrics: metric name to value; empty without qrels.
        findings: what looks wrong.
        folder: where the files are.
        reused: whether an earlier evaluation had already been through.
    """

    system: str
    dataset: Dataset
    metrics: dict[str, float]
    costs: Costs
    findings: tuple[Finding, ...]
    folder: Path
    reused: bool = False

    def figures(self) -> Figures:
        """Return metrics and costs for the table of a sweep."""
        return Figures(self.dataset.name, self.metrics, self.costs.to_json())


def evaluate_retriever(
    retriever: Retriever,
    dataset: Dataset,
    protocol: EvaluationProtocol | None,
    top_k: int,
    folder: Path,
    findings: Iterable[Finding] = (),
) -> EvaluatedRun:
    """Retrieve for all queries of a data set and evaluate the run.

    `folder` takes `run.json`, `run.trec`, `q_stats.json` (costs), `q_dist.json` (terms of queries) and, with a
    protocol, `perf.json` and `eval_stats.json`; without one, the run is only written. `findings` are those from before.

    Raises:
        BusyError: another process is writing to the folder.
        DataError: queries, qrels and documents do not belong together, or the ranking ranks nothing.
    """
    found = [*findings, *named(dataset.name, check_qrels(dataset, retriever, protocol))]
    with FolderLock(folder):
        return _evaluate(retriever, dataset, protocol, top_k, folder, found)


def evaluate_shared(
    retriever: Retriever,
    dataset: Dataset,
    protocol: EvaluationProtocol | None,
    top_k: int,
    folder: Path,
    findings: Iterable[Finding] = (),
) -> EvaluatedRun:
    """Evaluate in the first of several processes, after all have shared what they can; return its result in all."""
    retriever.share(dataset.queries, top_k)
    return on_first_process(lambda: evaluate_retriever(retriever, dataset, protocol, top_k, folder, findings))


def _evaluate(
    retriever: Retriever,
    dataset: Dataset,
    protocol: EvaluationProtocol | None,
    top_k: int,
    folder: Path,
    found: list[Finding],
) -> EvaluatedRun:
    for stale in (
        STATS_FILE,
        PERF_FILE,
        EVALUATION_FILE,
        COSTS_FILE,
        TERMS_FILE,
        BY_QUERY_FILE,
    ):  # figures that are there belong to the run
        (folder / stale).unlink(missing_ok=True)
    write_run(retriever, dataset, top_k, folder)
    costs = retriever.costs()
    found += named(dataset.name, retriever.findings())
    write_json(folder / COSTS_FILE, costs.to_json() | {"warnings": warning_messages(found)})
    if (terms := retriever.query_distribution()) is not None:
        write_json(folder / TERMS_FILE, terms, indent=None)
    if protocol is None:
        found += named(dataset.name, raise_errors(check_scores(read_run(folder / RUN_FILE))))
        return EvaluatedRun(retriever.name, dataset, {}, costs, tuple(found), folder)
    evaluated = _evaluate_run(folder, dataset, protocol)
    found += [finding for finding in evaluated.findings if finding not in found]
    return replace(evaluated, system=retriever.name, costs=costs, findings=tuple(found))


def evaluate_stored_run(folder: Path, dataset: Dataset, protocol: EvaluationProtocol) -> EvaluatedRun:
    """Evaluate `folder/run.json`, of whatever system; write `perf.json` and `eval_stats.json`.

    Raises:
        DataError: there is no run, or it does not belong to the qrels, or ranks nothing.
    """
    resolve_path(folder / RUN_FILE)
    with FolderLock(folder):
        return _evaluate_run(folder, dataset, protocol)


def _evaluate_run(folder: Path, dataset: Dataset, protocol: EvaluationProtocol) -> EvaluatedRun:
    run, qrels = read_run(folder / RUN_FILE), dataset.qrels or {}
    all_qrels = [judgements for judgements, _ in protocol.judged(qrels)]
    fit = [finding for judgements in all_qrels for finding in check_run(run, judgements)]
    found = raise_errors(named(dataset.name, dict.fromkeys([*fit, *check_scores(run)])))
    costs = stored_costs(folder)
    if (costs.top_k or 0) < largest_cut(protocol.metrics):  # less was asked for, or nobody knows how much
        found += named(dataset.name, check_depth(run, protocol.metrics))
    metrics = protocol.evaluate(run, qrels)
    found += named(dataset.name, dict.fromkeys(one for some in all_qrels for one in check_results(run, some)))
    judged = [query_id for query_id, documents in qrels.items() if documents]
    without_result = sum(not run.get(query_id) for query_id in judged)
    stats = {"n_queries": len(judged), "n_without_result": without_result, "warnings": warning_messages(found)}
    write_json(folder / PERF_FILE, metrics)
    write_json(folder / EVALUATION_FILE, stats)
    return EvaluatedRun(costs.model or folder.name, dataset, metrics, costs, tuple(found), folder)


def stored_costs(folder: Path) -> Costs:
    """Return the costs that were written with a run; nothing is known of runs of other systems."""
    path = folder / COSTS_FILE
    return Costs.from_json(read_json_object(path), str(path)) if path.is_file() else Costs()


def write_run(retriever: Retriever, dataset: Dataset, top_k: int, folder: Path) -> None:
    """Retrieve for all queries and write the run as JSON and in TREC's form, one query in memory at a time."""
    write_run_json(folder / RUN_FILE, retriever.retrieve(dataset.queries, top_k))
    rankings = ((query_id, dict(pairs)) for query_id, pairs in iterate_run(folder / RUN_FILE))
    write_run_trec(folder / "run.trec", rankings, f"{retriever.tag}-{dataset.name.replace('/', '-')}")


def check_qrels(dataset: Dataset, retriever: Retriever, protocol: EvaluationProtocol | None = None) -> list[Finding]:
    """Do queries, documents and all qrels of a protocol belong together?

    Raises:
        DataError: they share no query or no relevant document, or their ids differ by whitespace.
    """
    if dataset.qrels is None:
        return []
    findings: list[Finding] = []
    for qrels, _ in protocol.judged(dataset.qrels) if protocol is not None else [(dataset.qrels, ())]:
        findings += check_qrels_against_queries(qrels, dataset.queries)
        relevant = {doc_id for documents in qrels.values() for doc_id, grade in documents.items() if grade > 0}
        # Stray whitespace in the qrels deserves a message of its own: look for the ids without it, too.
        known = retriever.known_doc_ids(relevant | {doc_id.strip() for doc_id in relevant})
        if known is not None:
            findings += check_qrels_against_collection(qrels, dict.fromkeys(known))
    return raise_errors(list(dict.fromkeys(findings)))
