"""What a configuration brought along gives way to what the command line asks for; defaults for one's own data."""

import logging
from contextlib import nullcontext

import pytest

from splade.config import compose_experiment
from splade.config.inputs import check_inputs
from splade.errors import ConfigError, DataError, ModelError
from splade.tasks.evaluation_sets import check_evaluation_settings
from splade.tasks.model_loading import DEFAULT_MODEL, name_default_model


def test_inherited_metrics_are_cut_at_top_k_and_that_is_said(caplog):
    caplog.set_level(logging.INFO)
    run = compose_experiment(overrides=["config.top_k=5"])
    assert run.config.eval_metric == [["mrr_5", "ndcg_cut_5", "recall_5"]]
    check_evaluation_settings(run)
    assert "config.top_k=5: inherited metrics that look deeper are cut there: mrr_5" in caplog.text
    usual = compose_experiment("config_splade", ["config.top_k=100"]).config.eval_metric
    assert all("recall" not in names and "recall_100" in names for names in usual if "mrr_10" in names)
    given = ["config.top_k=5", "config.eval_metric=[mrr_10]"]
    assert compose_experiment(overrides=given).config.eval_metric == [["mrr_10"]]


def test_the_length_of_training_that_is_given_replaces_the_inherited_one():
    run = compose_experiment(overrides=["config.nb_epochs=2", "config.warmup_ratio=0.1"]).config
    assert (run.nb_iterations, run.nb_epochs, run.warmup_steps, run.warmup_ratio) == (None, 2.0, None, 0.1)
    both = compose_experiment(overrides=["config.nb_epochs=2", "config.nb_iterations=7"]).config
    assert (both.nb_iterations, both.nb_epochs) == (7, 2.0)  # a contradiction of the user's own


def test_without_full_ranking_its_inherited_metric_is_not_monitored():
    switched_off = ["data.VALIDATION_FULL_RANKING=null"]
    assert compose_experiment("config_splade", switched_off).config.monitoring_ckpt == "loss"
    asked = [*switched_off, "config.monitoring_ckpt=MRR@10"]
    assert compose_experiment("config_splade", asked).config.monitoring_ckpt == "MRR@10"
    assert compose_experiment("config_splade").config.monitoring_ckpt == "MRR@10"


def test_own_data_takes_nothing_from_the_toy_pipeline():
    own = compose_experiment("own_data", ["data.TRAIN.DATASET_PATH=t.tsv"])
    assert (own.config.nb_iterations, own.config.early_stopping) == (2000, True)
    assert own.config.regularizer["FLOPS"].T == 500
    nothing = (own.config.checkpoint_dir, own.config.index_dir, own.config.out_dir, own.data.COLLECTION_PATH)
    assert nothing == (None,) * 4 and own.config.eval_metric == own.data.Q_COLLECTION_PATH == []
    assert own.data.flops_queries is None


def test_sets_of_own_queries_are_named_after_their_files():
    queries = "[my/queries.tsv, q/dev/raw.tsv, ir_datasets:beir/scifact/test]"
    own = compose_experiment("own_data", [f"data.Q_COLLECTION_PATH={queries}", "data.EVAL_QREL_PATH=[a.json,b.json,c]"])
    assert own.config.retrieval_name == ["queries", "dev", "test"]
    assert own.config.eval_metric == [["mrr_10", "ndcg_cut_10", "recall_100"]] * 3
    # A preset's own five sets give way, and one of its names stays where the number fits.
    one = ["data.Q_COLLECTION_PATH=my/questions.tsv", "data.EVAL_QREL_PATH=my/qrels.json"]
    preset = compose_experiment("config_splade", one).config
    assert preset.retrieval_name == ["questions"] and preset.eval_metric == [["mrr_10", "ndcg_cut_10", "recall_100"]]
    assert compose_experiment("config_default", one).config.retrieval_name == ["TOY"]
    alike = compose_experiment("own_data", ["data.Q_COLLECTION_PATH=[a/q.tsv, b/q.tsv]"])
    assert alike.config.retrieval_name == []


def test_without_a_checkpoint_the_model_is_used_as_it_is():
    own = compose_experiment("own_data")
    name_default_model(own)
    assert (own.init_dict.model_type_or_dir, own.config.pretrained_no_yamlconfig) == (DEFAULT_MODEL, True)
    trained = compose_experiment()
    name_default_model(trained)
    assert not trained.config.pretrained_no_yamlconfig


@pytest.mark.parametrize(
    ("task", "overrides", "kind", "message"),
    [
        ("index", ["data.COLLECTION_PATH=wrong.tsv"], DataError, r"data.COLLECTION_PATH: .*wrong.tsv: no such file"),
        ("retrieve", ["data.EVAL_QREL_PATH=[null, no.json]"], DataError, "EVAL_QREL_PATH: .*no.json"),
        ("train", ["data.TRAIN.DATASET_PATH=tripletz.tsv"], DataError, "did you mean 'triplets.tsv'"),
        ("train", ["init_dict.model_type_or_dir=./modle"], ModelError, "no such folder; did you mean 'model'"),
        ("index", ["config.checkpoint_dir=chekpoint"], ModelError, "did you mean 'checkpoint'"),
        ("train", ["data.VALIDATION_FULL_RANKING={D_COLLECTION_PATH: x}"], DataError, "VALIDATION_FULL_RANKING=null"),
        ("compare", ["runs=[triplets.tsv, b.json]"], DataError, "runs: .*b.json"),
    ],
)
def test_wrong_paths_show_before_libraries_are_loaded(tmp_path, monkeypatch, task, overrides, kind, message):
    for name in ("model", "checkpoint", "idx"):
        (tmp_path / name).mkdir()
    (tmp_path / "triplets.tsv").touch()
    monkeypatch.chdir(tmp_path)
    settings = ["init_dict.model_type_or_dir=model", "config.checkpoint_dir=checkpoint", "config.index_dir=idx"]
    with pytest.raises(kind, match=message):
        check_inputs(compose_experiment("own_data", [*settings, *overrides]), task)


@pytest.mark.parametrize(
    ("task", "key"), [("index", "index_dir"), ("retrieve", "out_dir"), ("train", "checkpoint_dir")]
)
def test_a_file_where_a_folder_is_needed(tmp_path, task, key):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"config.{key}=.*: that is a file; give a folder"):
        check_inputs(compose_experiment("own_data", [f"config.{key}={tmp_path}/file"]), task)
    check_inputs(compose_experiment("own_data", [f"config.index_dir={tmp_path}/file"]), "search")


def test_a_task_needs_only_what_it_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elsewhere = ["data.TRAIN.DATASET_PATH=gone.tsv", "data.COLLECTION_PATH=gone.tsv", "init_dict.model_type_or_dir=a/b"]
    (tmp_path / "idx").mkdir()
    check_inputs(compose_experiment("own_data", [*elsewhere, "config.index_dir=idx"]), "search")
    cranfield = ["data.COLLECTION_PATH=ir_datasets:cranfield", "config.index_dir=i"]
    check_inputs(compose_experiment("own_data", cranfield), "index")


@pytest.mark.parametrize(
    ("asked", "needs_a_checkpoint"),
    [
        (["retriever=bm25"], False),
        (["retriever=dense"], False),
        (["retriever=module:Class"], False),
        (["retriever=fuse", "fuse.retrievers=[bm25,dense]"], False),
        (["retriever=rerank", "rerank.first_stage=bm25"], False),
        (["retriever=sparse"], True),
        (["retriever=milvus"], True),
        (["retriever=fuse"], True),
        (["retriever=rerank", "rerank.first_stage=fuse"], True),
    ],
)
def test_only_systems_with_a_sparse_model_need_its_checkpoint(tmp_path, asked, needs_a_checkpoint):
    (tmp_path / "scifact").mkdir()
    overrides = ["+beir.dataset=scifact", f"+beir.dataset_path={tmp_path}", f"config.checkpoint_dir={tmp_path}/none"]
    experiment = compose_experiment("config_default", [*overrides, *asked])
    with pytest.raises(ModelError, match="train first") if needs_a_checkpoint else nullcontext():
        check_inputs(experiment, "beir_eval")
