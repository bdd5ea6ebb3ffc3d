"""Values that no key can have, and names that become folders or belong to something else."""

# ruff: noqa: F401, F811 (fixtures are imported, and named where they are used)

from typing import get_origin

import pytest
from test_attack_config import command, written

from splade.config import compose_experiment
from splade.config.keys import members, schema_keys
from splade.datasets.beir import open_beir
from splade.errors import ConfigError, DataError
from splade.storage.paths import check_folder_name
from splade.tasks.beir_eval import beir_eval
from splade.tasks.bm25 import bm25
from splade.tasks.create_anserini import create_anserini
from splade.tasks.evaluate import evaluate
from splade.tasks.evaluation_sets import check_evaluation_settings, check_names
from splade.tasks.retrieve import retrieve
from splade.tasks.run_all import run_all


def test_documented_interpolations_are_taken(command, tmp_path, monkeypatch):
    monkeypatch.setenv("SPLADE_DATA_DIR", "/disk")
    text = """
    config:
      out_dir: ${config.index_dir}/out
      index_dir: ${ oc.env:SPLADE_DATA_DIR,data }/index
      checkpoint_dir: "${oc.select:config.nothing,${oc.env:NOT_SET,here}}"
    data:
      Q_COLLECTION_PATH: [a, "${data.Q_COLLECTION_PATH[0]}/b"]
      COLLECTION_PATH: "${.TRAIN_DATA_DIR}"
      TRAIN_DATA_DIR: t
    """
    done = command(config=written(tmp_path / "config.yaml", text))
    run, data = done.experiments[0].config, done.experiments[0].data
    assert (run.out_dir, run.checkpoint_dir) == ("/disk/index/out", "here")
    assert (data.Q_COLLECTION_PATH, data.COLLECTION_PATH) == (["a", "a/b"], "t")


HOSTILE_NAMES = [
    "../../x", "..", ".", ".hidden", "/abs", "a/b", "a\\b", "", " ", "a b", "a\tb", "a\nb", "a\0b", "\x1b[31m", "-rf",
    "\u202ea", "\u2028", "\ud800", "x" * 300, "é" * 100, "CON:", "a*", "a|b", "~/x", "C:\\x", "a\u00a0b", "\ufeffa",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_names_that_become_folders(name, tmp_path):
    experiment = compose_experiment(overrides=[f"config.out_dir={tmp_path}/out", f"config.index_dir={tmp_path}/index"])
    experiment.config.retrieval_name = [name]
    for task in (check_evaluation_settings, retrieve, evaluate, bm25, run_all):
        with pytest.raises(ConfigError, match=r"config\.retrieval_name=.*allowed|no value for"):
            task(experiment)
    experiment.beir.dataset, experiment.beir.dataset_path = name, str(tmp_path)
    for task in (beir_eval, bm25) if name != "a/b" else ():
        with pytest.raises(ConfigError, match=r"beir\.dataset=.*allowed|no value for"):
            task(experiment)
    if name not in ("", "a/b", "~/x"):
        for nested in (f"cqadupstack/{name}", f"{name}/android"):
            with pytest.raises(ConfigError, match=r"beir\.dataset="):
                open_beir(nested, tmp_path)
    experiment.config.retrieval_name, experiment.data.Q_COLLECTION_PATH = [name, "b"], ["a", "b"]
    experiment.quantization_factor_document = experiment.quantization_factor_query = 100
    with pytest.raises(ConfigError, match=r"config\.retrieval_name="):
        create_anserini(experiment)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["before", "run_info", "perf_all_datasets.json", "flops.json", "docs_anserini.jsonl"])
def test_names_that_something_else_has(name):
    with pytest.raises(ConfigError, match="names something else"):
        check_names([name])


def test_names_that_are_fine(tmp_path):
    for name in ("TOY", "TREC_DL_2019", "msmarco-dev.small", "nq+train", "ärzte", "检索", "x" * 150, "a@b=c,d(1)"):
        check_folder_name(name, "config.retrieval_name")
    with pytest.raises(DataError, match="no such folder|download failed|not in the archive"):
        open_beir("cqadupstack/nonsense/", tmp_path, url=f"file://{tmp_path}/{{name.__class__}}")
    with pytest.raises(ConfigError, match=r"retrieval_name has 1.*Q_COLLECTION_PATH has 2"):
        arguments = ["quantization_factor_document=1", "quantization_factor_query=1", "data.Q_COLLECTION_PATH=[a,b]"]
        arguments.append("config.retrieval_name=[one]")
        create_anserini(compose_experiment(overrides=arguments))


LISTS = [item.name for item in schema_keys() if any(get_origin(kind) is list for kind in members(item.annotation))]
NOT_LISTS = ["true", "{a: {b: c}}", "[{a: b}]", "[[[a]]]", "[[[]]]"]


@pytest.mark.parametrize("value", [*NOT_LISTS, "[1]", "[true]", "[[1]]", "[null]", "[[null]]", "[a, [b]]", "[1.5e400]"])
@pytest.mark.parametrize("name", LISTS)
def test_lists_of_the_wrong_things(name, value):
    try:
        experiment = compose_experiment(overrides=[f"{name}={value}"])
    except ConfigError as error:
        assert name in str(error) and "\n" not in str(error)
    else:
        # Numbers are taken as the text they were written as; everything else that passes is of the right type.
        assert value not in NOT_LISTS
        assert name == "data.EVAL_QREL_PATH" or "null" not in value
        for section in name.split(".")[:-1]:
            experiment = getattr(experiment, section)
        nested = name == "config.eval_metric"
        found = getattr(experiment, name.rpartition(".")[2])
        assert all(isinstance(one, list if nested else str | float | type(None)) for one in found)


WRONG_NUMBERS = {
    "config.lr": ["inf", "-inf", "nan", "-1e-9", "1e400", "true", "1,5", "[1]", "0x1p3", "null"],
    "config.seed": ["-1", "4294967296", "1e20", "18446744073709551616", "1.5", "nan", "inf", "true", "null"],
    "config.regularizer.FLOPS.lambda_d": ["-0.1"],
    "config.regularizer.FLOPS.lambda_q": ["inf", "nan", "-0.1", "[1]", "-inf"],
    "config.regularizer.FLOPS.T": ["-1", "1.5", "inf", "2147483648", "nan"],
    "+config.regularizer.MINE": [
        "{lambda_q: -1}",
        "{lambda_d: nan}",
        "{reg: L1, T: -1}",
        "{reg: L2}",
        "{lambda: 1}",
        "1",
    ],
    "config.regularizer": ["{L1: {lambda_q: inf}}", "{L1: 1}", "[L1]", "{L1: [1]}", "1", "true"],
    "config.loss": [
        "{KlDiv: inf}",
        "{KlDiv: nan}",
        "{KlDiv: 0}",
        "{KlDiv: -1}",
        "{KlDiv: x}",
        "{KlDiv: {a: 1}}",
        "[a]",
    ],
    "config.threshold": ["-1", "nan", "inf", "x"],
    "config.search_effort": ["0", "1.0000001", "nan", "-1", "inf"],
    "config.top_k": ["0", "-1", "1.5", "1e3", "9999999999", "nan"],
    "config.n_threads": ["-1", "1.5", "inf"],
    "config.max_length": ["1", "0", "-5", "2147483648"],
    "bm25.b": ["1.1", "-0.1", "nan"],
    "bm25.k1": ["-1", "inf", "nan"],
    "compare.alpha": ["0", "1", "nan", "-1", "inf"],
    "data.VALIDATION_SIZE_FOR_LOSS": ["-1", "1.5", "nan"],
    "data.VALIDATION_FULL_RANKING.TOP_K": ["0", "inf"],
    "init_dict.top_d": ["0", "-1", "1.5"],
    "quantization_factor_document": ["0", "-1", "nan", "1.5"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG_NUMBERS.items() for value in values]
)
def test_numbers_out_of_bounds(name, value):
    with pytest.raises(ConfigError) as caught:
        compose_experiment(overrides=[f"{name}={value}"])
    assert name.lstrip("+") in str(caught.value) and "\n" not in str(caught.value), caught.value
