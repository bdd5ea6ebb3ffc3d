"""How `config.loss` and `config.regularizer` are read."""

import pytest

from splade.config.schema import RegularizerConfig
from splade.errors import ConfigError
from splade.losses import WeightedLoss, parse_regularizers


def test_names_and_weighted_sums():
    assert repr(WeightedLoss.parse("KlDiv")) == "KlDiv"
    assert repr(WeightedLoss.parse({"KlDiv": 0.99, "Contrastive": 0.01})) == "0.99 KlDiv + 0.01 Contrastive"


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


@pytest.mark.parametrize(
    ("entry", "message"),
    [(RegularizerConfig(reg="FLOP", lambda_q=1.0), "did you mean 'FLOPS'"), (RegularizerConfig(reg="L1"), "neither")],
)
def test_wrong_regularizers_are_refused(entry, message):
    with pytest.raises(ConfigError, match=message):
        parse_regularizers({"mine": entry})
