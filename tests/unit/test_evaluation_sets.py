"""Data sets that a task evaluates: names, queries, qrels and metrics that belong together, and qrels of one run."""

import json

import pytest

from splade.config import compose_experiment
from splade.datasets.qrels import read_qrels
from splade.datasets.runs import read_run
from splade.errors import ConfigError, DataError
from splade.evaluation.metrics import evaluate_run
from splade.tasks.bm25 import bm25
from splade.tasks.evaluate import evaluate
from splade.tasks.evaluation_sets import check_evaluation_settings
from splade.tasks.run_all import run_all

TOY = "pkg://splade/data/toy"


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    """The held-out qrels, grade 2 alone relevant."""
    graded = read_qrels(f"{TOY}/qrels/heldout.json")
    path = tmp_path_factory.mktemp("qrels") / "binary.json"
    path.write_text(
        json.dumps({query: {doc: int(grade > 1) for doc, grade in docs.items()} for query, docs in graded.items()})
    )
    return path


def experiment(folder, qrels, **changes):
    """Return an experiment that evaluates one run by the toy qrels and by others, and the toy queries once more."""
    settings = {
        "config.retrieval_name": "[TREC,TREC,TOY]",
        "data.Q_COLLECTION_PATH": f"[{TOY}/queries/heldout,{TOY}/queries/heldout,{TOY}/queries/heldout]",
        "data.EVAL_QREL_PATH": f"[{TOY}/qrels/heldout.json,{qrels},{TOY}/qrels/heldout.json]",
        "config.eval_metric": "[[ndcg_cut_10],[mrr_10,recall_100],[recall_100]]",
        "config.out_dir": folder / "out",
        "config.index_dir": folder / "index",
        "config.pretrained_no_yamlconfig": "true",
        "config.max_length": 16,
    }
    return compose_experiment("config_default", [f"{key}={value}" for key, value in (settings | changes).items()])


def expected_of(run, binary):
    graded, others = read_qrels(f"{TOY}/qrels/heldout.json"), read_qrels(binary)
    return evaluate_run(run, graded, ["ndcg_cut_10"]).means | evaluate_run(run, others, ["mrr_10", "recall_100"]).means


def test_several_qrels_judge_one_run(binary, tiny_model, tmp_path):
    model = {"init_dict.model_type_or_dir": tiny_model()}
    once = {"data.Q_COLLECTION_PATH": f"[{TOY}/queries/heldout,{TOY}/queries/heldout]"}
    searched = experiment(tmp_path, binary, **model, **once)
    run_all(searched)
    out = tmp_path / "out"
    assert sorted(path.parent.name for path in out.glob("*/run.json")) == ["TOY", "TREC"]
    expected = expected_of(read_run(out / "TREC" / "run.json"), binary)
    found = json.loads((out / "TREC" / "perf.json").read_text())
    assert found == pytest.approx(expected) and list(found) == ["ndcg_cut_10", "mrr_10", "recall_100"]
    both = json.loads((out / "perf_all_datasets.json").read_text())
    assert list(both) == ["TREC", "TOY"] and both["TREC"] == found
    assert both["TOY"]["recall_100"] != found["recall_100"]  # by grade 1, too
    (out / "TREC" / "perf.json").unlink()
    evaluate(searched)
    assert json.loads((out / "TREC" / "perf.json").read_text()) == found
    compared = bm25(searched)
    lexical = json.loads((out / "bm25" / "TREC" / "perf.json").read_text())
    assert lexical == pytest.approx(expected_of(read_run(out / "bm25" / "TREC" / "run.json"), binary))
    assert f"{lexical['mrr_10']:.4f}" in compared.text


def test_other_qrels_are_checked_like_the_first(binary, tiny_model, tmp_path):
    (tmp_path / "other.json").write_text('{"elsewhere": {"1": 1}}')
    with pytest.raises(DataError, match="not one judged query id of the qrels occurs in the queries file"):
        run_all(experiment(tmp_path, tmp_path / "other.json", **{"init_dict.model_type_or_dir": tiny_model()}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.Q_COLLECTION_PATH": "[a,b,c]"}, "'TREC' twice, with the queries a and b: the second run would replace"),
        ({"data.EVAL_QREL_PATH": "[a,null,b]"}, "'TREC' twice: give qrels for each"),
        (
            {"config.eval_metric": "[[MRR@10],[ndcg_cut,MRR@10],[mrr_10]]"},
            "binary.json give MRR@10, of which perf",
        ),
        ({"data.Q_COLLECTION_PATH": "[a]"}, "retrieval_name has 3.*Q_COLLECTION_PATH has 1"),
        ({"config.eval_metric": "[[mrr_10]]"}, "retrieval_name has 3.*eval_metric has 1"),
    ],
)
def test_repeated_names_that_cannot_be_one_run(binary, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        check_evaluation_settings(experiment(tmp_path, binary, **changes))
