"""Fusion of rankings: formulas, weights learned with few judgements, the command."""

import json

import numpy as np
import pytest

from splade.config.schema import Experiment, FuseConfig, RunConfig
from splade.datasets.runs import read_run, write_run_json
from splade.errors import ConfigError, DataError
from splade.evaluation.metrics import evaluate_run
from splade.retrieval.fusion import FusedRetriever, Fusion
from splade.retrieval.fusion_weights import learn_weights
from splade.retrieval.stored_run import StoredRun
from splade.storage.atomic import read_json
from splade.tasks.fuse import fuse


def random_run(seed, n_queries=30, n_docs=30, relevant=None, boost=0.0):
    random = np.random.default_rng(seed)
    run = {}
    for q in range(n_queries):
        docs = random.permutation(n_docs)[: n_docs * 2 // 3]
        scores = {f"d{d}": float(random.random() + boost * (relevant is not None and d == relevant[q])) for d in docs}
        run[f"q{q}"] = dict(sorted(scores.items(), key=lambda pair: -pair[1]))
    return run


RUNS = [random_run(seed) for seed in range(3)]


def by_the_book(runs, query, method, weights):
    """The same sums as in the papers, one document at a time."""
    total = {}
    for run, weight in zip(runs, weights, strict=True):
        scores = run[query]
        low, high = min(scores.values()), max(scores.values())
        mean, deviation = np.mean(list(scores.values())), np.std(list(scores.values()))
        lowest = (low - mean) / deviation
        for doc in {doc for other in runs for doc in other[query]}:
            if method == "rrf":
                rank = 1 + sum(score > scores[doc] for score in scores.values()) if doc in scores else None
                value = 1 / (60 + rank) if rank else 0
            elif method == "min_max":
                value = (scores[doc] - low) / (high - low) if doc in scores else 0
            else:
                value = (scores[doc] - mean) / deviation if doc in scores else lowest
            total[doc] = total.get(doc, 0) + weight * value
    return total


@pytest.mark.parametrize("method", ["rrf", "min_max", "z_score"])
@pytest.mark.parametrize("weights", [(1 / 3,) * 3, (0.2, 0.5, 0.3), (0, 0, 1)])
def test_fusion_is_what_the_papers_say(method, weights):
    fusion = Fusion("rrf") if method == "rrf" else Fusion("convex", normalise=method)
    for query in RUNS[0]:
        fused = fusion.fuse([run[query] for run in RUNS], weights)
        assert fused == pytest.approx(by_the_book(RUNS, query, method, weights))
        assert list(fused.values()) == sorted(fused.values(), reverse=True)


def test_rankings_that_are_empty_or_all_equal():
    for fusion in (Fusion("rrf"), Fusion("convex"), Fusion("convex", normalise="z_score")):
        assert fusion.fuse([{}, {}], (0.5, 0.5)) == {}
        assert list(fusion.fuse([{}, {"a": 1.0}], (0.5, 0.5))) == ["a"]
    assert Fusion("convex").fuse([{"a": 2.0, "b": 2.0}, {"b": 1.0}], (0.5, 0.5)) == {"b": 1.0, "a": 0.5}


def test_a_fused_retriever_asks_each_for_its_best():
    runs = [StoredRun(str(i), run) for i, run in enumerate(RUNS)]
    queries = dict.fromkeys(RUNS[0], "")
    found = dict(FusedRetriever(runs, Fusion("rrf")).retrieve(queries, 5))
    for query, ranking in found.items():
        cut = [dict(list(run[query].items())[:5]) for run in RUNS]
        assert list(ranking) == list(Fusion("rrf").fuse(cut, (1 / 3,) * 3))[:5]
    other = FusedRetriever(runs, Fusion("rrf"), weights_by_query={"q0": (1.0, 0.0, 0.0)})
    assert list(dict(other.retrieve(queries, 5))["q0"]) == list(RUNS[0]["q0"])[:5]


RELEVANT = np.random.default_rng(9).integers(0, 30, 30)
QRELS = {f"q{q}": {f"d{d}": 1} for q, d in enumerate(RELEVANT)}


def test_weights_learned_prefer_the_better_run():
    good, bad = random_run(1, relevant=RELEVANT, boost=0.6), random_run(2)
    learned = learn_weights([bad, good], QRELS, Fusion("convex"))
    assert learned.weights[1] > 0.6 and sum(learned.weights) == pytest.approx(1)
    assert learned.learned > learned.equal and learned.n_queries == 30
    assert learned == learn_weights([bad, good], QRELS, Fusion("convex"))


def test_a_query_has_no_part_in_the_weights_it_is_ranked_with():  # but for whether learning helps at all
    good, bad = random_run(1, relevant=RELEVANT, boost=0.6), random_run(2)
    before = learn_weights([bad, good], QRELS, Fusion("convex")).by_query
    for query in list(QRELS)[:8]:  # whatever is judged of a query, its own weights stay
        other = QRELS | {query: {next(iter(bad[query])): 1}}
        changed = learn_weights([bad, good], other, Fusion("convex"))
        assert changed.learned <= changed.equal or changed.by_query[query] == before[query]


def test_without_a_gain_the_weights_stay_equal():
    learned = learn_weights([RUNS[0], RUNS[0]], QRELS, Fusion("convex"))
    assert learned.weights == (0.5, 0.5) and set(learned.by_query.values()) == {(0.5, 0.5)}
    assert "no gain" in str(learned)


def test_wrong_weights():
    runs = [StoredRun(str(i), run) for i, run in enumerate(RUNS)]
    for weights in ([1, 2], [1, 2, -1], [0, 0, 0], [1, 1, float("inf")]):
        with pytest.raises(ConfigError, match="3 numbers"):
            FusedRetriever(runs, Fusion(), weights)
    with pytest.raises(ConfigError, match="two rankings"):
        FusedRetriever(runs[:1], Fusion())
    with pytest.raises(DataError, match="learned from 1 queries"):
        learn_weights(RUNS, {"q0": {"d1": 1}, "elsewhere": {"d1": 1}}, Fusion())


def experiment_of(folder, **fuse_settings):
    runs = {}
    for name, run in {"bad": random_run(2), "good": random_run(1, relevant=RELEVANT, boost=0.6)}.items():
        runs[name] = str(folder / f"{name}.json")
        write_run_json(runs[name], run)
    (folder / "qrels.json").write_text(json.dumps(QRELS))
    run_settings = RunConfig(out_dir=str(folder / "out"), top_k=100)
    return Experiment(
        runs=runs, qrels=str(folder / "qrels.json"), config=run_settings, fuse=FuseConfig(**fuse_settings)
    )


def test_the_command(tmp_path):
    result = fuse(experiment_of(tmp_path, method="convex", weights="learn"))
    assert "learned from 30 queries" in result.text and "good" in result.text
    written = read_run(tmp_path / "out" / "run.json")
    metrics = read_json(tmp_path / "out" / "perf.json")
    assert metrics == pytest.approx(evaluate_run(written, QRELS, ["nDCG@10", "R@100"]).means)
    assert (tmp_path / "out" / "run.trec").is_file() and (tmp_path / "out" / "compare.json").is_file()
    equal = fuse(experiment_of(tmp_path, method="convex"))
    assert "learned" not in equal.text
    assert read_json(tmp_path / "out" / "perf.json")["nDCG@10"] < metrics["nDCG@10"]


def test_the_command_with_named_weights(tmp_path):
    fuse(experiment_of(tmp_path, method="convex", weights={"good": 2.0}))
    good = random_run(1, relevant=RELEVANT, boost=0.6)["q3"]
    assert list(read_run(tmp_path / "out" / "run.json")["q3"])[:9] == list(good)[:9]
    with pytest.raises(ConfigError, match="did you mean 'good'"):
        fuse(experiment_of(tmp_path, weights={"god": 2.0}))
    without = experiment_of(tmp_path, weights="learn")
    without.qrels = None
    with pytest.raises(ConfigError, match="fuse.weights=learn needs judged queries"):
        fuse(without)
