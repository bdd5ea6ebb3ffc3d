"""What the objective learns while it trains, and that a run which was interrupted goes on with it."""

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from splade.config import compose_experiment
from splade.encoding.sparse_model import SparseModel
from splade.errors import CollapseError
from splade.tasks.train import train
from splade.training.collapse_check import check_trained
from splade.training.gradient_cache import encode_cached
from splade.training.run import prepare_training
from splade.training.trainer import OBJECTIVE_FILE

LEARNING = "{DF: {reg: DF_FLOPS, lambda_d: 0.5}, FLOPS: {lambda_q: 0.1, target_terms: 30}}"
CONTROLLED = "{FLOPS: {lambda_d: 0.1, target_terms: 30}}"


@pytest.fixture(scope="module")
def model_folder(tiny_model):
    """A tiny random model."""
    return tiny_model()


@pytest.fixture
def compose(model_folder):
    """Compose a run of six steps in a folder."""

    def experiment(folder, **changes):
        settings = {
            "init_dict.model_type_or_dir": model_folder,
            "config.checkpoint_dir": folder,
            "config.nb_iterations": 6,
            "config.warmup_steps": 0,
            "config.lr": 1e-3,
            "config.train_batch_size": 4,
            "config.max_length": 16,
            "config.record_frequency": 2,
            "config.train_monitoring_freq": 1,
            "data.VALIDATION_SIZE_FOR_LOSS": 0,
        }
        return compose_experiment("config_default", [f"{name}={value}" for name, value in (settings | changes).items()])

    return experiment


@pytest.fixture
def run(compose):
    """Train six steps into a folder and return the weights."""

    def start(folder, **changes):
        train(compose(folder, **changes))
        return load_file(folder / "model" / "model.safetensors")

    return start


def test_interrupted_runs_go_on_with_what_regularisers_have_learned(run, tmp_path):
    whole = run(tmp_path / "whole", **{"config.regularizer": LEARNING})
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / "training_done.json").unlink()
    for step in (4, 6):
        shutil.rmtree(tmp_path / "cut" / "model_ckpt" / f"checkpoint-{step}")
    settings = tmp_path / "cut" / "model_ckpt" / "settings.json"
    settings.write_text(settings.read_text().replace(str(tmp_path / "whole"), str(tmp_path / "cut")))
    resumed = run(tmp_path / "cut", **{"config.regularizer": LEARNING})
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    learned = load_file(tmp_path / "cut" / "model_ckpt" / "checkpoint-6" / OBJECTIVE_FILE)
    assert set(learned) == {"DF/frequencies.shares", "DF/frequencies.n_batches", "FLOPS/controller.state"}
    assert learned["DF/frequencies.n_batches"] == 6
    rows = (tmp_path / "cut" / "training_perf.txt").read_text().splitlines()
    assert len(rows) == 7 and "lambda_FLOPS" in rows[0].split(",")


def test_controller_counts_without_dropout_and_stops_a_collapse(compose, tmp_path):
    trainer, _ = prepare_training(compose(tmp_path, **{"config.regularizer": CONTROLLED}))
    (controller,) = (regularizer.controller for regularizer in trainer.objective.regularizers)
    model, texts = trainer.splade.train(), [trainer.sampler[position] for position in range(4)]
    batch = trainer.data_collator(texts)
    counted = []
    controller.recount = lambda *vectors: counted.append(vectors)
    for step in (10, 11, math.inf):
        trainer.objective(model, batch, step=step)
    ((_, without),) = counted
    assert model.training
    torch.testing.assert_close(without, model.eval()(batch["queries"], batch["documents"])[1])
    trainer.objective.check()
    for _ in range(200):
        controller.observe(torch.zeros(2, 9), torch.tensor(1.0), torch.tensor(1.0))
    with pytest.raises(CollapseError, match="FLOPS.target_terms=30: hardly any vector has a term left"):
        trainer.objective.check()


@pytest.mark.parametrize(("target", "said"), [(5, "raise config.lr"), (90000, "ask for fewer terms"), (None, "have")])
def test_what_became_of_a_target_is_said(compose, tmp_path, caplog, target, said):
    experiment = compose(tmp_path, **{"config.regularizer": CONTROLLED})
    trainer, _ = prepare_training(experiment)
    examples = [trainer.sampler[position] for position in range(len(trainer.sampler))]
    texts = sorted({text for one in examples for text in (one.positive, *one.negatives)})
    vectors = SparseModel(trainer.splade.eval(), 16, 8).documents.encode(texts)
    terms = vectors.nnz / len(vectors)
    trainer.objective.regularizers[0].controller.target_terms = target or 1.05 * terms
    with caplog.at_level("INFO", "splade.training.collapse_check"):
        check_trained(trainer.splade, trainer.sampler, experiment.config, 200, trainer.objective.regularizers)
    (record,) = (one for one in caplog.records if one.name == "splade.training.collapse_check")
    assert f"{len(texts)} document texts have {terms:.1f} terms" in record.message and said in record.message
    assert record.levelname == ("INFO" if target is None else "WARNING")


LOSSES = {
    "in-batch": {"config.loss": "{InBatchPairwiseNLL: 1, Contrastive: 0.5}", "config.augment_pairs": "null"},
    "several negatives": {
        "config.loss": "kldiv_mse_margin_with_weights",
        "config.augment_pairs": "null",
        "config.n_negatives": 3,
        "data.type": "hard_negatives",
        "data.TRAIN.DATASET_PATH": "pkg://splade/data/toy/hard_negatives/scores.json.gz",
        "data.TRAIN.D_COLLECTION_PATH": "pkg://splade/data/toy/collection",
        "data.TRAIN.Q_COLLECTION_PATH": "pkg://splade/data/toy/queries/train",
        "data.TRAIN.QREL_PATH": "pkg://splade/data/toy/qrels/train.json",
    },
    "frozen documents": {"init_dict.freeze_d_model": True},
    "look-up": {"config.matching_type": "splade_idf"},
}
SEVERAL = "{FLOPS: {lambda_q: 0.1, lambda_d: 0.1}, L1: {lambda_d: 0.01, pool: all}, anti_zero: {lambda_d: 1}}"


@pytest.mark.parametrize("at_a_time", [2, 9])
@pytest.mark.parametrize("case", LOSSES)
def test_gradients_of_the_cache_are_those_of_the_plain_step(compose, tiny_model, tmp_path, case, at_a_time):
    changes = LOSSES[case] | {"config.regularizer": SEVERAL, "config.train_batch_size": 5}
    if case == "frozen documents":
        changes["init_dict.model_type_or_dir_q"] = tiny_model(seed=1)
    gradients, losses = [], []
    for size in ("null", at_a_time):
        trainer, _ = prepare_training(compose(tmp_path, **changes, **{"config.encode_at_a_time": size}))
        batch = trainer.data_collator([trainer.sampler[position] for position in range(5)])
        loss, _ = trainer.objective(trainer.splade.train(), batch, step=3)
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: weight.grad for name, weight in trainer.splade.named_parameters()})
    plain, cached = gradients
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert {name for name in plain if plain[name] is None} == {name for name in cached if cached[name] is None}
    largest = max(grad.abs().max().item() for grad in plain.values() if grad is not None)
    assert largest > 1e-3
    for name, grad in plain.items():
        if grad is not None:
            torch.testing.assert_close(cached[name], grad, rtol=1e-5, atol=1e-5 * largest, msg=name)


def test_the_cache_draws_the_same_dropout_twice_and_leaves_the_random_state_as_it_was(compose, tiny_model, tmp_path):
    settings = compose(tmp_path, **{"init_dict.model_type_or_dir": tiny_model(dropout=0.3)})
    trainer, _ = prepare_training(settings)
    model, batch = trainer.splade.train(), trainer.data_collator([trainer.sampler[position] for position in range(4)])
    torch.manual_seed(7)
    queries, documents = encode_cached(model, batch, 2)
    drawn = torch.get_rng_state()
    (queries @ documents.T).square().mean().backward()
    assert torch.equal(torch.get_rng_state(), drawn)
    cached = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    torch.manual_seed(7)
    parts = []
    for start in (0, 2):
        rows = {name: side[start : start + 2] for name, side in batch["queries"].items()}
        parts.append(model(rows, {name: side[2 * start : 2 * start + 4] for name, side in batch["documents"].items()}))
    plain_queries, plain_documents = (torch.cat(side) for side in zip(*parts, strict=True))
    assert torch.equal(plain_queries, queries) and torch.equal(plain_documents, documents)
    (plain_queries @ plain_documents.T).square().mean().backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(cached[name], weight.grad, rtol=1e-5, atol=1e-7, msg=name)


def test_the_cache_keeps_the_activations_of_few_texts(compose, tmp_path):
    held = []
    for size in ("null", 1):
        trainer, _ = prepare_training(compose(tmp_path, **{"config.encode_at_a_time": size}))
        batch = trainer.data_collator([trainer.sampler[position] for position in range(4)])
        sizes = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            trainer.objective(trainer.splade.train(), batch, step=0)
        held.append(sum(sizes))
    assert held[1] < held[0] / 2
