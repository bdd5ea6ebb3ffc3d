"""BEIR's own evaluation (arXiv 2104.08663): NDCG@10, Recall@100 and R_cap@100 by beir's evaluator."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from splade.datasets.qrels import Qrels
from splade.datasets.runs import Run
from splade.evaluation.metrics import judged_queries, scored_queries


def drop_identical_ids(run: Run) -> Run:
    """Return the run without the documents that carry their query's own id.

    In ArguAna and Quora the queries are documents of the collection; finding oneself is no merit.
    """
    return {
        query_id: {doc_id: score for doc_id, score in documents.items() if doc_id != query_id}
        for query_id, documents in run.items()
    }


def evaluate_beir(run: Run, qrels: Qrels) -> dict[str, float]:
    """Evaluate with beir's evaluator, after dropping the documents with the query's own id.

    Every judged query counts: beir averages NDCG and Recall over the queries of the run alone, so one that
    retrieved nothing is handed over with an empty result. Values are rounded to five digits, as beir rounds them.
    Equal scores: NDCG and Recall follow trec_eval (greater document id first), R_cap the order within the run.

    Returns:
        `NDCG@10`, `Recall@100`, `R_cap@100`.

    Raises:
        DataError: as `evaluate_run`.

    Example:
        >>> evaluate_beir({"q": {"q": 9.0, "d1": 2.0, "d2": 1.0}}, {"q": {"d1": 1}})
        {'NDCG@10': 1.0, 'Recall@100': 1.0, 'R_cap@100': 1.0}
    """
    from beir.retrieval.evaluation import EvaluateRetrieval

    judged = judged_queries(qrels)
    scored = drop_identical_ids(scored_queries(run, judged))
    # R_cap divides by the number of relevant documents: a query without any is worth zero, not a division by zero.
    answerable = {query_id: documents for query_id, documents in scored.items() if max(judged[query_id].values()) > 0}
    with _quiet():
        ndcg, _, recall, _ = EvaluateRetrieval.evaluate(judged, scored, [10, 100], ignore_identical_ids=False)
        r_cap = EvaluateRetrieval.evaluate_custom(judged, answerable, [100], metric="recall_cap")
    return {
        "NDCG@10": float(ndcg["NDCG@10"]),
        "Recall@100": float(recall["Recall@100"]),
        "R_cap@100": float(r_cap["R_cap@100"]),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence beir, which logs every metric it returns, partly through the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
