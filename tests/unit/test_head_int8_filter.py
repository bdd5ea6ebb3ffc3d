import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from splade.models.head import pooling as head
from splade.models.head.int8_filter import LOWEST, FilteredBatch, Int8Filter, filter_pays
from splade.models.head.kernels import segment_max
from splade.models.head.pooling import pooled_blocks, sparse_head


def both(hidden, mask, weight, bias, activation="relu"):
    def dense(int8_filter):
        inputs = hidden, mask, weight, bias, "max", lambda _, weights: weights, int8_filter, activation
        return torch.cat(pooled_blocks(*inputs))

    return dense(Int8Filter(weight, bias)), dense(None)


# Near a weight of zero the rounding of products, not of the weight, is what differs.
@example(seed=38, batch=4, length=1, dim=38, scale=1e-3, shift=-0.7525, masked=0.0, with_bias=True)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 4),
    length=st.integers(1, 30),
    dim=st.integers(2, 40),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    shift=st.floats(-3, 3),
    masked=st.floats(0, 1),
    with_bias=st.booleans(),
)
def test_no_term_is_lost_and_no_weight_changes(seed, batch, length, dim, scale, shift, masked, with_bias):
    generator = torch.Generator().manual_seed(seed)
    hidden = scale * torch.randn(batch, length, dim, generator=generator)
    weight = torch.randn(300, dim, generator=generator)
    # Many logits near zero, on both sides.
    bias = scale * (shift + torch.randn(300, generator=generator)) if with_bias else None
    mask = (torch.rand(batch, length, generator=generator) >= masked).long()
    filtered, full = both(hidden, mask, weight, bias)
    # The two products add up in another order: their sums differ by rounding errors of the norms' size.
    rounding = torch.finfo(torch.float32).eps * hidden.norm(dim=2).max() * weight.norm(dim=1).max()
    torch.testing.assert_close(filtered, full, rtol=1e-5, atol=float(rounding))
    torch.testing.assert_close(both(hidden, mask, weight, bias, "log1p_relu")[0], filtered.log1p())


def test_the_error_bound_holds_where_rounding_is_worst():
    # One large entry makes the unit large; all others are rounded down by almost half of it, and all errors add up.
    worst = torch.full((512,), 1.4999)
    worst[0] = 127.0
    hidden, weight = worst.view(1, 1, 512), worst.repeat(16, 1)
    bias = -(hidden @ weight.t())[0, 0] + 1.0
    rounded = (hidden.round() @ weight.round().t())[0, 0] + bias
    assert (rounded < -500).all()
    filtered, full = both(hidden, torch.ones(1, 1), weight, bias)
    assert (full > 0).all()
    torch.testing.assert_close(filtered, full, rtol=0, atol=0.02)


@pytest.mark.parametrize("exact", ["hidden", "weight"])
def test_each_half_of_the_error_bound_is_needed(exact):
    """One side is exact in 8 bits, so that all of the error, and of its bound, is the other side's."""
    integers = torch.zeros(512)
    integers[0], integers[1:] = 127.0, 1.0
    rounded_down = torch.full((512,), 1.4999)
    rounded_down[0] = 127.0
    state, term = (integers, rounded_down) if exact == "hidden" else (rounded_down, integers)
    hidden, weight = state.view(1, 1, 512), term.repeat(16, 1)
    bias = -(hidden @ weight.t())[0, 0] + 1.0
    assert ((hidden.round() @ weight.round().t())[0, 0] + bias < -200).all()
    filtered, full = both(hidden, torch.ones(1, 1), weight, bias)
    assert (full > 0).all()
    torch.testing.assert_close(filtered, full, rtol=0, atol=0.02)


def test_only_few_terms_are_computed_in_full():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(40, 64, generator=generator), torch.randn(5000, 64, generator=generator)

    def filtered(bias):
        return FilteredBatch(Int8Filter(weight, torch.full((5000,), bias)), hidden.unsqueeze(0), torch.ones(1, 40))

    batch = filtered(-25.0)
    (block,) = batch.blocks
    assert batch.is_selective()
    ((_, _, candidates),) = batch._candidates(block)
    assert 0 < (batch.weights(block) > 0).sum() <= len(candidates) < 500
    assert not filtered(0.0).is_selective()


@pytest.mark.parametrize("shift", [-14.0, 0.0])
def test_training_with_and_without_the_filter_gives_the_same_gradients(monkeypatch, shift):
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(40, 100, 16, generator=generator), torch.randn(400, 16, generator=generator)
    bias = shift + torch.randn(400, generator=generator)
    mask = (torch.arange(100) < torch.randint(0, 101, (40, 1), generator=generator)).long()
    leaves = [leaf.requires_grad_() for leaf in (hidden, weight, bias)]
    found, used = [], []
    filtered = FilteredBatch.max_into
    monkeypatch.setattr(FilteredBatch, "max_into", lambda *args: (used.append(1), filtered(*args)))
    for pays in (True, False):
        monkeypatch.setattr(head, "filter_pays", lambda _weight, pays=pays: pays)
        weights = sparse_head(hidden, mask, weight, bias)
        found.append([weights, *torch.autograd.grad(weights.square().sum(), leaves)])
    assert bool(used) == (shift < 0) and found[0][0].count_nonzero() > 0
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_first_of_equal_tokens_is_noted():
    generator = torch.Generator().manual_seed(0)
    once, weight = (torch.randint(-3, 4, shape, generator=generator).float() for shape in ((5, 6, 8), (50, 8)))
    hidden, mask = once.repeat(1, 2, 1), torch.ones(5, 12)
    mask[:, :2] = 0  # of these tokens, the second one is the first that counts
    batch = FilteredBatch(Int8Filter(weight, None), hidden, mask)
    logits = (hidden @ weight.T).masked_fill(mask[:, :, None] == 0, -torch.inf).numpy()
    for block in batch.blocks:
        values, argmax = torch.empty(block.size, 50), torch.zeros(block.size, 50, dtype=torch.int32)
        batch.max_into(block, values, argmax)
        noted = torch.isfinite(values)
        passages = np.arange(5)[block.passages]
        expected = torch.from_numpy(logits[passages].argmax(1) + 12 * passages[:, None]).int()
        assert noted.any() and torch.equal(argmax[noted], expected[noted])


def test_nan_is_not_hidden():
    hidden, weight = torch.randn(2, 3, 8), torch.randn(20, 8)
    hidden[0, 1, 0] = torch.nan
    weight[5] = -torch.nan
    filtered, _ = both(hidden, torch.ones(2, 3), weight, None)
    assert filtered[0].isnan().all() and filtered[1, 5].isnan() and filtered[1].isnan().sum() == 1


def test_threads_share_a_filtered_batch():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(40, 60, 16, generator=generator), torch.randn(400, 16, generator=generator)
    mask, bias = torch.ones(40, 60), torch.full((400,), -10.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        filtered, full = both(hidden, mask, weight, bias)
    finally:
        torch.set_num_threads(threads)
    assert 0 < (full > 0).float().mean() < 1
    torch.testing.assert_close(filtered, full, rtol=1e-5, atol=1e-5)


def test_a_batch_of_nothing():
    hidden, weight = torch.randn(0, 0, 8), torch.randn(20, 8)
    assert FilteredBatch(Int8Filter(weight, None), hidden, torch.ones(0, 0)).blocks == []


@pytest.mark.parametrize("terms", [1, 16, 37])
def test_maximum_of_integers(terms):
    tile = np.random.default_rng(terms).integers(-1000, 1000, (9, terms)).astype(np.int32)
    offsets = np.array([0, 4, 6, 6, 9])
    values = np.zeros((4, terms + 2), dtype=np.int32)
    segment_max(tile, offsets, values, 1, LOWEST)
    for passage, (start, stop) in enumerate(zip(offsets, offsets[1:], strict=False)):
        expected = tile[start:stop].max(0) if stop > start else LOWEST
        assert (values[passage, 1:-1] == expected).all()
    assert not values[:, 0].any() and not values[:, -1].any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_masked_does_not_matter(value):
    hidden, weight = torch.randn(2, 3, 8), torch.randn(20, 8)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    expected, _ = both(hidden, mask, weight, None)
    hidden[0, 2] = value
    filtered, _ = both(hidden, mask, weight, None)
    assert torch.equal(filtered, expected)


def test_the_filter_is_for_float32_on_processors_that_multiply_integers(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    assert filter_pays(torch.ones(2, 2))
    assert not filter_pays(torch.ones(2, 2).double())
    assert not filter_pays(torch.ones(2, 1))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": False})
    assert not filter_pays(torch.ones(2, 2))
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not filter_pays(torch.ones(2, 2))


@pytest.mark.parametrize("rounded", ["hidden", "weight"])
def test_the_whole_of_the_error_bound_is_needed(rounded):
    """One number is rounded by nearly a half, and all of that counts in the logit."""
    coarse, exact = torch.tensor([127.0, 0.49]), torch.tensor([0.0, 1.0])
    hidden, weight = (coarse, exact) if rounded == "hidden" else (exact, coarse)
    filtered, full = both(hidden.view(1, 1, 2), torch.ones(1, 1), weight.repeat(32, 1), torch.full((32,), -0.3))
    assert (full > 0.1).all()
    torch.testing.assert_close(filtered, full)
