"""What each published recipe minimises, against a few lines of NumPy: loss, regularisers and their schedule."""

import numpy as np
import pytest
import torch

from splade.config.schema import RegularizerConfig
from splade.losses import WeightedLoss, parse_regularizers
from splade.training.objective import Objective

B, V = 3, 11  # queries of a batch, terms


def vectors(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sparse (B, V) queries, (B, 1 + n, V) documents, the positive first, and (B, 1 + n) teacher scores."""
    random = np.random.default_rng(seed)
    dense = random.gamma(1.0, 1.0, (B, 2 + n, V)) * (random.random((B, 2 + n, V)) < 0.6)
    return dense[:, 0], dense[:, 1:], random.normal(5, 2, (B, 1 + n))


def nll(scores: np.ndarray, correct: int = 0) -> float:
    return float(np.log(np.exp(scores).sum()) - scores[correct])


def flops(rows: np.ndarray) -> float:
    return float((rows.mean(axis=0) ** 2).sum())


def kl(teacher: np.ndarray, scores: np.ndarray) -> float:
    p, q = (np.exp(row) / np.exp(row).sum() for row in (teacher, scores))
    return float((p * np.log(p / q)).sum())


def grown(step: float, growth_steps: int) -> float:
    return min(1.0, step / growth_steps) ** 2


def of_all(documents: np.ndarray) -> np.ndarray:
    return documents.reshape(-1, V)


def sides(documents: np.ndarray) -> float:
    """FLOPS as triplet training has it."""
    return (flops(documents[:, 0]) + flops(of_all(documents[:, 1:]))) / 2


def anti_zero(q: np.ndarray, d: np.ndarray) -> float:
    return float(1 / q.sum() ** 2 + 1 / d.sum() ** 2)


def contrastive(q: np.ndarray, d: np.ndarray) -> float:
    negatives = of_all(d[:, 1:])
    return float(np.mean([nll(np.array([q[i] @ d[i, 0], *(negatives @ q[i])])) for i in range(len(q))]))


def own_scores(q: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.einsum("bv,bnv->bn", q, d)


def distillation(q: np.ndarray, d: np.ndarray, teacher: np.ndarray) -> float:
    return float(np.mean([kl(t, s) for t, s in zip(teacher, own_scores(q, d), strict=True)]))


def splade_max(q, d, teacher, step):
    in_batch = [nll(np.array([*(d[:, 0] @ q[i]), q[i] @ d[i, 1]]), correct=i) for i in range(B)]
    return np.mean(in_batch) + grown(step, 50_000) * (3e-4 * flops(q) + 1e-4 * sides(d))


def splade_distil(q, d, teacher, step):
    scores = own_scores(q, d)
    margins = (scores[:, 0] - scores[:, 1]) - (teacher[:, 0] - teacher[:, 1])
    return np.mean(margins**2) + grown(step, 50_000) * (0.5 * flops(q) + 0.4 * sides(d))


def efficient(q, d, teacher, step):
    return distillation(q, d, teacher) + grown(step, 50_000) * (5e-3 * q.sum(axis=1).mean() + 5e-4 * sides(d))


def sigir_distil(q, d, teacher, step):
    ranking = 0.99 * distillation(q, d, teacher) + 0.01 * contrastive(q, d)
    return ranking + anti_zero(q, d) + 5e-3 * q.sum(axis=1).mean() + 5e-3 * flops(of_all(d))


def sigir_no_distil(q, d, teacher, step):
    return contrastive(q, d) + anti_zero(q, d) + 5e-3 * q.sum(axis=1).mean() + 5e-3 * flops(of_all(d))


def splade_v3(q, d, teacher, step):
    scores = own_scores(q, d)
    n = scores.shape[1]
    pairs = [
        ((s[a] - s[b]) - (t[a] - t[b])) ** 2
        for s, t in zip(scores, teacher, strict=True)
        for a in range(n)
        for b in range(n)
    ]
    ranking = 0.99 * distillation(q, d, teacher) + 0.05 * sum(pairs) / (len(q) * n * n)
    return ranking + anti_zero(q, d) + grown(step, 30_000) * (0.01 * q.sum(axis=1).mean() + 0.02 * flops(of_all(d)))


ANTI_ZERO = {"anti_zero": {"lambda_q": 1.0, "lambda_d": 1.0}}
SIGIR = {"L1": {"lambda_q": 5e-3}, "FLOPS": {"lambda_d": 5e-3, "pool": "all"}} | ANTI_ZERO
# name: (formula, negatives, config.loss, config.regularizer)
RECIPES = {
    "splade++_max": (
        *(splade_max, 1, "InBatchPairwiseNLL"),
        {"FLOPS": {"lambda_q": 3e-4, "lambda_d": 1e-4, "T": 50_000}},
    ),
    "splade++_distil": (
        *(splade_distil, 1, "DistilMarginMSE"),
        {"FLOPS": {"lambda_q": 0.5, "lambda_d": 0.4, "T": 50_000}},
    ),
    "efficient": (
        *(efficient, 1, "KlDiv"),
        {"L1": {"lambda_q": 5e-3, "T": 50_000}, "FLOPS": {"lambda_d": 5e-4, "T": 50_000}},
    ),
    "sigir23_distil": (sigir_distil, 4, "kldiv_contrastive_with_weights", SIGIR),
    "sigir23_no_distil": (sigir_no_distil, 4, "Contrastive", SIGIR),
    "splade_v3": (
        *(splade_v3, 4, "kldiv_mse_margin_with_weights"),
        {"L1": {"lambda_q": 0.01, "T": 30_000}, "FLOPS": {"lambda_d": 0.02, "T": 30_000, "pool": "all"}} | ANTI_ZERO,
    ),
}


def objective(name: str, q: np.ndarray, d: np.ndarray, teacher: np.ndarray, step: float) -> float:
    """Return what training minimises, the vectors being those of the encoder."""
    _, n, loss, entries = RECIPES[name]
    regularizers = parse_regularizers({key: RegularizerConfig(**entry) for key, entry in entries.items()})
    documents = torch.tensor(np.concatenate([d[:, 0], of_all(d[:, 1:])]))
    batch = {"queries": torch.tensor(q), "documents": documents, "teacher": torch.tensor(teacher)}
    value, _ = Objective(WeightedLoss.parse(loss), regularizers)(lambda *sides: sides, batch, step)
    return value.item()


@pytest.mark.parametrize("step", [0, 20_000, 10**6])
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_equals_its_formula(name, step):
    formula, n, _, _ = RECIPES[name]
    q, d, teacher = vectors(n)
    assert objective(name, q, d, teacher, step) == pytest.approx(formula(q, d, teacher, step), rel=1e-9)


@pytest.mark.parametrize("name", ["sigir23_distil", "sigir23_no_distil", "splade_v3"])
def test_recipes_with_several_negatives_train_on_one_query(name):
    formula, n, _, _ = RECIPES[name]
    q, d, teacher = (part[:1] for part in vectors(n, seed=1))
    assert objective(name, q, d, teacher, step=10**6) == pytest.approx(formula(q, d, teacher, 10**6), rel=1e-9)
