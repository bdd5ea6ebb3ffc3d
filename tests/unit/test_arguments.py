"""What a user types on the command line, and what it means."""

import pytest

from splade.config import compose_experiment
from splade.config.arguments import given_keys, hydra_arguments
from splade.config.choose import OWN_DATA_CONFIG, choose_config
from splade.errors import ConfigError

PATHS = ["my/docs [v2]/raw.tsv", "C:\\data\\x.tsv", "~/a#b&c.tsv", "ärzte/ö (1).tsv", "it's a, b/q.tsv", "x=1/q.tsv"]


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_typed_as_they_are(path):
    overrides = [f"data.COLLECTION_PATH={path}", f"config.index_dir={path}", f"beir.dataset_path={path}"]
    experiment = compose_experiment(overrides=overrides)
    found = (experiment.data.COLLECTION_PATH, experiment.config.index_dir, experiment.beir.dataset_path)
    assert found == (path, path, path)


@pytest.mark.parametrize("path", ["my/q [1].tsv", "ärzte/q (1).tsv", "a b/q.tsv"])
def test_lists_of_such_paths_and_a_list_of_one(path):
    for value in (path, f"[{path}]"):
        assert compose_experiment(overrides=[f"data.Q_COLLECTION_PATH={value}"]).data.Q_COLLECTION_PATH == [path]
    several = compose_experiment(overrides=[f"data.EVAL_QREL_PATH=[{path},null, b.json]"]).data.EVAL_QREL_PATH
    assert several == [path, None, "b.json"]


@pytest.mark.parametrize(
    ("value", "metrics"),
    [
        ("nDCG@10", [["nDCG@10"]]),
        ("[nDCG@10, R@100]", [["nDCG@10", "R@100"]]),
        ("[[nDCG@10], [AP(rel=2)]]", [["nDCG@10"], ["AP(rel=2)"]]),
        ("[AP(rel=2),R@100]", [["AP(rel=2)", "R@100"]]),
    ],
)
def test_metrics_of_one_set_need_no_inner_list(value, metrics):
    assert compose_experiment(overrides=[f"config.eval_metric={value}"]).config.eval_metric == metrics


@pytest.mark.parametrize(
    "question",
    ["what do bees eat", "what's honey, and why?", "${oc.env:HOME} costs 5$", "a \\' b\\", "null", "-", "[x]"],
)
def test_a_question_is_typed_as_it_is(question):
    overrides = hydra_arguments(["my [new] index", question], "search")
    experiment = compose_experiment("own_data", overrides)
    assert (experiment.config.index_dir, experiment.query) == ("my [new] index", question)
    if not question.startswith(("$", "null", "-", "[")):
        assert compose_experiment(overrides=[f"query={question}"]).query == question


def test_plus_sets_a_key_whether_or_not_it_is_there():
    experiment = compose_experiment(overrides=["+config.seed=7", "+beir.dataset=scifact", "beir.split=dev"])
    assert (experiment.config.seed, experiment.beir.dataset) == (7, "scifact")
    assert hydra_arguments(["++config.seed=1", "+train/data=toy", "+hydra.job.name=x"]) == [
        *("++config.seed=1", "+train/data=toy", "+hydra.job.name=x")
    ]


def test_several_values_are_a_sweep_only_with_multirun():
    swept = ["+beir.dataset=fiqa,scifact", "config.validation_metrics=MRR@10,R@100"]
    assert hydra_arguments([*swept, "--multirun"])[:2] == ["++beir.dataset=fiqa,scifact", swept[1]]
    assert compose_experiment(overrides=swept).config.validation_metrics == ["MRR@10", "R@100"]


@pytest.mark.parametrize(
    ("arguments", "command", "message"),
    [
        (["config.index_dir"], "index", "expected key=value"),
        (["my/index", "two", "words"], "search", "one argument too many"),
    ],
)
def test_arguments_out_of_place(arguments, command, message):
    with pytest.raises(ConfigError, match=message):
        hydra_arguments(arguments, command)


def test_options_keep_their_values():
    arguments = ["--config-name", "config_splade", "--cfg", "job", "-m", "config.seed=1,2", "--info", "config.lr=1"]
    assert hydra_arguments(arguments) == arguments
    assert given_keys(arguments) == {"config.seed", "config.lr"}


@pytest.mark.parametrize(
    ("arguments", "command", "own"),
    [
        (["data.TRAIN.DATASET_PATH=t.tsv"], "train", True),
        (["data.Q_COLLECTION_PATH=[q.tsv]"], "retrieve", True),
        (["config.index_dir=x"], "search", True),
        (["config.nb_iterations=3"], "train", False),
        (["train/data=toy_triplets"], "train", False),
        (["--config-name=config_splade", "data.COLLECTION_PATH=x"], "index", False),
    ],
)
def test_own_data_has_settings_of_its_own(arguments, command, own):
    assert (choose_config({}, arguments, command).name == OWN_DATA_CONFIG) is own
