"""Checkpoints of the original toolkit: the same vectors, only weights are read, and what is none is named."""

import sys
import tarfile
import types

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForMaskedLM

import splade
from splade.config.record import read_config
from splade.errors import ConfigError, ModelError
from splade.models.load import load_for_inference
from splade.models.original_checkpoint import is_original_checkpoint
from splade.training.run_folder import RunFolder

TEXTS = ["why do cats sleep so long", "the history of the printing press"]
# As the original toolkit saves it with every run of its preset for hard negatives.
CONFIG = """
init_dict: {model_type_or_dir: %s, model_type_or_dir_q: %s, freeze_d_model: 0, agg: max, fp16: true}
config:
  lr: 2.0e-05
  seed: 123
  gradient_accumulation_steps: 1
  weight_decay: 0.01
  validation_metrics: [MRR@10, recall@100, recall@200, recall@500]
  pretrained_no_yamlconfig: false
  nb_iterations: 150000
  train_batch_size: 128
  eval_batch_size: 600
  index_retrieve_batch_size: 500
  record_frequency: 10000
  train_monitoring_freq: 500
  warmup_steps: 6000
  max_length: 24
  fp16: true
  matching_type: %s
  monitoring_ckpt: MRR@10
  tokenizer_type: distilbert-base-uncased
  top_k: 1000
  eval_metric: [[mrr_10, recall]]
  retrieval_name: [MSMARCO]
  loss: DistilMarginMSE
  regularizer: {FLOPS: {lambda_q: 0.5, lambda_d: 0.4, T: 50000, targeted_rep: rep, reg: FLOPS}}
  checkpoint_dir: models/cocondenser_ensemble_distil/checkpoint
  index_dir: models/cocondenser_ensemble_distil/index
  out_dir: models/cocondenser_ensemble_distil/out
data:
  type: hard_negatives
  TRAIN: {DATASET_PATH: d, D_COLLECTION_PATH: c, Q_COLLECTION_PATH: q, QREL_PATH: r}
  VALIDATION_FULL_RANKING: {D_COLLECTION_PATH: c, Q_COLLECTION_PATH: q, QREL_PATH: r, TOP_K: 1000}
  COLLECTION_PATH: data/msmarco/full_collection
  Q_COLLECTION_PATH: [data/msmarco/dev_queries/]
  EVAL_QREL_PATH: [data/msmarco/dev_qrel.json]
  flops_queries: data/msmarco/dev_queries
"""


class Ran(Exception):
    """Raised by what must not be made."""


def weights(folder, prefix="transformer_rep"):
    state = AutoModelForMaskedLM.from_pretrained(folder).state_dict()
    named = {f"{prefix}.transformer.{name}": tensor for name, tensor in state.items()}
    return named | {f"{prefix}.transformer.bert.embeddings.position_ids": torch.arange(8)}  # of old transformers


def save_tar(path, state, monkeypatch):
    """Write what the original trainer writes: weights, and objects of omegaconf and of its own modules."""
    module = types.ModuleType("splade.losses.regularization")

    class RegWeightScheduler:
        def __init__(self):
            self.lambda_, self.t = 0.5, torch.ones(1)

        def __setstate__(self, state):
            raise Ran

    RegWeightScheduler.__module__, RegWeightScheduler.__qualname__ = module.__name__, "RegWeightScheduler"
    module.RegWeightScheduler = RegWeightScheduler
    monkeypatch.setitem(sys.modules, module.__name__, module)
    config = OmegaConf.create({"lr": 2e-5, "validation_metrics": ["MRR@10"], "regularizer": {"FLOPS": {"T": 5}}})
    optimizer = {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 2e-5, "betas": (0.9, 0.999)}]}
    torch.save(
        {"step": 5, "perf": 0.3, "model_state_dict": state, "optimizer_state_dict": optimizer, "config": config}
        | {"regularizer": {"train": {"FLOPS": {"lambdas": {"lambda_q": RegWeightScheduler()}}}}},
        path,
    )


@pytest.fixture
def original(tiny_model, tmp_path, monkeypatch):
    """Make a checkpoint folder whose best weights are those of one model, the last ones those of another."""

    def make(queries=False, matching_type="splade", folders=True, tar=True, seeds=(0, 1)):
        best, last = tiny_model(seed=seeds[0]), tiny_model(seed=seeds[1])
        (tmp_path / "model").mkdir()
        (tmp_path / "config.yaml").write_text(CONFIG % (last, last if queries else "null", matching_type))
        for name in ("model", *(["model_q"] if queries else [])) if folders else ():
            for file in last.iterdir():
                (tmp_path / name).mkdir(exist_ok=True)
                (tmp_path / name / file.name).write_bytes(file.read_bytes())
        state = weights(best) | (weights(tiny_model(seed=2), "transformer_rep_q") if queries else {})
        if tar:
            save_tar(tmp_path / "model" / "model.tar", state, monkeypatch)
        return tmp_path

    return make


def assert_encodes_like(encode, folder):
    expected = splade.load(str(folder), max_length=24).encode_documents(TEXTS)
    torch.testing.assert_close(torch.from_numpy(encode(TEXTS).to_dense()), torch.from_numpy(expected.to_dense()))
    assert len(expected.term_ids) > 0


@pytest.mark.parametrize("folders", [True, False])
def test_the_best_weights_are_those_of_the_tar(original, tiny_model, folders):
    model = splade.load(str(original(folders=folders)))
    assert model.network.shared and model.documents.max_length == 24
    assert_encodes_like(model.encode_documents, tiny_model(seed=0))
    assert_encodes_like(model.encode_queries, tiny_model(seed=0))


def test_folders_alone_are_a_checkpoint_too(original, tiny_model):
    assert_encodes_like(splade.load(str(original(tar=False))).encode_documents, tiny_model(seed=1))


@pytest.mark.parametrize("tar", [True, False])
def test_a_query_encoder_of_its_own(original, tiny_model, tar):
    model = splade.load(str(original(queries=True, tar=tar)))
    assert not model.network.shares_weights
    assert_encodes_like(model.encode_documents, tiny_model(seed=0 if tar else 1))
    assert_encodes_like(model.encode_queries, tiny_model(seed=2 if tar else 1))


def test_splade_doc(original, tiny_model):
    model = splade.load(str(original(matching_type="splade_doc")))
    assert_encodes_like(model.encode_documents, tiny_model(seed=0))
    assert set(model.encode_queries("cats").weights) == {1.0}


def test_the_saved_configuration_loads_it_as_commands_do(original, tiny_model):
    folder = original()
    experiment = read_config(folder)
    experiment.config.checkpoint_dir, experiment.init_dict.fp16 = str(folder), False
    network = load_for_inference(experiment)
    assert network.name == str(folder) and experiment.config.regularizer["FLOPS"].lambda_q == 0.5
    assert network.fingerprint().document_encoder == splade.load(str(folder)).fingerprint.document_encoder


def test_training_does_not_replace_it(original):
    folder = original()
    experiment = read_config(folder)
    experiment.config.checkpoint_dir = str(folder)
    with pytest.raises(ConfigError, match="holds a checkpoint of the original toolkit"):
        RunFolder(experiment).outcome()


def test_what_is_none(tmp_path, tiny_model):
    assert not is_original_checkpoint(tiny_model())
    (tmp_path / "model").mkdir()
    assert not is_original_checkpoint(tmp_path)
    (tmp_path / "model" / "model.tar").write_bytes(b"")
    assert is_original_checkpoint(tmp_path)
    (tmp_path / "training_done.json").write_text("{}")
    assert not is_original_checkpoint(tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def real_tar(path):
    path.unlink()
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "model.py")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "not a whole checkpoint"),
        (real_tar, "not a whole checkpoint"),
        (lambda path: path.write_bytes(b""), "not a whole checkpoint"),
        (lambda path: torch.save([1, 2], path), "has no weights under 'model_state_dict'; it holds list"),
        (lambda path: torch.save({"model_state_dict": {"a": 5}}, path), "has no weights under 'model_state_dict'"),
        (lambda path: torch.save({"step": 5}, path), "has no weights .* holds step"),
        (lambda path: torch.save({"model_state_dict": {"bert.x": torch.ones(1)}}, path), "are bert.x"),
        (
            lambda path: torch.save({"transformer_rep.transformer.bert.x": torch.ones(1)}, path),
            "lacks weights of a masked-language model",
        ),
    ],
)
def test_damaged_and_foreign_files(original, damage, message):
    folder = original()
    damage(folder / "model" / "model.tar")
    with pytest.raises(ModelError, match=message):
        splade.load(str(folder))


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_in_the_file_is_run(original, tmp_path):
    folder = original()
    torch.save({"model_state_dict": {}, "config": Evil(tmp_path / "made")}, folder / "model" / "model.tar")
    with pytest.raises(ModelError, match="model_state_dict|not those of a SPLADE model"):
        splade.load(str(folder))
    assert not (tmp_path / "made").exists()


def test_a_query_encoder_that_is_missing(original, tiny_model):
    folder = original(queries=True)
    torch.save({"model_state_dict": weights(tiny_model())}, folder / "model" / "model.tar")
    with pytest.raises(ModelError, match="names the query encoder .* no weights of one"):
        splade.load(str(folder))
