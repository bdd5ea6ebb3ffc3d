"""Every shipped preset: what it composes to, and two real training steps of it with a tiny model on toy data."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from splade.config import Experiment, compose_experiment
from splade.config.choose import available_configs, conf_folder
from splade.datasets.collections import open_collection, open_queries
from splade.datasets.qrels import read_qrels
from splade.errors import ConfigError
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

PRESETS = available_configs(conf_folder())
preset = functools.cache(compose_experiment)  # for the tests that only look at it
NOTHING_TO_TRAIN = {"efficient_splade/config_V_from_huggingface"}
TRAINED = [name for name in PRESETS if name not in NOTHING_TO_TRAIN]
ON_OTHER_DATA = ("config_default", "config_domain_adaptation", "techniques/")
ON_MSMARCO = [name for name in PRESETS if not name.startswith(ON_OTHER_DATA)]

DISTILBERT, COCONDENSER = "distilbert-base-uncased", "Luyu/co-condenser-marco"
BERT_TINY = "google/bert_uncased_L-2_H-128_A-2"
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
        *(DISTILBERT, None, HARD, "KlDiv"),
        *((None, None, 5e-4), 10_000, 50_000, 128),
    ),
    "efficient_splade/config_VI_doc_small": (
        *(DISTILBERT, None, HARD, "KlDiv"),
        *((None, None, 5e-3), 10_000, 50_000, 128),
    ),
} | {
    f"efficient_splade/config_{family}_{size}": (
        *(DISTILBERT, query_model, HARD, "KlDiv"),
        *((l1, None, flops), 50_000, 250_000, 128),
    )
    for family, query_model in (("V", DISTILBERT), ("BT_VI", BERT_TINY))
    for size, l1, flops in (("large", 5e-4, 5e-4), ("medium", 5e-3, 5e-4), ("small", 5e-3, 5e-3))
}

CONTRACT_NAMES = {
    "config_default",
    "config_splade",
    *PUBLISHED,
    "efficient_splade/config_V_from_huggingface",
    "config_splade_v3",
}

# A small training set of each kind, and the override that chooses it.
TOY_DATA = {
    "triplets": "train/data=toy_triplets",
    "triplets_with_distil": "train/data=toy_triplets_with_scores",
    "hard_negatives": "train/data=toy_hard_negatives",
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
    assert len(experiment.data.Q_COLLECTION_PATH) == len(experiment.config.retrieval_name) >= 1


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
    run, ranking = experiment.config, experiment.data.VALIDATION_FULL_RANKING
    assert (run.lr, run.weight_decay, run.warmup_steps, run.seed, run.fp16) == (2e-5, 0.01, 6000, 123, True)
    assert run.validation_metrics == ["MRR@10", "recall@100", "recall@200", "recall@500"]
    assert (run.monitoring_ckpt, run.record_frequency) == ("MRR@10", 10_000)
    assert run.max_length == (128 if name.startswith("sigir23/") else 256)
    assert ranking is not None and ranking.TOP_K >= largest_cut(run.validation_metrics)
    assert run.retrieval_name == ["MSMARCO", "TREC_DL_2019", "TREC_DL_2020"]


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
    assert (run.nb_iterations, run.train_batch_size) == (steps, batch)
    assert run.matching_type == ("splade_doc" if "VI_doc" in name else "splade")
    assert experiment.init_dict.agg == "max"
    assert (run.augment_pairs == "in_batch_negatives") == (loss == "InBatchPairwiseNLL")


def test_several_negatives():
    v3 = preset("config_splade_v3")
    assert v3.config.n_negatives == 8
    assert {name: weight for name, (_, weight) in loss_of(v3).terms.items()} == {
        "KlDiv": 1.0,
        "AllPairsMarginMSE": 0.05,
    }
    for kind in ("distil", "nodistil", "dense"):
        experiment = preset(f"sigir23/config_32neg_{kind}")
        regularizers = parse_regularizers(experiment.config.regularizer)
        assert (experiment.config.n_negatives, experiment.config.train_batch_size) == (32, 5)
        assert loss_of(experiment).needs_teacher == (kind != "nodistil")
        lambdas = [(r.name, r.lambda_q, r.lambda_d, r.growth_steps) for r in regularizers]
        sparse = [("L1", 5e-3, None, None), ("FLOPS", None, 5e-3, None)]
        assert lambdas == ([] if kind == "dense" else sparse)


@pytest.mark.parametrize("name", PRESETS)
def test_group_overrides_work_with_every_preset(name: str):
    experiment = compose_experiment(
        name, ["train/data=msmarco", "index=msmarco", "retrieve_evaluate=all", "flops=msmarco", "config.seed=7"]
    )
    assert experiment.data.type == "hard_negatives"
    assert experiment.data.COLLECTION_PATH == "data/msmarco/full_collection"
    assert experiment.data.Q_COLLECTION_PATH[1] == "data/msmarco/TREC_DL_2019/queries"
    assert experiment.data.EVAL_QREL_PATH[0] == "data/msmarco/dev_qrel.json"
    assert experiment.config.seed == 7
    check_loss_fits(experiment, loss_of(experiment))


def test_terms_of_a_sum_are_added_and_removed():
    overrides = ["~config.loss.AllPairsMarginMSE", "config.loss.KlDiv=0.99", "+config.loss.Contrastive=0.01"]
    assert compose_experiment("config_splade_v3", overrides).config.loss == {"KlDiv": 0.99, "Contrastive": 0.01}
    assert compose_experiment("config_splade_v3", ["config.loss=KlDiv"]).config.loss == "KlDiv"
    added = ["+config.regularizer.anti_zero.lambda_q=1", "+config.regularizer.anti_zero.lambda_d=1"]
    for kind in ("distil", "nodistil"):
        regularizer = compose_experiment(f"sigir23/config_32neg_{kind}", added).config.regularizer
        assert set(regularizer) == {"L1", "FLOPS", "anti_zero"}


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


@pytest.fixture(scope="session")
def tiny_model(splade_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random BERT with one layer of 16 units, over the vocabulary of SPLADE-tiny."""
    folder = tmp_path_factory.mktemp("models") / "random_bert"
    tokenizer = AutoTokenizer.from_pretrained(splade_tiny)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def cut_down(name: str, model: Path, folder: Path) -> Experiment:
    """Return the preset with a tiny model, toy data of the same kind and two steps; everything else is as shipped."""
    original = preset(name)
    overrides = [
        TOY_DATA[original.data.type],
        "data.VALIDATION_FULL_RANKING=null",
        "data.VALIDATION_SIZE_FOR_LOSS=null",
        f"init_dict.model_type_or_dir={model}",
        f"config.checkpoint_dir={folder}",
        f"config.n_negatives={min(original.config.n_negatives, 3)}",
        "config.nb_iterations=2",
        "config.train_batch_size=4",
        "config.max_length=16",
        "config.warmup_steps=0",
        "config.train_monitoring_freq=1",
        "config.fp16=false",
    ]
    if original.init_dict.model_type_or_dir_q is not None:
        overrides.append(f"init_dict.model_type_or_dir_q={model}")
    return compose_experiment(name, overrides)


def training_path(name: str) -> str:
    """Return what decides which code trains a preset; presets that only differ in numbers have the same."""
    experiment = preset(name)
    run, init = experiment.config, experiment.init_dict
    regularizers = [
        (r.name, r.compute, r.lambda_q is None, r.lambda_d is None, r.selections, r.controller is None)
        for r in parse_regularizers(run.regularizer)
    ]
    queries = init.model_type_or_dir_q is not None, init.freeze_d_model, init.agg, run.matching_type
    batch = experiment.data.type, run.n_negatives > 1, run.augment_pairs, sorted(loss_of(experiment).terms)
    return str((regularizers, queries, batch, run.bf16, run.gradient_checkpointing, run.early_stopping))


DISTINCT = sorted({training_path(name): name for name in reversed(TRAINED)}.values())


@pytest.mark.parametrize("name", DISTINCT)
def test_two_training_steps(name: str, tiny_model: Path, tmp_path: Path):
    experiment = cut_down(name, tiny_model, tmp_path)
    result = train(experiment)
    assert result.steps == 2
    trained = BertForMaskedLM.from_pretrained(tmp_path / "model").state_dict()
    before = BertForMaskedLM.from_pretrained(tiny_model).state_dict()
    assert all(torch.isfinite(weights).all() for weights in trained.values())
    assert any(not torch.equal(trained[key], before[key]) for key in before)
    separate_queries = experiment.init_dict.model_type_or_dir_q is not None
    assert (tmp_path / "model_q" / "config.json").is_file() == separate_queries
    if separate_queries:
        query_model = BertForMaskedLM.from_pretrained(tmp_path / "model_q").state_dict()
        assert any(not torch.equal(query_model[key], before[key]) for key in before)
    rows = (tmp_path / "training_perf.txt").read_text().splitlines()
    columns = rows[0].split(",")
    assert len(rows) == 3
    assert set(loss_of(experiment).terms) <= set(columns)
    for regularizer in parse_regularizers(experiment.config.regularizer):
        assert {f"{regularizer.name}_q", f"{regularizer.name}_d"} & set(columns)


def test_validation_by_full_ranking_chooses_the_checkpoint(tiny_model: Path, tmp_path: Path):
    experiment = compose_experiment(
        "config_splade++_ensembledistil",
        [
            "train/data=toy_hard_negatives",
            f"init_dict.model_type_or_dir={tiny_model}",
            f"config.checkpoint_dir={tmp_path}",
            "config.nb_iterations=2",
            "config.record_frequency=1",
            "config.train_batch_size=4",
            "config.max_length=16",
            "config.fp16=false",
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
