import copy
import logging

import pytest
import torch
import transformers
from torch import nn

from splade.errors import ConfigError, ModelError
from splade.models.encoder import SparseEncoder
from splade.models.masked_lm import Decoder, MaskedLMEncoder, find_decoder

VOCAB = 97
SIZE = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=VOCAB)
SPECIAL = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
ARCHITECTURES = {
    "bert": lambda: transformers.BertConfig(**SIZE),
    "distilbert": lambda: transformers.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, vocab_size=VOCAB),
    "roberta": lambda: transformers.RobertaConfig(**SIZE),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**SIZE),
    "modernbert": lambda: transformers.ModernBertConfig(**SIZE, **SPECIAL),
    "albert": lambda: transformers.AlbertConfig(**SIZE, embedding_size=8),
    "electra": lambda: transformers.ElectraConfig(**SIZE, embedding_size=8),
    "mpnet": lambda: transformers.MPNetConfig(**SIZE),
    "deberta": lambda: transformers.DebertaConfig(**SIZE),
    "deberta-v2": lambda: transformers.DebertaV2Config(**SIZE),
    "esm": lambda: transformers.EsmConfig(**SIZE, pad_token_id=0, mask_token_id=5),
    "xlm": lambda: transformers.XLMConfig(vocab_size=VOCAB, emb_dim=16, n_layers=2, n_heads=2),
}
# The decoder's weight is not what transformers names as the output embedding.
WITHOUT_DECODER = {
    "deberta-v3 style": lambda: transformers.DebertaV2Config(**SIZE, legacy=False),
    "mobilebert": lambda: transformers.MobileBertConfig(**SIZE, embedding_size=8, intra_bottleneck_size=16),
}


def make_model(config, seed=0):
    torch.manual_seed(seed)
    model = transformers.AutoModelForMaskedLM.from_config(config()).eval()
    for parameter in model.parameters():
        # Biases start at zero and would not be missed.
        nn.init.normal_(parameter, std=0.3) if parameter.dim() == 1 else nn.init.normal_(parameter, std=0.1)
    return model


def make_batch(seed=0, batch=4, length=9):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, length + 1, (batch,), generator=generator)
    attention_mask = (torch.arange(length) < lengths[:, None]).long()
    input_ids = torch.randint(6, VOCAB, (batch, length), generator=generator)
    return torch.where(attention_mask.bool(), input_ids, 1), attention_mask


def textbook(model, input_ids, attention_mask, agg="max"):
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
    weights = torch.log1p(torch.relu(logits)) * attention_mask.unsqueeze(-1)
    return weights.sum(1) if agg == "sum" else weights.max(1).values


@pytest.fixture
def model():
    return make_model(ARCHITECTURES["bert"])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_gives_the_textbook_weights_through_the_head(name):
    model = make_model(ARCHITECTURES[name])
    decoder = find_decoder(model)
    assert decoder is not None and decoder.bias is not None
    encoder = MaskedLMEncoder(model)
    batch = make_batch()
    weights = encoder(*batch)
    assert encoder.vocab_size == VOCAB and weights.count_nonzero() > 0
    torch.testing.assert_close(weights, textbook(model, *batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", WITHOUT_DECODER)
def test_other_architectures_fall_back_and_say_so_once(name, caplog):
    model = make_model(WITHOUT_DECODER[name])
    with caplog.at_level(logging.WARNING):
        encoder = MaskedLMEncoder(model)
        batch = make_batch()
        weights = encoder(*batch).detach()
        vectors = encoder.encode(*batch)
    assert ["plain formula" in record.message for record in caplog.records if record.name.startswith("splade")] == [
        True
    ]
    assert encoder.vocab_size == VOCAB and weights.count_nonzero() > 0
    torch.testing.assert_close(weights, textbook(model, *batch))
    torch.testing.assert_close(torch.from_numpy(vectors.to_dense()), weights)
    twice = MaskedLMEncoder(model, activation="log1p_relu")
    torch.testing.assert_close(twice(*batch).detach(), weights.log1p())


def test_the_model_itself_is_left_as_it_was(model):
    batch = make_batch()
    before = model(*batch).logits
    encoder = MaskedLMEncoder(model)
    encoder.encode(*batch)
    torch.testing.assert_close(model(*batch).logits, before)
    assert {f"model.{name}" for name in model.state_dict()} == set(encoder.state_dict())


@pytest.mark.parametrize("agg", ["max", "sum"])
@pytest.mark.parametrize("name", ["bert", "distilbert", "esm"])
def test_gradients_of_every_parameter_equal_the_textbook_formula(name, agg):
    ours = make_model(ARCHITECTURES[name]).double()
    theirs = copy.deepcopy(ours)
    batch = make_batch()
    MaskedLMEncoder(ours, agg=agg)(*batch).square().sum().backward()
    textbook(theirs, *batch, agg=agg).square().sum().backward()
    compared = 0
    for (parameter_name, our), their in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (our.grad is None) == (their.grad is None), parameter_name
        if our.grad is not None:
            torch.testing.assert_close(our.grad, their.grad, rtol=1e-9, atol=1e-12, msg=parameter_name)
            compared += 1
    assert compared > 10


def test_gradient_checkpointing_does_not_change_gradients(model):
    batch = make_batch()
    plain, checkpointed = copy.deepcopy(model), copy.deepcopy(model)
    getattr(checkpointed, "activation_checkpointing_enable", checkpointed.gradient_checkpointing_enable)()
    for each in (plain, checkpointed):
        MaskedLMEncoder(each.train()).eval()
        for module in each.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    for each in (plain, checkpointed):
        encoder = MaskedLMEncoder(each).train()
        encoder(*batch).square().sum().backward()
    for our, their in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        if our.grad is not None:
            torch.testing.assert_close(our.grad, their.grad)


def test_bf16_autocast_trains(model):
    encoder = MaskedLMEncoder(model)
    batch = make_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = encoder(*batch)
    weights.sum().backward()
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, textbook(model, *batch), rtol=0.05, atol=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_encode_ignores_dropout_and_restores_training(model):
    encoder = MaskedLMEncoder(model.train())
    batch = make_batch()
    vectors = encoder.encode(*batch).to_dense()
    assert encoder.training and model.training
    torch.testing.assert_close(torch.from_numpy(vectors), encoder.eval()(*batch).detach())


@pytest.mark.parametrize("agg", ["max", "sum"])
def test_top_k(model, agg):
    batch = make_batch()
    full, cut = (MaskedLMEncoder(model, agg=agg, top_k=top_k)(*batch).detach() for top_k in (None, 5))
    assert (full > 0).sum(1).min() > 5
    assert (cut > 0).sum(1).tolist() == [5] * len(cut)
    torch.testing.assert_close(cut.topk(5).values, full.topk(5).values)
    vectors = MaskedLMEncoder(model, agg=agg, top_k=5).encode(*batch)
    torch.testing.assert_close(torch.from_numpy(vectors.to_dense()), cut)


def test_own_tokens_only(model):
    input_ids, attention_mask = make_batch()
    input_ids[:, 0] = 3
    weights = MaskedLMEncoder(model, own_tokens_only=True, special_token_ids=[3])(input_ids, attention_mask)
    full = MaskedLMEncoder(model)(input_ids, attention_mask).detach()
    for row, ids, mask in zip(range(len(weights)), input_ids, attention_mask, strict=True):
        own = set(ids[mask.bool()].tolist()) - {3}
        expected = torch.tensor([full[row, term] if term in own else 0.0 for term in range(VOCAB)])
        torch.testing.assert_close(weights[row].detach(), expected)


def test_a_text_of_padding_only_is_empty(model):
    input_ids, attention_mask = make_batch()
    attention_mask[1] = 0
    vectors = MaskedLMEncoder(model).encode(input_ids, attention_mask)
    assert vectors.lengths[1] == 0 and vectors.lengths[0] > 0


def test_diverged_model_is_an_error(model):
    model.cls.predictions.decoder.weight.data[5] = torch.nan
    encoder = MaskedLMEncoder(make_model(ARCHITECTURES["bert"]))
    encoder.model = model
    with pytest.raises(ModelError, match="not finite"):
        encoder.encode(*make_batch())


def test_wrong_options_are_named(model):
    with pytest.raises(ConfigError, match="agg='mean'"):
        MaskedLMEncoder(model, agg="mean")
    with pytest.raises(ConfigError, match="top_k=0"):
        MaskedLMEncoder(model, top_k=0)


def test_a_model_without_a_vocabulary_is_named():
    with pytest.raises(ModelError, match="Linear has no output over a vocabulary"):
        MaskedLMEncoder(nn.Linear(2, 2))


def test_is_a_sparse_encoder(model):
    assert isinstance(MaskedLMEncoder(model), SparseEncoder)
    assert find_decoder(model) == Decoder("cls.predictions.decoder", "cls.predictions.decoder.bias")


@pytest.mark.parametrize("pays", [True, False])
def test_changed_weights_change_the_vectors(model, monkeypatch, pays):
    monkeypatch.setattr("splade.models.masked_lm.filter_pays", lambda _weight: pays)
    encoder = MaskedLMEncoder(model)
    batch = make_batch()
    encoder.encode(*batch)
    for change in ("step", "load", "data"):
        weight = model.cls.predictions.decoder.weight
        if change == "step":
            with torch.no_grad():
                weight.mul_(-1.5)
        elif change == "load":
            other = make_model(ARCHITECTURES["bert"], seed=9)
            model.load_state_dict(other.state_dict())
        else:
            encoder.train()
            weight.data *= -1
            encoder.eval()
        expected = encoder(*batch).detach()
        assert expected.count_nonzero() > 0
        torch.testing.assert_close(torch.from_numpy(encoder.encode(*batch).to_dense()), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_filter_is_not_used_in_half_precision(model, monkeypatch, dtype):
    """Its bound is one of float32 products: under autocast all weights would be other ones than without it."""
    monkeypatch.setattr("splade.models.masked_lm.filter_pays", lambda _weight: True)
    encoder = MaskedLMEncoder(model)
    weight, bias = encoder._decoder.parameters(model)
    assert encoder._int8_filter(weight, bias) is not None
    with torch.autocast("cpu", dtype=dtype):
        assert encoder._int8_filter(weight, bias) is None
        vectors = encoder.encode(*make_batch())
        expected = encoder(*make_batch()).detach()
    torch.testing.assert_close(torch.from_numpy(vectors.to_dense()), expected, rtol=0.05, atol=0.05)


def test_vectors_do_not_depend_on_the_processor(model, monkeypatch):
    batch = make_batch()
    encoded = []
    for pays in (True, False):
        monkeypatch.setattr("splade.models.masked_lm.filter_pays", lambda _weight, pays=pays: pays)
        encoded.append(torch.from_numpy(MaskedLMEncoder(model).encode(*batch).to_dense()))
    torch.testing.assert_close(*encoded, rtol=1e-5, atol=1e-6)
