"""Every shipped preset: what it composes to, and two training steps on a miniature of the published data archive."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from published_archive import SCORES, write_archive, write_models
from transformers import BertForMaskedLM

from splade.config import Experiment, compose_experiment
from splade.config.choose import available_configs, conf_folder
from splade.config.inputs import check_inputs
from splade.datasets.collections import open_collection, open_queries
from splade.datasets.qrels import read_qrels
from splade.errors import ConfigError, DataError, ModelError
from splade.evaluation.measures import largest_cut
from splade.losses import WeightedLoss, parse_regularizers
from splade.models.load import check_model_settings
from splade.storage.atomic import read_json
from splade.storage.paths import resolve_path
from splade.tasks.evaluation_sets import check_evaluation_settings
from splade.tasks.index import index
from splade.tasks.retrieve import retrieve
from splade.tasks.run_all import run_all
from splade.tasks.train import train
from splade.training.data import check_loss_fits

# Others train something else: test_rerank.py, test_pretrain.py, test_dense_training.py and test_decoders.py have them.
ELSEWHERE = ("reranker/", "middle_training/", "sigir23/config_32neg_dense", "techniques/config_decoder")
PRESETS = [name for name in available_configs(conf_folder()) if not name.startswith(ELSEWHERE)]
preset = functools.cache(compose_experiment)  # for the tests that only look at it
NOTHING_TO_TRAIN = {"efficient_splade/config_V_from_huggingface"}
TRAINED = [name for name in PRESETS if name not in NOTHING_TO_TRAIN]
ON_OTHER_DATA = ("config_default", "config_domain_adaptation", "techniques/")
ON_MSMARCO = [name for name in PRESETS if not name.startswith(ON_OTHER_DATA)]

DISTILBERT, COCONDENSER = "distilbert-base-uncased", "Luyu/co-condenser-marco"
MIDDLE_TRAINED, MIDDLE_TRAINED_TINY = "models/mlm_flops/DistilBERT", "models/mlm_flops/BERTiny"
TRIPLETS, SCORED, HARD = "triplets", "triplets_with_distil", "hard_negatives"

# preset -> model, query model, data, loss, (L1 lambda_q, FLOPS lambda_q, FLOPS lambda_d), T, steps, batch
PUBLISHED = {
    "config_splade++_max": (DISTILBERT, None, TRIPLETS, "InBatchPairwiseNLL", (None, 3e-4, 1e-4), 50_000, 150_000, 128),
    "config_splade++_msedistil": (DISTILBERT, None, SCORED, "DistilMarginMSE", (None, 0.5, 0.4), 50_000, 150_000, 128),
    "config_splade++_selfdistil": (DISTILBERT, None, SCORED, "DistilMarginMSE", (None, 0.5, 0.4), 50_000, 150_000, 128),
    "config_splade++_ensembledistil": (
        *(DISTILBERT, None, HARD, "DistilMarginMSE"),
        *((None, 0.1, 0.08), 50_000, 150_000, 128),
    ),
    "config_splade++_cocondenser_selfdistil": (
        *(COCONDENSER, None, SCORED, "DistilMarginMSE"),
        *((None, 0.5, 0.4), 50_000, 150_000, 128),
    ),
    "config_splade++_cocondenser_ensembledistil": (
        *(COCONDENSER, None, HARD, "DistilMarginMSE"),
        *((None, 0.5, 0.4), 50_000, 150_000, 128),
    ),
    "config_splade++_cocondenser_ensembledistil_monogpu": (
        *(COCONDENSER, None, HARD, "DistilMarginMSE"),
        *((None, 0.5, 0.4), 50_000, 150_000, 16),
    ),
    "efficient_splade/config_VI_doc_medium": (
        *(MIDDLE_TRAINED, None, HARD, "KlDiv"),
        *((None, None, 5e-4), 10_000, 50_000, 128),
    ),
    "efficient_splade/config_VI_doc_small": (
        *(MIDDLE_TRAINED, None, HARD, "KlDiv"),
        *((None, None, 5e-3), 10_000, 50_000, 128),
    ),
} | {
    f"efficient_splade/config_{family}_{size}": (
        *(MIDDLE_TRAINED, query_model, HARD, "KlDiv"),
        *((l1, None, flops), 50_000, 250_000, 128),
    )
    for family, query_model in (("V", MIDDLE_TRAINED), ("BT_VI", MIDDLE_TRAINED_TINY))
    for size, l1, flops in (("large", 5e-4, 5e-4), ("medium", 5e-3, 5e-4), ("small", 5e-3, 5e-3))
}

CONTRACT_NAMES = {
    "config_default",
    "config_splade",
    *PUBLISHED,
    "efficient_splade/config_V_from_huggingface",
    "config_splade_v3",
}


def loss_of(experiment: Experiment) -> WeightedLoss:
    run = experiment.config
    return WeightedLoss.parse(run.loss, run.augment_pairs == "in_batch_negatives")


def test_the_names_that_users_know_are_there():
    assert set(PRESETS) >= CONTRACT_NAMES


@pytest.mark.parametrize("name", PRESETS)
def test_composes_and_fits_together(name: str):
    experiment = preset(name)
    loss = loss_of(experiment)
    check_loss_fits(experiment, loss)
    check_model_settings(experiment.init_dict, experiment.config)
    check_evaluation_settings(experiment)
    parse_regularizers(experiment.config.regularizer)
    assert experiment.init_dict.model_type_or_dir
    assert experiment.data.COLLECTION_PATH
    assert experiment.data.flops_queries
    assert len(experiment.data.Q_COLLECTION_PATH) == len(set(experiment.config.retrieval_name)) >= 1


def test_every_preset_writes_into_folders_of_its_own():
    runs = [preset(name).config for name in PRESETS]
    folders = [folder for run in runs for folder in (run.checkpoint_dir, run.index_dir, run.out_dir)]
    assert None not in folders
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("name", PRESETS)
def test_header_says_what_it_is_and_how_to_run_it(name: str):
    header = [line for line in (conf_folder() / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    assert len(header) >= 3
    assert any("python -m splade." in line for line in header)


@pytest.mark.parametrize("name", ON_MSMARCO)
def test_common_settings_of_the_published_models(name: str):
    experiment = preset(name)
    run, data = experiment.config, experiment.data
    single_gpu = name.endswith("_monogpu")
    assert (run.lr, run.seed, run.fp16, experiment.init_dict.fp16) == (2e-5, 123, True, True)
    assert (run.eval_batch_size, run.index_retrieve_batch_size) == ((16, 16) if single_gpu else (600, 500))
    assert run.validation_metrics == ["MRR@10", "recall@100", "recall@200", "recall@500"]
    assert (run.monitoring_ckpt, run.record_frequency) == ("MRR@10", 10_000)
    assert run.max_length == (128 if name in SEVERAL_NEGATIVES or name.startswith("sigir23/") else 256)
    assert data.VALIDATION_FULL_RANKING is not None
    assert data.VALIDATION_FULL_RANKING.TOP_K >= largest_cut(run.validation_metrics)
    assert data.VALIDATION_SIZE_FOR_LOSS == (None if data.type == HARD else 60_000)
    assert run.retrieval_name == ["MSMARCO", *("TREC_DL_2019",) * 2, *("TREC_DL_2020",) * 2]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name: str):
    model, query_model, kind, loss, lambdas, growth_steps, steps, batch = PUBLISHED[name]
    experiment = preset(name)
    run, regularizers = experiment.config, {r.name: r for r in parse_regularizers(experiment.config.regularizer)}
    l1, flops = regularizers.get("L1"), regularizers["FLOPS"]
    assert (experiment.init_dict.model_type_or_dir, experiment.init_dict.model_type_or_dir_q) == (model, query_model)
    assert experiment.data.type == kind
    assert loss_of(experiment).terms.keys() == {loss}
    assert (l1.lambda_q if l1 is not None else None, flops.lambda_q, flops.lambda_d) == lambdas
    assert {regularizer.growth_steps for regularizer in regularizers.values()} == {growth_steps}
    assert (run.nb_iterations, run.train_batch_size, run.warmup_steps, run.weight_decay) == (steps, batch, 6000, 0.01)
    assert run.overwrite_final == name.startswith("efficient_splade/")
    assert {regularizer.pool for regularizer in regularizers.values()} == {"sides"}
    assert run.matching_type == ("splade_doc" if "VI_doc" in name else "splade")
    assert experiment.init_dict.agg == "max"
    assert (run.augment_pairs == "in_batch_negatives") == (loss == "InBatchPairwiseNLL")


# preset -> negatives, queries per GPU, weight decay, loss, L1 lambda_q, FLOPS lambda_d, T
SEVERAL_NEGATIVES = {
    "config_splade_v3": (8, 20, 0.01, {"KlDiv": 0.99, "AllPairsMarginMSE": 0.05}, 0.01, 0.02, 30_000),
    "sigir23/config_32neg_distil": (32, 5, 0.0, {"KlDiv": 0.99, "Contrastive": 0.01}, 5e-3, 5e-3, None),
    "sigir23/config_32neg_nodistil": (32, 5, 0.0, {"Contrastive": 1.0}, 5e-3, 5e-3, None),
}


@pytest.mark.parametrize("name", SEVERAL_NEGATIVES)
def test_several_negatives(name: str):
    n_negatives, batch, decay, loss, l1, flops, growth_steps = SEVERAL_NEGATIVES[name]
    experiment = preset(name)
    run = experiment.config
    assert (run.n_negatives, run.per_device_train_batch_size, run.weight_decay) == (n_negatives, batch, decay)
    assert (run.nb_epochs, run.warmup_ratio, run.overwrite_final) == (5, 0.01, True)
    assert (run.nb_iterations, run.train_batch_size, run.warmup_steps) == (None, None, None)
    assert {term: weight for term, (_, weight) in loss_of(experiment).terms.items()} == loss
    assert {(r.name, r.lambda_q, r.lambda_d, r.growth_steps) for r in parse_regularizers(run.regularizer)} == {
        ("L1", l1, None, growth_steps),
        ("FLOPS", None, flops, growth_steps),
        ("anti_zero", 1.0, 1.0, None),
    }
    documents = [r for r in parse_regularizers(run.regularizer) if r.lambda_d is not None]
    assert {r.pool for r in documents} == {"all"}
    header = (conf_folder() / f"{name}.yaml").read_text()
    assert "twice" not in header and "doubled" not in header


@pytest.mark.parametrize("kind", ["distil", "nodistil"])
def test_dense_presets_are_the_sparse_ones_without_sparsity(kind: str):
    dense, sparse = preset(f"sigir23/config_32neg_dense_{kind}"), preset(f"sigir23/config_32neg_{kind}")
    own = {"matching_type": "dense", "regularizer": None}
    folders = {name: getattr(dense.config, name) for name in ("checkpoint_dir", "index_dir", "out_dir")}
    assert dense.config == replace(sparse.config, **own, **folders)
    assert (dense.dense.pooling, dense.dense.normalise) == ("cls", False)
    assert (dense.init_dict, dense.data) == (sparse.init_dict, sparse.data)


@pytest.mark.parametrize(
    ("option", "kind", "path"),
    [
        ("msmarco", TRIPLETS, "data/msmarco/triplets"),
        ("distil_from_bm25", SCORED, "data/msmarco/distil_mse"),
        ("distil_from_self", SCORED, "data/msmarco/splade_triplets"),
        ("distil_from_ensemble", HARD, f"data/msmarco/{SCORES}"),
    ],
)
def test_the_published_names_of_training_data(option: str, kind: str, path: str):
    data = compose_experiment("config_splade++_ensembledistil", [f"train/data={option}"]).data
    assert (data.type, data.TRAIN.DATASET_PATH) == (kind, path)


@pytest.mark.parametrize("name", PRESETS)
def test_group_overrides_work_with_every_preset(name: str):
    groups = ["train/data=distil_from_ensemble", "index=msmarco", "retrieve_evaluate=all", "flops=msmarco"]
    experiment = compose_experiment(name, [*groups, "config.seed=7"])
    assert experiment.data.type == "hard_negatives"
    assert experiment.data.COLLECTION_PATH == "data/msmarco/full_collection"
    assert experiment.data.Q_COLLECTION_PATH[1] == "data/msmarco/TREC_DL_2019/queries_2019"
    assert experiment.data.EVAL_QREL_PATH[0] == "data/msmarco/dev_qrel.json"
    assert experiment.config.seed == 7
    check_loss_fits(experiment, loss_of(experiment))


def test_terms_of_a_sum_are_added_and_removed():
    overrides = ["~config.loss.AllPairsMarginMSE", "config.loss.KlDiv=0.99", "+config.loss.Contrastive=0.01"]
    assert compose_experiment("config_splade_v3", overrides).config.loss == {"KlDiv": 0.99, "Contrastive": 0.01}
    assert compose_experiment("config_splade_v3", ["config.loss=KlDiv"]).config.loss == "KlDiv"
    regularizer = compose_experiment("config_splade++_max", ["config.regularizer.anti_zero.lambda_d=1"]).config
    assert set(regularizer.regularizer) == {"FLOPS", "anti_zero"}


def test_data_folder_is_chosen_by_a_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPLADE_DATA_DIR", "/elsewhere")
    data = compose_experiment("config_splade++_max").data
    assert data.TRAIN.DATASET_PATH == "/elsewhere/msmarco/triplets"
    assert data.COLLECTION_PATH == "/elsewhere/msmarco/full_collection"


def test_domain_adaptation_takes_every_path_from_one_key():
    data = compose_experiment("config_domain_adaptation", ["data.TRAIN_DATA_DIR=/mine"]).data
    paths = [data.TRAIN.DATASET_PATH, data.TRAIN.D_COLLECTION_PATH, data.TRAIN.Q_COLLECTION_PATH, data.TRAIN.QREL_PATH]
    paths += [data.COLLECTION_PATH, data.flops_queries, *data.Q_COLLECTION_PATH, *data.EVAL_QREL_PATH]
    assert all(str(path).startswith("/mine") for path in paths)
    assert data.TRAIN.QREL_PATH != data.EVAL_QREL_PATH[0]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the miniature archive was unpacked."""
    folder = write_archive(tmp_path_factory.mktemp("archive"))
    write_models(folder)
    return folder


def cut_down(name: str, folder: Path, *overrides: str) -> Experiment:
    """Return the preset with two steps on short texts, a tiny model for one of the hub; the rest is as shipped."""
    original = preset(name)
    changes = ["config.max_length=16", "config.nb_iterations=2", "config.nb_epochs=null", "config.warmup_steps=0"]
    changes += ["config.warmup_ratio=null", "config.train_monitoring_freq=1", f"config.checkpoint_dir={folder}"]
    if original.data.VALIDATION_SIZE_FOR_LOSS is not None:
        changes.append("data.VALIDATION_SIZE_FOR_LOSS=8")
    if original.init_dict.model_type_or_dir != MIDDLE_TRAINED:
        changes.append(f"init_dict.model_type_or_dir={MIDDLE_TRAINED}")
    return compose_experiment(name, [*changes, *overrides])


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "config_domain_adaptation"])
def test_trains_two_steps_where_the_published_archive_is(
    name: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(archive)
    monkeypatch.setenv("XDG_CACHE_HOME", str(archive / "cache"))
    experiment = cut_down(name, tmp_path)
    check_inputs(experiment, "run_all")
    result = train(experiment)
    assert (result.steps, result.monitored) == (2, "MRR@10" if name in ON_MSMARCO else "loss")
    trained = BertForMaskedLM.from_pretrained(tmp_path / "model").state_dict()
    before = BertForMaskedLM.from_pretrained(MIDDLE_TRAINED).state_dict()
    assert all(torch.isfinite(weights).all() for weights in trained.values())
    query_folder = experiment.init_dict.model_type_or_dir_q
    assert (tmp_path / "model_q" / "config.json").is_file() == (query_folder is not None)
    if result.best_step > 0:
        assert any(not torch.equal(trained[key], before[key]) for key in before)
    if query_folder is not None:
        query_model = BertForMaskedLM.from_pretrained(tmp_path / "model_q").state_dict()
        before = BertForMaskedLM.from_pretrained(query_folder).state_dict()
        assert any(not torch.equal(query_model[key], before[key]) for key in before)
    rows = (tmp_path / "training_perf.txt").read_text().splitlines()
    columns = rows[0].split(",")
    assert len(rows) == 3
    assert set(loss_of(experiment).terms) <= set(columns)
    for regularizer in parse_regularizers(experiment.config.regularizer):
        assert {f"{regularizer.name}_q", f"{regularizer.name}_d"} & set(columns)


@pytest.mark.parametrize(
    ("missing", "key"),
    [
        ("data/msmarco/hard_negatives_scores", "data.TRAIN.DATASET_PATH"),
        ("data/msmarco/train_queries/qrels.json", "data.TRAIN.QREL_PATH"),
        ("data/msmarco/val_retrieval", "data.VALIDATION_FULL_RANKING.D_COLLECTION_PATH"),
        ("data/msmarco/TREC_DL_2020/qrel_binary.json", "data.EVAL_QREL_PATH"),
        ("data/msmarco/all_dev_queries", "data.flops_queries"),
        ("models/mlm_flops/BERTiny", "the published data archive has it"),
    ],
)
def test_a_missing_piece_of_the_archive_shows_before_training(
    missing: str, key: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(archive)
    (archive / missing).rename(tmp_path / "away")
    try:
        with pytest.raises((DataError, ModelError), match=rf"(?s)(?=.*{missing})(?=.*{key}).*no such"):
            check_inputs(preset("efficient_splade/config_BT_VI_large"), "run_all")
    finally:
        (tmp_path / "away").rename(archive / missing)


@pytest.mark.parametrize("place", ["inner", "data", ".", "experiments"])
def test_an_archive_in_another_folder_is_found(
    place: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Untarred into a sub-folder, or the command given in `data`, in another folder, or with the variable too deep."""
    wanted = archive / "data" / "msmarco" / "triplets"
    if place == "inner":
        (tmp_path / "unpacked").mkdir()
        (tmp_path / "unpacked" / "data").symlink_to(archive / "data")
        wanted = tmp_path / "unpacked" / "data" / "msmarco" / "triplets"
        monkeypatch.chdir(tmp_path)
    else:
        (archive / place).mkdir(exist_ok=True)
        monkeypatch.chdir(archive / place)
    if place == ".":
        monkeypatch.setenv("SPLADE_DATA_DIR", "data/msmarco")
    with pytest.raises(DataError, match=f"did you mean '{wanted}'"):
        check_inputs(compose_experiment("config_splade++_max"), "train")


def test_validation_by_full_ranking_chooses_the_checkpoint(tiny_model: Callable[..., Path], tmp_path: Path):
    experiment = compose_experiment(
        "config_splade++_ensembledistil",
        [
            "train/data=toy_hard_negatives",
            f"init_dict.model_type_or_dir={tiny_model()}",
            f"config.checkpoint_dir={tmp_path}",
            "config.nb_iterations=2",
            "config.record_frequency=1",
            "config.train_batch_size=4",
            "config.max_length=16",
        ],
    )
    result = train(experiment)
    rows = (tmp_path / "validation_perf.txt").read_text().splitlines()
    assert result.monitored == "MRR@10" and result.best is not None and 0 <= result.best <= 1
    assert {"MRR@10", "recall@100", "recall@200", "recall@500", "loss"} <= set(rows[0].split(","))
    best = max(float(dict(zip(rows[0].split(","), row.split(","), strict=True))["MRR@10"]) for row in rows[1:])
    assert result.best == pytest.approx(best)


@pytest.mark.parametrize("name", sorted(NOTHING_TO_TRAIN))
def test_evaluation_only_presets_refuse_to_train(name: str, tmp_path: Path):
    experiment = compose_experiment(name, [f"config.checkpoint_dir={tmp_path}"])
    assert experiment.config.pretrained_no_yamlconfig
    with pytest.raises(ConfigError, match="eval_only"):
        train(experiment)


def test_the_example_of_the_readme_composes(tmp_path: Path):
    readme = (conf_folder() / "README.md").read_text()
    example = readme[readme.index("```yaml") + len("```yaml") :].partition("```")[0]
    path = tmp_path / "legal.yaml"
    path.write_text(example)
    done = subprocess.run(
        [sys.executable, "-m", "splade.train", "--cfg", "job"],
        env=os.environ | {"SPLADE_CONFIG_FULLPATH": str(path), "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    composed = OmegaConf.create(done.stdout)
    assert composed.config.regularizer.FLOPS.lambda_q == 3e-4
    assert composed.init_dict.model_type_or_dir == "pkg://cognition/model"
    assert composed.data.TRAIN.DATASET_PATH == "my/triplets.tsv"
    assert composed.data.VALIDATION_FULL_RANKING is None
    assert list(composed.config.retrieval_name) == ["LEGAL"]


def beir_folder_of_toy_data(folder: Path) -> Path:
    """Write the toy data as a BEIR folder."""
    toy = Path(str(resolve_path("pkg://splade/data/toy")))
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": doc_id, "title": "", "text": text} for doc_id, text in open_collection(toy / "collection")]
    queries = [
        {"_id": query_id, "text": text}
        for split in ("train", "heldout")
        for query_id, text in open_queries(toy / "queries" / split)
    ]
    for name, records in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for split, name in (("train", "train"), ("test", "heldout")):
        judged = read_qrels(toy / "qrels" / f"{name}.json")
        lines = [f"{query}\t{doc}\t{grade}\n" for query, docs in judged.items() for doc, grade in docs.items()]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


@pytest.mark.slow
def test_domain_adaptation_from_the_commands_of_its_header(tmp_path: Path):
    folder = beir_folder_of_toy_data(tmp_path / "beir")
    mining = [
        "config.pretrained_no_yamlconfig=true",
        f"data.TRAIN_DATA_DIR={folder}",
        f"config.index_dir={folder}/mined/index",
        f"config.out_dir={folder}/mined",
        "config.top_k=100",
        "config.max_length=64",
        "retrieve_evaluate=beir_train",
    ]
    index(compose_experiment("config_domain_adaptation", mining))
    mined = retrieve(compose_experiment("config_domain_adaptation", mining))
    assert (folder / "mined" / "train" / "run.json").is_file()
    adapting = [
        f"data.TRAIN_DATA_DIR={folder}",
        "data.VALIDATION_SIZE_FOR_LOSS=8",
        "config.nb_iterations=3",
        "config.record_frequency=3",
        "config.train_batch_size=4",
        "config.max_length=64",
        *(f"config.{name}={tmp_path / name}" for name in ("checkpoint_dir", "index_dir", "out_dir")),
    ]
    result = run_all(compose_experiment("config_domain_adaptation", adapting))
    assert "trained 3 steps" in result.summary()
    assert "52 training examples" in result.summary() or "60 training examples" in result.summary()
    assert mined.runs[0].metrics["ndcg_cut_10"] > 0.3
    assert read_json(tmp_path / "out_dir" / "perf_all_datasets.json")["test"]["ndcg_cut_10"] > 0.3
