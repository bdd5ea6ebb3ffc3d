"""Middle-training: what is hidden, its loss, a whole run from scratch and from a model, and what is refused."""

import csv
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

import splade
from splade.config import compose_experiment
from splade.config.choose import available_configs, conf_folder
from splade.errors import ConfigError, DataError, ModelError
from splade.losses import flops_loss, parse_regularizers
from splade.losses.masked_language_model import masked_cross_entropy
from splade.models.from_scratch import learn_tokenizer, write_random_model
from splade.models.load import load_checkpoint
from splade.tasks.pretrain import pretrain
from splade.tasks.train import train
from splade.training.masked_texts import NOT_ASKED, MaskingCollator, PlainText
from splade.training.pretraining import open_texts, prepare_middle_training

STEPS = 8
PRESETS = [name for name in available_configs(conf_folder()) if name.startswith("middle_training/")]


@pytest.fixture
def experiment(tmp_path):
    """Compose a short run on the toy collection."""

    def make(model="null", vocab_size="null", **changes):
        settings = {
            "init_dict.model_type_or_dir": model,
            "pretrain.collection": "data/toy/collection",
            "pretrain.vocab_size": vocab_size,
            "pretrain.hidden_size": 16,
            "pretrain.n_layers": 1,
            "config.checkpoint_dir": tmp_path / "run",
            "config.nb_iterations": STEPS,
            "config.warmup_steps": 0,
            "config.lr": 1e-2,
            "config.train_batch_size": 8,
            "config.max_length": 32,
            "config.regularizer": "{FLOPS: {lambda_d: 0.01}}",
            "config.record_frequency": 4,
            "config.train_monitoring_freq": 1,
            "config.monitoring_ckpt": "loss",
            "data.VALIDATION_SIZE_FOR_LOSS": 20,
            "data.VALIDATION_FULL_RANKING": "null",
        }
        return compose_experiment("config_default", [f"{name}={value}" for name, value in (settings | changes).items()])

    return make


def test_masked_cross_entropy_is_that_of_pytorch(monkeypatch):
    monkeypatch.setattr("splade.losses.masked_language_model.MOST_LOGITS", 60)  # two tokens at once
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(*shape, generator=generator) for shape in ((7, 5), (30, 5), (30,))]
    ours, theirs = ([tensor.clone().requires_grad_() for tensor in tensors] for _ in range(2))
    labels = torch.randint(30, (7,), generator=generator)
    loss = 2 * masked_cross_entropy(*ours, labels)
    expected = 2 * torch.nn.functional.cross_entropy(theirs[0] @ theirs[1].T + theirs[2], labels, reduction="sum")
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    without_bias = masked_cross_entropy(ours[0], ours[1], None, labels)
    expected = torch.nn.functional.cross_entropy(ours[0] @ ours[1].T, labels, reduction="sum")
    torch.testing.assert_close(without_bias, expected)
    assert masked_cross_entropy(ours[0][:0], ours[1], None, labels[:0]) == 0


def test_what_is_hidden(tiny_tokenizer):
    collator = MaskingCollator(tiny_tokenizer, max_length=300, share=0.4, seed=7)
    text = "the light of the stars is cold " * 40
    batch = collator([PlainText(text, row, draw) for row in range(8) for draw in range(2)])
    plain = tiny_tokenizer(text, truncation=True, max_length=300, return_tensors="pt")["input_ids"]
    asked = batch["labels"] != NOT_ASKED
    original = plain.expand(16, -1)
    assert torch.equal(batch["labels"][asked], original[asked])
    assert torch.equal(batch["input_ids"][~asked], original[~asked])
    special = torch.isin(original, torch.tensor(tiny_tokenizer.all_special_ids))
    assert not (asked & special).any()
    assert 0.36 < asked[~special].float().mean() < 0.44
    shown = batch["input_ids"][asked]
    assert 0.76 < (shown == tiny_tokenizer.mask_token_id).float().mean() < 0.84
    assert 0.07 < (shown == original[asked]).float().mean() < 0.14
    assert not torch.isin(shown, torch.tensor([tiny_tokenizer.cls_token_id, tiny_tokenizer.pad_token_id])).any()
    one, again, other = (collator([PlainText(text, 3, draw)])["input_ids"] for draw in (1, 1, 0))
    assert torch.equal(one, again) and torch.equal(one[0], batch["input_ids"][7]) and not torch.equal(one, other)


def test_the_objective_is_that_of_a_few_lines(tiny_model, experiment):
    settings = experiment(tiny_model())
    trainer, splade_model = prepare_middle_training(settings, open_texts(settings))
    batch = trainer.collator([trainer.sampler[i] for i in range(6)])
    trainer.splade.eval()
    loss, terms = trainer.objective(trainer.splade, batch, step=0)
    logits = splade_model.document_encoder.model(batch["input_ids"], batch["attention_mask"]).logits
    mlm = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=NOT_ASKED)
    vectors = (torch.log1p(torch.relu(logits)) * batch["attention_mask"][:, :, None]).amax(1)
    torch.testing.assert_close(terms["mlm"], mlm.detach())
    torch.testing.assert_close(loss, mlm + 0.01 * flops_loss(vectors))
    assert terms.keys() == {"mlm", "FLOPS_d", "L0", "sparsity", "flops"}
    assert len(parse_regularizers(settings.config.regularizer)) == 1


def test_spans_are_the_two_parts_of_a_text(tiny_tokenizer):
    collator = MaskingCollator(tiny_tokenizer, max_length=64, share=0.1, seed=7, in_spans=True)
    texts = ["what is the light of the stars in cold water", "tea", "bread and snow and a river of tea and light"]
    for draw in range(3):
        batch = collator([PlainText(text, row, draw) for row, text in enumerate(texts)])
        ids = torch.where(batch["labels"] == NOT_ASKED, batch["input_ids"], batch["labels"])
        words = [tiny_tokenizer.decode(row, skip_special_tokens=True) for row in ids]
        for i in (0, 2):
            assert (
                f"{words[i]} {words[3 + i]}".split()
                == tiny_tokenizer.decode(tiny_tokenizer(texts[i], add_special_tokens=False)["input_ids"]).split()
            )
            shorter = min(len(words[i]), len(words[3 + i]))
            assert shorter >= len(texts[i]) // 4 - 8


def test_spans_of_one_text_are_told_from_all_others(tiny_model, experiment):
    settings = experiment(tiny_model(), **{"pretrain.span_weight": 0.5})
    trainer, _ = prepare_middle_training(settings, open_texts(settings))
    batch = trainer.collator([trainer.sampler[i] for i in range(4)])
    trainer.splade.eval()
    loss, terms = trainer.objective(trainer.splade, batch, step=0)
    _, vectors = trainer.splade(**batch)
    scores, expected = (vectors @ vectors.T).detach().double().numpy(), 0.0
    for i in range(8):
        others = [scores[i, j] for j in range(8) if j != i]
        expected += (np.logaddexp.reduce(others) - scores[i, (i + 4) % 8]) / 8
    assert terms["spans"].item() == pytest.approx(expected, rel=1e-5)
    assert loss.item() == pytest.approx(terms["mlm"].item() + 0.5 * expected + terms["FLOPS_d"].item(), rel=1e-5)


def test_from_scratch_resumed_and_trained_further(experiment, tmp_path, monkeypatch):
    settings = experiment(vocab_size=300, **{"pretrain.model_dir": tmp_path / "models" / "mine"})
    result = pretrain(settings)
    assert result.after["mlm"] < result.before["mlm"] and result.after["flops"] < result.before["flops"]
    assert f"middle-trained {STEPS} steps on 220 texts" in result.summary()
    with open(tmp_path / "run" / "training_perf.txt") as file:
        assert len(list(csv.DictReader(file))) == STEPS
    folder = tmp_path / "models" / "mine"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForMaskedLM.from_pretrained(folder)
    assert len(tokenizer) == model.config.vocab_size == 300
    assert load_checkpoint(tmp_path / "run", settings).vocab_size == 300

    parts = experiment(vocab_size=300, **{"config.checkpoint_dir": tmp_path / "parts"})
    with monkeypatch.context() as patch:
        patch.setattr("splade.training.pretraining.save_splade", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            pretrain(parts)
    (tmp_path / "parts" / "model_ckpt" / "checkpoint-8" / "whole.json").unlink()  # the last one is not complete
    assert pretrain(parts).after == result.after
    one, other = (splade.load(tmp_path / name / "model", max_length=32) for name in ("run", "parts"))
    np.testing.assert_array_equal(one.encode_documents("tea").to_dense(), other.encode_documents("tea").to_dense())

    trained = experiment(folder, **{"config.checkpoint_dir": tmp_path / "splade", "config.nb_iterations": 1})
    train(trained)
    assert splade.load(tmp_path / "splade").vocab_size == 300
    before = (tmp_path / "run" / "training_done.json").stat().st_mtime_ns
    assert pretrain(settings) == result
    assert (tmp_path / "run" / "training_done.json").stat().st_mtime_ns == before


def test_a_tokenizer_is_the_same_every_time_and_knows_every_word(tmp_path):
    texts = ["The Light of the stars", "cold light, Stars of ice"] * 3
    one, other = (learn_tokenizer(texts, 40, 16) for _ in range(2))
    assert one.get_vocab() == other.get_vocab() and len(one) == 40
    assert one.unk_token_id not in one("STAR of icecold")["input_ids"]
    assert one.decode(one("light of stars")["input_ids"], skip_special_tokens=True) == "light of stars"
    with pytest.raises(DataError, match="no word"):
        write_random_model(tmp_path / "model", [" "], 40, 1, 8, 16, seed=1)
    write_random_model(tmp_path / "model", texts, 40, 1, 200, 16, seed=1)  # 200 is not divided by three heads
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "model").config.num_attention_heads == 2


@pytest.mark.parametrize("name", PRESETS)
def test_presets_train(name, tiny_model, tmp_path):
    own = compose_experiment(name)
    assert own.pretrain.collection and own.config.checkpoint_dir and own.pretrain.model_dir != own.config.checkpoint_dir
    settings = {
        "pretrain.collection": "data/toy/collection",
        "config.checkpoint_dir": tmp_path / "run",
        "config.nb_iterations": 2,
        "config.train_batch_size": 4,
        "config.max_length": 16,
        "data.VALIDATION_SIZE_FOR_LOSS": 4,
    }
    if own.pretrain.vocab_size is None:
        settings |= {"init_dict.model_type_or_dir": tiny_model(), "pretrain.model_dir": tmp_path / "model"}
    result = pretrain(compose_experiment(name, [f"{key}={value}" for key, value in settings.items()]))
    assert result.middle_trained_steps == 2 and np.isfinite(result.after["loss"])
    assert (tmp_path / "model" / "config.json").exists() == (own.pretrain.vocab_size is None)


def test_what_cannot_be_is_refused(experiment, tiny_model):
    for changes, message in (
        ({"vocab_size": 300, "model": "some/model"}, "set one of them to null"),
        ({"config.regularizer": "{FLOPS: {lambda_q: 1}}"}, "has no queries"),
        ({"config.matching_type": "splade_doc"}, "leave it out"),
        ({"data.VALIDATION_SIZE_FOR_LOSS": 240}, "only 240 texts"),
    ):
        with pytest.raises(ConfigError, match=message):
            pretrain(experiment(**{"model": tiny_model()} | changes))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model())
    tokenizer.mask_token = None
    with pytest.raises(ModelError, match="no mask token"):
        MaskingCollator(tokenizer, 16, 0.15, 1)
