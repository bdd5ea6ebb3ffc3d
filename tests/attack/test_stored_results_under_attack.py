"""Results, figures and folders that an earlier run left, or somebody else did: not used again, not removed."""

import json

import pytest

from splade.config import compose_experiment
from splade.config.identity import affects_of
from splade.config.schema import Affects
from splade.datasets.dataset import Dataset
from splade.errors import ConfigError, DataError
from splade.evaluation.costs import Costs
from splade.retrieval.evaluate_retriever import stored_costs
from splade.retrieval.stored_results import finished_result
from splade.storage.atomic import read_json, read_numbers
from splade.storage.paths import is_replaceable
from splade.tasks import combined_systems
from splade.tasks.adaptation_stage import NOT_ADAPTED_FILE, stored_verdicts
from splade.tasks.combined_systems import FusedSystem
from splade.training.pretraining import _check_copy

DATASET = Dataset("small", {"q": "text"}, {"q": {"d": 1}})


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1%s}' % ("0" * 6000), "{", "", "\x00"])
def test_json_that_no_decoder_takes(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match="a.json"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("value", ['"x"', "null", "true", "NaN", "1e400", "{}", "[1]", "1" + "0" * 400])
def test_figures_that_are_no_numbers(tmp_path, value):
    path = tmp_path / "perf.json"
    path.write_text(f'{{"MRR@10": {value}}}')
    with pytest.raises(DataError, match="'MRR@10' must be a finite number"):
        read_numbers(path)
    path.write_text('{"MRR@10": 1, "R": 0.25}')
    assert read_numbers(path) == {"MRR@10": 1, "R": 0.25}


@pytest.mark.parametrize(
    "record", [{"model": 3}, {"L0_d": "x"}, {"L0_d": -1}, {"flops": float("nan")}, {"n_docs": True}]
)
def test_costs_that_cannot_be(tmp_path, record):
    with pytest.raises(DataError, match="must be a n"):
        Costs.from_json(record)
    (tmp_path / "q_stats.json").write_text("[1]")
    with pytest.raises(DataError, match="must be a JSON object"):
        stored_costs(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stats.json", "[1]"),
        ("stats.json", '{"settings": {"a": 1}}'),
        ("stats.json", '{"settings": {"a": 1}, "warnings": 3}'),
        ("stats.json", '{"settings": {"a": 1}, "warnings": [], "L0_d": "x"}'),
        ("stats.json", '{"settings": {"a": 2}, "warnings": []}'),
        ("perf.json", "[]"),
        ("perf.json", '{"NDCG@10": "x"}'),
        ("perf.json", "[" * 100_000),
    ],
)
def test_a_result_that_cannot_be_is_made_anew(tmp_path, name, text):
    whole = {
        "stats.json": '{"settings": {"a": 1}, "warnings": ["w"]}',
        "perf.json": '{"NDCG@10": 0.5}',
        "run.json": "{}",
    }
    for file, content in whole.items():
        (tmp_path / file).write_text(content)
    found = finished_result("s", DATASET, tmp_path, {"a": 1})
    assert found is not None and found.metrics == {"NDCG@10": 0.5} and found.findings[0].message == "w"
    assert finished_result("s", DATASET, tmp_path, None) is None
    (tmp_path / name).write_text(text)
    assert finished_result("s", DATASET, tmp_path, {"a": 1}) is None


def test_results_depend_on_how_many_documents_were_asked_for():
    for kind in (Affects.SEARCH, Affects.BM25, Affects.DENSE):
        assert affects_of("config.top_k") & kind


def test_learned_weights_depend_on_what_they_were_learned_from(monkeypatch):
    judged = {"q1": {"d": 1}}
    monkeypatch.setattr(
        combined_systems, "open_beir", lambda *_: [Dataset("small", {"q1": "text"}, dict(judged), split="train")]
    )
    overrides = ["retriever=fuse", "fuse.retrievers=[bm25,a]", "fuse.weights=learn"]
    experiment = compose_experiment("config_default", overrides)

    class Part:
        label, folder_name = "part", "part"

        def settings(self, dataset):
            return {}

    monkeypatch.setattr(combined_systems, "open_system", lambda *_: Part())
    system = FusedSystem(experiment, {})
    first = system.settings(DATASET)
    assert first == system.settings(DATASET)
    judged["q1"] = {"d": 2}
    assert first != system.settings(DATASET)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"verdicts": 3},
        {"verdicts": [{"n_queries": 1, "before": {}, "after": {}, "p_value": 0}]},
        {"verdicts": [{"n_queries": 1, "before": 1, "after": 2, "p_value": 0}]},
        {"verdicts": [{"n_queries": 1, "before": {"NDCG@10": "x"}, "after": {"NDCG@10": 1}, "p_value": 0}]},
        [],
    ],
)
def test_a_verdict_that_cannot_be(tmp_path, content):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / NOT_ADAPTED_FILE).write_text(json.dumps(content))
    with pytest.raises(DataError, match=NOT_ADAPTED_FILE):
        stored_verdicts(tmp_path)


def test_only_what_a_command_has_made_is_replaced(tmp_path):
    mine = tmp_path / "thesis"
    mine.mkdir()
    assert is_replaceable(mine, "mark.json")
    (mine / "chapter.txt").write_text("years of work")
    assert not is_replaceable(mine, "mark.json")
    (tmp_path / "link").symlink_to(mine)
    (mine / "mark.json").write_text("{}")
    assert is_replaceable(mine, "mark.json") and not is_replaceable(tmp_path / "link", "mark.json")
    assert not is_replaceable(mine / "chapter.txt", "mark.json")
    for place in (tmp_path, mine / "chapter.txt", tmp_path / "link"):
        with pytest.raises(ConfigError, match="no copy that splade.pretrain made"):
            _check_copy(compose_experiment("config_default", [f"pretrain.model_dir={place}", "config.overwrite=true"]))
    _check_copy(compose_experiment("config_default", [f"pretrain.model_dir={tmp_path}/new"]))
