"""Regularisers of the field against a few lines of NumPy: values, gradients, and what they learn from batches."""

import math

import numpy as np
import pytest
import torch

from splade.config.schema import RegularizerConfig
from splade.errors import ConfigError
from splade.losses import parse_regularizers
from splade.losses.document_frequency import RunningFrequencies, frequency_weight
from splade.losses.lambda_control import LambdaController

B, N, V = 3, 2, 8  # queries, negatives of each, terms
LOSS = torch.tensor(0.5)


def sparse(n: int, seed: int, density: float = 0.5) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.tensor(random.gamma(1.0, 1.0, (n, V)) * (random.random((n, V)) < density))


IDF = np.array([0.1, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 0.02])


def one(name: str = "mine", **entry):
    return parse_regularizers({name: RegularizerConfig(**entry)}, torch.tensor(IDF))[0]


def plain_flops(rows: np.ndarray, weights: np.ndarray | None = None) -> float:
    weights = np.ones(V) if weights is None else weights
    return float(sum((weights[j] * sum(row[j] for row in rows) / len(rows)) ** 2 for j in range(V)))


def masked(rows: np.ndarray, threshold: int) -> np.ndarray:
    return np.array([row if sum(row > 0) > threshold else 0 * row for row in rows])


def without_largest(rows: np.ndarray, k: int) -> np.ndarray:
    return np.array([np.where(np.isin(np.arange(V), np.argsort(-row)[:k]), 0, row) for row in rows])


def logistic(x: float, alpha: float, beta: float) -> float:
    return 0.0 if x == 0 else 1 / (1 + (x ** math.log(2, alpha) - 1) ** beta)


def by_hand(entry: dict, queries: np.ndarray, documents: np.ndarray) -> float:
    if entry["reg"] == "joint_FLOPS":
        return sum(queries[:, j].mean() * documents[:, j].mean() for j in range(V))
    if entry["reg"] == "DF_FLOPS":
        frequencies = (documents > 0).mean(axis=0)
        weights = np.array([logistic(x, entry.get("alpha", 0.1), entry.get("beta", 10)) for x in frequencies])
        return plain_flops(documents, weights)
    if entry["reg"] == "IDF_FLOPS":
        return plain_flops(documents, np.array([1 / max(0.1, idf / (sum(IDF) / V)) for idf in IDF]))
    rows = masked(documents, entry["l0_threshold"]) if "l0_threshold" in entry else documents
    rows = without_largest(rows, entry["beyond_top_k"]) if "beyond_top_k" in entry else rows
    return plain_flops(rows) if entry["reg"] == "FLOPS" else float(rows.sum(axis=1).mean())


ENTRIES = {
    "joint": {"reg": "joint_FLOPS"},
    "DF": {"reg": "DF_FLOPS"},
    "DF, given": {"reg": "DF_FLOPS", "alpha": 0.4, "beta": 3.0},
    "IDF": {"reg": "IDF_FLOPS"},
    "l0 mask": {"reg": "FLOPS", "l0_threshold": 4},
    "l0 mask, L1": {"reg": "L1", "l0_threshold": 4},
    "beyond top k": {"reg": "FLOPS", "beyond_top_k": 2},
    "both": {"reg": "FLOPS", "l0_threshold": 3, "beyond_top_k": 1},
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_value_and_gradient_equal_the_plain_formula(entry):
    queries, documents = sparse(B, seed=1), sparse(B * (1 + N), seed=2)
    documents.requires_grad_()
    regularizer = one(**entry, lambda_d=2.0, pool="all")
    regularizer.observe(queries, documents, LOSS)
    (value,) = regularizer(0, queries, documents).values()
    value.backward()
    arrays = queries.numpy(), documents.detach().numpy()
    assert value.item() == pytest.approx(2 * by_hand(entry, *arrays), rel=1e-6)
    assert value.item() > 0
    for place in np.ndindex(*documents.shape):
        if arrays[1][place] == 0:
            continue  # the number of terms jumps there
        moved = []
        for step in (1e-6, -1e-6):
            changed = arrays[1].copy()
            changed[place] += step
            moved.append(2 * by_hand(entry, arrays[0], changed))
        assert documents.grad[place].item() == pytest.approx((moved[0] - moved[1]) / 2e-6, abs=1e-6), place


def test_joint_flops_is_the_expected_score_of_unrelated_pairs():
    queries, documents = sparse(B, seed=3), sparse(B * (1 + N), seed=4)
    (value,) = one(reg="joint_FLOPS", lambda_d=1.0)(0, queries, documents).values()
    assert value.item() == pytest.approx((queries @ documents.T).mean().item())


def test_weight_of_a_term_grows_with_its_frequency():
    weights = frequency_weight(torch.linspace(0, 1, 101, dtype=torch.float64), alpha=0.3, beta=4.0)
    assert weights[0] == 0 and weights[30].item() == pytest.approx(0.5) and weights[100] == 1
    assert (weights.diff() >= 0).all()


def test_frequencies_are_means_and_forget_after_a_hundred_batches():
    frequencies = RunningFrequencies()
    for batch in ([[1.0, 0.0]], [[1.0, 2.0]], [[0.0, 0.0]]):
        frequencies.observe(torch.tensor(batch))
    torch.testing.assert_close(frequencies.shares(torch.zeros(1, 2)), torch.tensor([2 / 3, 1 / 3]))
    for _ in range(500):
        frequencies.observe(torch.tensor([[0.0, 1.0]]))
    rare, frequent = frequencies.shares(torch.zeros(1, 2)).tolist()
    assert rare < 0.02 and frequent > 0.98
    again = RunningFrequencies()
    again.load(frequencies.state())
    frequencies.observe(torch.ones(1, 2)), again.observe(torch.ones(1, 2))
    assert torch.equal(frequencies.shares(torch.zeros(1, 2)), again.shares(torch.zeros(1, 2)))


def terms_after(target: float, weight: float, dropout: float = 0.0, steps: int = 200) -> float:
    """A model under Adam whose learning rate falls to zero, and whose loss alone first costs it most of its terms.

    They fall from 100 towards 37 and come back, at most as fast as the learning rate allows.
    """
    controller, terms, momentum, square = LambdaController(target), math.log(100), 0.0, 0.0
    for step in range(steps):
        vectors, penalty = torch.ones(1, round(math.exp(terms))), (math.exp(terms) / 60) ** 2
        controller.observe(vectors[:, : round((1 - dropout) * len(vectors[0]))], torch.tensor(weight * penalty), LOSS)
        if step % 10 == 0:
            controller.recount(vectors[:, : round((1 - dropout) * len(vectors[0]))], vectors)
        alone = math.log(100) - math.exp(-(((step - 45) / 25) ** 2))
        push = weight * controller.factor(torch.ones(1)).item() * (math.exp(terms) / 40) ** 1.2
        gradient = 0.0033 * max(-0.6, min(0.6, alone - terms)) - push
        momentum, square = 0.9 * momentum + 0.1 * gradient, 0.999 * square + 0.001 * (gradient**2 + 0.005**2)
        adam = momentum / (1 - 0.9 ** (step + 1)) / math.sqrt(square / (1 - 0.999 ** (step + 1)))
        terms += 0.15 * (1 - step / steps) * max(-1, min(1, adam))
    return math.exp(terms)


@pytest.mark.parametrize("weight", [1e-6, 1e-2, 1e2])
@pytest.mark.parametrize("target", [30, 60])
def test_controller_reaches_its_target_from_any_lambda(target, weight):
    assert terms_after(target, weight) == pytest.approx(target, rel=0.1)


def test_controller_counts_terms_as_they_are_without_dropout():
    assert terms_after(60, 1e-2, dropout=0.15) == pytest.approx(60, rel=0.1)


def test_controller_goes_on_where_it_was_and_only_in_training():
    entry = {"reg": "FLOPS", "lambda_d": 0.5, "target_terms": 2.0}
    controlled, again = one(**entry), one(**entry)
    queries, documents = sparse(B, seed=5), sparse(B * (1 + N), seed=6, density=0.9)
    for _ in range(30):
        controlled.observe(queries, documents, 1000 * LOSS)
    again.load(controlled.state())
    (value,), (same,) = controlled(5, queries, documents).values(), again(5, queries, documents).values()
    (plain,) = one(reg="FLOPS", lambda_d=0.5)(5, queries, documents).values()
    assert value.item() == same.item() and value > plain
    assert controlled(math.inf, queries, documents)["mine_d"].item() == plain.item()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"reg": "DF_FLOPS", "lambda_q": 1.0}, "lambda_q: DF_FLOPS has one weight"),
        ({"reg": "joint_FLOPS", "lambda_q": 1.0, "lambda_d": 1.0}, "joint_FLOPS has one weight"),
        ({"reg": "FLOPS", "lambda_d": 1.0, "alpha": 0.2}, "alpha and beta are for reg=DF_FLOPS"),
        ({"reg": "FLOPS", "lambda_q": 1.0, "lambda_d": 1.0, "target_terms": 9.0}, "an entry of its own to each"),
        ({"reg": "FLOPS", "lambda_d": 1.0, "target_terms": 9.0, "T": 5}, "set T to null"),
        ({"reg": "FLOPS", "lambda_d": 0.0, "target_terms": 9.0}, "above 0"),
    ],
)
def test_keys_that_do_not_fit_are_refused(entry, message):
    with pytest.raises(ConfigError, match=message):
        one(**entry)
