"""The same numbers as ir_measures, beir's evaluator and a reference written out by hand."""

import copy
import math

import ir_measures
import numpy as np
import pytest
from beir.retrieval.evaluation import EvaluateRetrieval

from splade.datasets.qrels import Qrels
from splade.datasets.runs import Run
from splade.evaluation.beir_protocol import evaluate_beir
from splade.evaluation.metrics import evaluate_run


def make_run_and_qrels(seed: int, ties: bool) -> tuple[dict, dict]:
    """A run with queries that nobody judged, over qrels with queries that retrieved nothing."""
    rng = np.random.default_rng(seed)
    docs = [f"d{i}" for i in range(60)]
    qrels, run = {}, {}
    for i in range(25):
        judged = rng.choice(docs, size=12, replace=False)
        qrels[f"q{i}"] = {
            str(doc): int(relevance) for doc, relevance in zip(judged, rng.integers(0, 4, 12), strict=True)
        }
        qrels[f"q{i}"][str(judged[0])] = 1
    for i in range(3, 30):
        found = rng.choice(docs, size=int(rng.integers(1, 45)), replace=False)
        scores = rng.integers(0, 6, len(found)) if ties else rng.permutation(len(found))
        run[f"q{i}"] = {str(doc): float(score) for doc, score in zip(found, scores, strict=True)}
    run["q4"] = {}
    return run, qrels


def reference(run: Run, qrels: Qrels) -> dict[str, float]:
    """Textbook formulas over trec_eval's ranking: score descending, then document id descending."""
    sums = dict.fromkeys(["RR@10", "R@20", "AP", "nDCG@10", "P@5", "R_cap@5"], 0.0)
    for query_id, relevances in qrels.items():
        documents = run.get(query_id, {})
        ranking = sorted(documents, key=lambda doc: (documents[doc], doc), reverse=True)
        gains = [relevances.get(doc, 0) for doc in ranking]
        hits = [rank for rank, gain in enumerate(gains, 1) if gain > 0]
        n_relevant = sum(relevance > 0 for relevance in relevances.values())
        ideal = sum(
            gain / math.log2(rank + 1) for rank, gain in enumerate(sorted(relevances.values(), reverse=True)[:10], 1)
        )
        sums["RR@10"] += 1 / hits[0] if hits and hits[0] <= 10 else 0
        sums["R@20"] += sum(rank <= 20 for rank in hits) / n_relevant
        sums["AP"] += sum((n + 1) / rank for n, rank in enumerate(hits)) / n_relevant
        sums["nDCG@10"] += sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains[:10], 1)) / ideal
        sums["P@5"] += sum(rank <= 5 for rank in hits) / 5
        sums["R_cap@5"] += sum(rank <= 5 for rank in hits) / min(5, n_relevant)
    return {name: total / len(qrels) for name, total in sums.items()}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_textbook(seed: int, ties: bool) -> None:
    run, qrels = make_run_and_qrels(seed, ties)
    expected = reference(run, qrels)
    assert evaluate_run(run, qrels, list(expected)).means == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_ir_measures(seed: int, ties: bool) -> None:
    run, qrels = make_run_and_qrels(seed, ties)
    names = ["nDCG@10", "nDCG", "AP", "AP@100", "AP(rel=2)", "RR", "RR(rel=3)", "R@5", "R(rel=2)@20", "P@5"]
    names += ["P(rel=2)@5", "Rprec", "Bpref", "Success@1", "infAP"]
    if not ties:  # ir_measures computes RR with a cut by other code, which takes the smaller id first among equals.
        names += ["RR@10", "RR@3", "RR(rel=2)@10"]
    # What has another name there. num_q and num_rel are left out: ir_measures takes them as 0 for the judged queries
    # that the run lacks.
    others = {"set_F": "SetF", "set_P": "SetP", "set_recall": "SetR", "set_map": "SetAP", "num_ret": "NumRet"}
    others |= {"num_rel_ret": "NumRet(rel=1)", "iprec_at_recall_0.1": "IPrec@0.1"}
    # One at a time: asked together, ir_measures at times answers NumRet(rel=1) to NumRet.
    theirs = others | {name: name for name in names}
    by_name = {name: ir_measures.parse_measure(other).calc_aggregate(qrels, run) for name, other in theirs.items()}
    found = evaluate_run(run, qrels, list(by_name))
    assert found.means == pytest.approx(by_name, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_beir_where_every_query_retrieves_something(seed: int, ties: bool) -> None:
    run, qrels = make_run_and_qrels(seed, ties)
    shared = [query_id for query_id in qrels if run.get(query_id)]
    run = {query_id: {**run[query_id], query_id: 99.0} for query_id in shared}
    qrels = {query_id: qrels[query_id] for query_id in shared}
    theirs = copy.deepcopy(run)
    ndcg, _, recall, _ = EvaluateRetrieval.evaluate(qrels, theirs, [10, 100])
    r_cap = EvaluateRetrieval.evaluate_custom(qrels, theirs, [100], "r_cap")
    expected = {"NDCG@10": ndcg["NDCG@10"], "Recall@100": recall["Recall@100"], "R_cap@100": r_cap["R_cap@100"]}
    assert evaluate_beir(run, qrels) == expected


@pytest.mark.parametrize("seed", range(4))
def test_beir_and_trec_names_agree(seed: int) -> None:
    run, qrels = make_run_and_qrels(seed, ties=False)
    found = evaluate_run(run, qrels, ["NDCG@10", "Recall@100", "R_cap@100"])
    assert evaluate_beir(run, qrels) == pytest.approx(found.means, abs=6e-6)
