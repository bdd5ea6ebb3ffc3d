"""How `config.loss` and `config.regularizer` are read."""

import math

import pytest
import torch

from splade.config.schema import RegularizerConfig
from splade.errors import ConfigError
from splade.losses import BatchScores, WeightedLoss, parse_regularizers


def test_names_and_weighted_sums():
    assert repr(WeightedLoss.parse("KlDiv")) == "KlDiv"
    assert repr(WeightedLoss.parse({"KlDiv": 0.99, "Contrastive": 0.01})) == "0.99 KlDiv + 0.01 Contrastive"


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("kldiv_contrastive_with_weights", {"KlDiv": 0.99, "Contrastive": 0.01}),
        ("kldiv_contrastive_without_weights", {"KlDiv": 1, "Contrastive": 1}),
        ("kldiv_mse_margin_with_weights", {"KlDiv": 0.99, "AllPairsMarginMSE": 0.05}),
        ("kldiv_mse_margin_without_weights", {"KlDiv": 1, "AllPairsMarginMSE": 1}),
    ],
)
def test_published_sums(name, weights):
    loss = WeightedLoss.parse(name)
    assert {part: weight for part, (_, weight) in loss.terms.items()} == weights
    assert loss.needs_teacher and loss.needs_batch == ("Contrastive" in weights)
    half = WeightedLoss.parse({name: 0.5, "KlDiv": 1})
    assert half.terms["KlDiv"][1] == pytest.approx(1 + weights["KlDiv"] / 2)


def test_contrastive_over_one_query_is_the_loss_of_its_own_negatives():
    scores = BatchScores(torch.tensor([[2.0, 1.0, 0.5]]), torch.tensor([[2.0, 1.0, 0.5]]))
    total, _ = WeightedLoss.parse("Contrastive")(scores)
    assert total.item() == pytest.approx(math.log(math.exp(2) + math.exp(1) + math.exp(0.5)) - 2)
    assert [WeightedLoss.parse(name).smallest_batch for name in ("Contrastive", "InBatchPairwiseNLL")] == [1, 2]


def test_in_batch_negatives_turn_pairwise_into_in_batch():
    assert list(WeightedLoss.parse("PairwiseNLL", in_batch_negatives=True).terms) == ["InBatchPairwiseNLL"]


@pytest.mark.parametrize(
    ("value", "in_batch", "message"),
    [
        ("KLDiv", False, "did you mean 'KlDiv'"),
        ({}, False, "empty"),
        ({"KlDiv": -1}, False, "above 0"),
        ({"KlDiv": "much"}, False, "number"),
        ("DistilMarginMSE", True, "no meaning"),
    ],
)
def test_wrong_losses_are_refused(value, in_batch, message):
    with pytest.raises(ConfigError, match=message):
        WeightedLoss.parse(value, in_batch)


def test_no_regularizer():
    assert parse_regularizers(None) == [] and parse_regularizers("eval_only") == []


def test_one_side_only():
    (regularizer,) = parse_regularizers({"FLOPS": RegularizerConfig(lambda_q=1.0, lambda_d=2.0, targeted_rep="d")})
    assert (regularizer.lambda_q, regularizer.lambda_d) == (None, 2.0)


def test_pool_is_sides_unless_said_and_all_for_anti_zero():
    entries = {"FLOPS": {}, "L1": {"pool": "all"}, "anti_zero": {}, "mine": {"reg": "anti_zero", "pool": "sides"}}
    parsed = parse_regularizers({name: RegularizerConfig(lambda_d=1.0, **entry) for name, entry in entries.items()})
    assert [regularizer.pool for regularizer in parsed] == ["sides", "all", "all", "sides"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [(RegularizerConfig(reg="FLOP", lambda_q=1.0), "did you mean 'FLOPS'"), (RegularizerConfig(reg="L1"), "neither")],
)
def test_wrong_regularizers_are_refused(entry, message):
    with pytest.raises(ConfigError, match=message):
        parse_regularizers({"mine": entry})
