"""A dense bi-encoder by the one trainer: trained, saved, indexed, searched."""

import numpy as np
import pytest
import torch

from splade.config import compose_experiment
from splade.encoding.dense_model import DenseModel
from splade.errors import ConfigError
from splade.losses import WeightedLoss
from splade.models.dense_encoder import load_dense
from splade.storage.atomic import read_json
from splade.tasks.flops import flops
from splade.tasks.run_all import run_all
from splade.tasks.train import train
from splade.training.data import check_loss_fits
from splade.training.dense_training import prepare_dense_training


def experiment(folder, model, *overrides):
    settings = [
        *(f"config.{name}={folder}/{name}" for name in ("checkpoint_dir", "index_dir", "out_dir")),
        *("config.matching_type=dense", "config.regularizer=null", f"init_dict.model_type_or_dir={model}"),
        *("config.nb_iterations=3", "config.record_frequency=3", "config.train_batch_size=4", "config.max_length=24"),
        *(
            "config.lr=1e-3",
            "config.warmup_steps=0",
            "dense.pooling=mean",
            "dense.normalise=false",
            "config.n_threads=1",
        ),
    ]
    return compose_experiment("config_default", [*settings, *overrides])


def test_the_whole_pipeline(tiny_model, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = tiny_model()
    validation = ["train/data=toy_hard_negatives", "config.loss=KlDiv", "config.augment_pairs=null"]
    asked = experiment(tmp_path, model, *validation, "config.monitoring_ckpt=MRR@10", "config.prompt_q='ask: '")
    result = run_all(asked)
    assert "before" in result.text and "after" in result.text
    rows = (tmp_path / "checkpoint_dir" / "validation_perf.txt").read_text().splitlines()
    assert {"MRR@10", "loss", "KlDiv"} <= set(rows[0].split(",")) and not {"L0_q", "flops_d"} & set(rows[0].split(","))
    folder = tmp_path / "checkpoint_dir" / "model"
    ours, theirs = DenseModel.load(folder), SentenceTransformer(str(folder), device="cpu")
    assert ours.encoder.pooling == "mean" and ours.max_length == 24 and ours.prompts == {"query": "ask: "}
    texts = ["bees make honey", "the heart pumps blood " * 20]
    np.testing.assert_allclose(ours.encode_queries(texts), theirs.encode(texts, prompt_name="query"), atol=1e-5)
    before = DenseModel.load(model, "mean").encode_documents(texts)
    assert np.abs(before - ours.encode_documents(texts)).max() > 1e-3  # it has learned something
    stats = read_json(tmp_path / "out_dir" / "TOY" / "q_stats.json")
    assert stats["index_bytes"] == 240 * 16 * 4 and "L0_q" not in stats
    assert train(asked).steps == 3  # nothing to do
    with pytest.raises(ConfigError, match="works on sparse vectors only"):
        flops(asked)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["config.regularizer={FLOPS: {lambda_d: 0.1}}"], "makes vectors sparse"),
        (["init_dict.model_type_or_dir_q=some"], "one encoder for both sides"),
    ],
)
def test_what_has_no_meaning(tiny_model, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        train(experiment(tmp_path, tiny_model(), *overrides))


@pytest.mark.parametrize("name", ["distil", "nodistil"])
def test_presets(name, tiny_model, tmp_path):
    preset = compose_experiment(f"sigir23/config_32neg_dense_{name}")
    sparse = compose_experiment(f"sigir23/config_32neg_{name}")
    assert (
        preset.config.matching_type == "dense" and preset.dense.pooling == "cls" and preset.config.regularizer is None
    )
    assert (preset.config.loss, preset.config.n_negatives) == (sparse.config.loss, sparse.config.n_negatives)
    assert preset.config.checkpoint_dir != sparse.config.checkpoint_dir
    check_loss_fits(preset, WeightedLoss.parse(preset.config.loss))
    assert load_dense(str(tiny_model()), preset.dense.pooling).settings.pooling == "cls"


@pytest.mark.parametrize("normalise, given, scale", [("true", "null", 20), ("false", "null", 1), ("true", "5", 5)])
def test_the_loss_sees_scores_times_a_scale(tiny_model, tmp_path, normalise, given, scale):
    overrides = f"dense.normalise={normalise}", f"dense.score_scale={given}"
    trainer, data = prepare_dense_training(experiment(tmp_path, tiny_model(), *overrides))
    batch, seen = trainer.collator([data.sampler[i] for i in range(4)]), []

    class Spy:
        needs_batch = False

        def __call__(self, scores):
            seen.append(scores.positive)
            return scores.positive.sum(), {}

    objective = trainer.objective
    objective.loss = Spy()
    objective(trainer.splade, batch, 0, gather=False)
    queries, documents = trainer.splade(batch["queries"], batch["documents"])
    torch.testing.assert_close(seen[0].detach(), scale * (queries * documents[:4]).sum(dim=1).detach())
