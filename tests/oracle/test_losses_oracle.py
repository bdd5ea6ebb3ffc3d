"""Every loss and regulariser against an independent formulation, values and gradients."""

import itertools

import numpy as np
import pytest
import torch

from splade.config.schema import RegularizerConfig
from splade.losses import LOSSES, BatchScores, flops_loss, l1_loss, parse_regularizers, regularization, score_batch


def log_softmax(row: list[float]) -> list[float]:
    largest = max(row)
    total = np.log(sum(np.exp(value - largest) for value in row)) + largest
    return [value - total for value in row]


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def by_hand(name: str, queries: np.ndarray, documents: np.ndarray, teacher: np.ndarray) -> float:
    """Each loss query by query, in plain Python."""
    n_queries = len(queries)
    n = len(documents) // n_queries - 1
    positives = documents[:n_queries]
    negatives = documents[n_queries:].reshape(n_queries, n, -1)
    values = []
    for i, query in enumerate(queries):
        positive, own = float(query @ positives[i]), [float(query @ negative) for negative in negatives[i]]
        scores, target = [positive, *own], teacher[i]
        if name == "PairwiseNLL":
            values.append(-log_softmax(scores)[0])
        elif name == "InBatchPairwiseNLL":
            others = [float(query @ positives[j]) for j in range(n_queries) if j != i]
            values.append(-log_softmax([positive, *others, *own])[0])
        elif name == "Contrastive":
            every = [float(query @ negative) for of_query in negatives for negative in of_query]
            values.append(-log_softmax([positive, *every])[0])
        elif name == "BPR":
            values.append(np.mean([-np.log(sigmoid(positive - score)) for score in own]))
        elif name == "BCE":
            negative_part = np.mean([-np.log(1 - sigmoid(score)) for score in own])
            values.append((-np.log(sigmoid(positive)) + negative_part) / 2)
        elif name == "DistilMarginMSE":
            values.append(
                np.mean([((positive - s) - (target[0] - t)) ** 2 for s, t in zip(own, target[1:], strict=True)])
            )
        elif name == "AllPairsMarginMSE":
            pairs = itertools.product(range(n + 1), repeat=2)  # N x N
            values.append(np.mean([((scores[a] - scores[b]) - (target[a] - target[b])) ** 2 for a, b in pairs]))
        elif name == "KlDiv":
            p, q = log_softmax(list(target)), log_softmax(scores)
            values.append(sum(np.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
        elif name == "Lambda":
            ranks = [1 + sum(other > score for other in scores) for score in scores]
            inverse = [1 / np.log2(1 + rank) for rank in range(1, n + 3)]
            pairs = [(abs(ranks[0] - ranks[j]), j) for j in range(1, n + 1)]
            weights = [
                10 * abs(inverse[apart - 1] - inverse[apart]) + abs(inverse[ranks[0] - 1] - inverse[ranks[j] - 1])
                for apart, j in pairs
            ]
            values.append(np.mean([-w * np.log2(sigmoid(positive - s)) for w, s in zip(weights, own, strict=True)]))
        elif name == "ListNet":
            p, q = log_softmax([1.0] + [0.0] * n), log_softmax(scores)
            values.append(-sum(np.exp(a) * b for a, b in zip(p, q, strict=True)))
        elif name == "ListMLE":
            order = sorted(range(n + 1), key=lambda place: -target[place])
            values.append(-sum(log_softmax([scores[j] for j in order[i:]])[0] for i in range(n + 1)))
    return float(np.mean(values))


def batch(seed: int, n_queries: int = 4, n: int = 3, vocab: int = 7):
    generator = torch.Generator().manual_seed(seed)
    queries = torch.rand(n_queries, vocab, generator=generator, dtype=torch.float64)
    documents = torch.rand(n_queries * (1 + n), vocab, generator=generator, dtype=torch.float64)
    teacher = torch.randn(n_queries, 1 + n, generator=generator, dtype=torch.float64) * 3
    return queries, documents, teacher


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("n", [1, 3])
def test_value_equals_the_plain_formula(name, n):
    queries, documents, teacher = batch(seed=1, n=n)
    loss = LOSSES[name]
    scores = score_batch(queries, documents, loss.needs_batch, teacher if loss.needs_teacher else None)
    expected = by_hand(name, queries.numpy(), documents.numpy(), teacher.numpy())
    assert loss.compute(scores).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradient_equals_finite_differences_of_the_plain_formula(name):
    queries, documents, teacher = batch(seed=2, n_queries=3, n=2, vocab=4)
    queries.requires_grad_(), documents.requires_grad_()
    loss = LOSSES[name]
    loss.compute(score_batch(queries, documents, loss.needs_batch, teacher)).backward()
    for tensor, position in ((queries, 0), (documents, 1)):
        numeric = np.zeros(tuple(tensor.shape))
        for place in np.ndindex(*numeric.shape):
            values = []
            for step in (1e-5, -1e-5):
                arrays = [queries.detach().numpy().copy(), documents.detach().numpy().copy()]
                arrays[position][place] += step
                values.append(by_hand(name, *arrays, teacher.numpy()))
            numeric[place] = (values[0] - values[1]) / 2e-5
        assert tensor.grad is not None
        np.testing.assert_allclose(tensor.grad.numpy(), numeric, atol=1e-6)


def test_scores_of_own_documents_do_not_depend_on_how_they_are_computed():
    queries, documents, _ = batch(seed=3)
    own = score_batch(queries, documents, with_batch=False).own
    torch.testing.assert_close(own, score_batch(queries, documents, with_batch=True).own)


def test_flops_and_l1_by_hand():
    vectors = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    assert flops_loss(vectors).item() == pytest.approx(2.0**2 + 0 + 1.0**2)
    assert l1_loss(vectors).item() == pytest.approx(3.0)


def test_regularisers_add_up_once_each_with_their_schedules():
    queries, documents, _ = batch(seed=4, n=2)
    regularizers = parse_regularizers(
        {
            "FLOPS": RegularizerConfig(reg="FLOPS", lambda_d=0.5, T=10),
            "sparse": RegularizerConfig(reg="L1", lambda_q=0.25, T=None),
            "anti": RegularizerConfig(reg="anti_zero", lambda_q=2.0, lambda_d=3.0, T=None),
        }
    )
    total, terms = regularization(regularizers, step=5, queries=queries, documents=documents)
    positives, negatives = documents[:4], documents[4:]

    def anti_zero(vectors: torch.Tensor) -> float:
        return 1 / vectors.sum().item() ** 2

    expected = {
        "FLOPS_d": 0.25 * 0.5 * (flops_loss(positives) + flops_loss(negatives)).item() / 2,
        "sparse_q": 0.25 * queries.sum(1).mean().item(),
        "anti_q": 2.0 * anti_zero(queries),
        "anti_d": 3.0 * anti_zero(documents),
    }
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected)
    assert total.item() == pytest.approx(sum(expected.values()))


@pytest.mark.parametrize("n", [1, 3])
def test_documents_are_pooled_as_said(n):
    queries, documents, _ = batch(seed=5, n=n)
    array = documents.numpy()

    def flops(rows: np.ndarray) -> float:
        return float(sum((sum(row[j] for row in rows) / len(rows)) ** 2 for j in range(array.shape[1])))

    expected = {"all": flops(array), "sides": (flops(array[:4]) + flops(array[4:])) / 2}
    for pool, value in expected.items():
        (regularizer,) = parse_regularizers({"FLOPS": RegularizerConfig(lambda_d=2.0, pool=pool)})
        assert regularizer(9, queries, documents)["FLOPS_d"].item() == pytest.approx(2 * value)
    assert abs(expected["all"] - expected["sides"]) > 1e-3


@pytest.mark.parametrize(("step", "factor"), [(0, 0.0), (5, 0.25), (10, 1.0), (50, 1.0)])
def test_lambda_grows_quadratically(step, factor):
    (regularizer,) = parse_regularizers({"FLOPS": RegularizerConfig(lambda_q=1.0, T=10)})
    assert regularizer.schedule(step) == pytest.approx(factor)


def test_collapsed_vectors_have_finite_loss():
    zeros = torch.zeros(2, 5, requires_grad=True)
    (regularizer,) = parse_regularizers({"anti_zero": RegularizerConfig(lambda_q=1.0)})
    value = regularizer(0, zeros, zeros)["anti_zero_q"]
    value.backward()
    assert torch.isfinite(value) and zeros.grad is not None and torch.isfinite(zeros.grad).all()


def test_batch_scores_shapes():
    scores = BatchScores(torch.zeros(2, 4))
    assert scores.n_negatives == 3 and scores.positive.shape == (2,) and scores.negatives.shape == (2, 3)


class Scores:
    """Stands for a cross-encoder of sentence-transformers: gives scores that are there."""

    num_labels, device = 1, torch.device("cpu")

    def __init__(self, own: torch.Tensor):
        self.own, self.given = own.flatten(), 0

    def preprocess(self, pairs, **_):
        """Say which of the scores come next."""
        self.given += len(pairs)
        return {"first": torch.tensor(self.given - len(pairs)), "n": torch.tensor(len(pairs))}

    def __call__(self, tokens):
        return {"scores": self.own[tokens["first"] : tokens["first"] + tokens["n"]]}


@pytest.mark.parametrize(
    ("name", "theirs"), [("Lambda", "LambdaLoss"), ("ListNet", "ListNetLoss"), ("ListMLE", "ListMLELoss")]
)
def test_losses_of_lists_are_those_of_sentence_transformers(name, theirs):
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses", reason="needs sentence-transformers")
    own = 3 * torch.randn(5, 4, generator=torch.Generator().manual_seed(6))
    teacher = torch.randn(5, 4, generator=torch.Generator().manual_seed(7))
    labels = teacher if LOSSES[name].needs_teacher else torch.tensor([1.0, 0, 0, 0]).expand(5, 4)
    kwargs = {"respect_input_order": False} if name == "ListMLE" else {}
    other = getattr(losses, theirs)(Scores(own), **kwargs)([["q"] * 5, [["d"] * 4] * 5], list(labels))
    assert LOSSES[name].compute(BatchScores(own, None, teacher)).item() == pytest.approx(other.item(), rel=1e-5)
