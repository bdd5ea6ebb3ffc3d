import pytest
import torch

from splade.errors import ConfigError
from splade.models.head import blocks
from splade.models.head.pooling import ACTIVATIONS, AGGREGATIONS, pooled_blocks, sparse_head


def textbook(hidden, mask, weight, bias, agg, activation="relu"):
    logits = hidden @ weight.t() + (0 if bias is None else bias)
    weights = torch.log1p(torch.relu(logits)) * mask.unsqueeze(-1)
    weights = torch.log1p(weights) if activation == "log1p_relu" else weights
    return weights.sum(1) if agg == "sum" else weights.max(1).values


def factors(batch=5, length=7, dim=6, vocab_size=50, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(batch, length, dim, generator=generator, dtype=dtype)
    weight = torch.randn(vocab_size, dim, generator=generator, dtype=dtype)
    bias = torch.randn(vocab_size, generator=generator, dtype=dtype)
    lengths = torch.randint(1, length + 1, (batch,), generator=generator)
    mask = (torch.arange(length) < lengths[:, None]).long()
    return hidden, mask, weight, bias


@pytest.fixture(params=["packed", "padded"])
def layout(request, monkeypatch):
    """Run the blocks of the CPU, and those of other devices, on the CPU; small enough for several blocks and pieces."""
    if request.param == "padded":
        padded = blocks._padded_blocks
        monkeypatch.setattr("splade.models.head.pooling.token_blocks", lambda hidden, mask: padded(hidden, mask.bool()))
    monkeypatch.setattr(blocks, "CPU_BLOCK_TOKENS", 8)
    monkeypatch.setattr(blocks.PackedBlock, "tile_logits", 8 * 16)
    monkeypatch.setattr(blocks, "DEVICE_BLOCK_TOKENS", 16)
    monkeypatch.setattr(blocks.PaddedBlock, "tile_logits", 16 * 16)


@pytest.mark.parametrize("agg", AGGREGATIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_weights_equal_the_textbook_formula(layout, agg, with_bias, activation):
    hidden, mask, weight, bias = factors()
    inputs = hidden, mask, weight, bias if with_bias else None, agg, activation
    torch.testing.assert_close(sparse_head(*inputs), textbook(*inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("agg", AGGREGATIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_gradients_equal_the_textbook_formula(layout, agg, with_bias, activation):
    hidden, mask, weight, bias = factors()
    leaves = [hidden, weight] + ([bias] if with_bias else [])
    for leaf in leaves:
        leaf.requires_grad_()
    upstream = torch.randn(5, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    bias = bias if with_bias else None
    outputs = [f(hidden, mask, weight, bias, agg, activation) for f in (sparse_head, textbook)]
    ours, theirs = (torch.autograd.grad((output * upstream).sum(), leaves) for output in outputs)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("agg", AGGREGATIONS)
@pytest.mark.parametrize("length", [1, 15, 16, 33])
def test_a_single_short_passage(layout, agg, length):
    hidden, _, weight, bias = factors(batch=1, length=length)
    mask = torch.ones(1, length)
    mask[0, 1 : length // 3] = 0
    leaves = [leaf.requires_grad_() for leaf in (hidden, weight, bias)]
    outputs = [f(hidden, mask, weight, bias, agg) for f in (sparse_head, textbook)]
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(output.square().sum(), leaves) for output in outputs)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("agg", AGGREGATIONS)
def test_gradcheck(layout, agg):
    hidden, mask, weight, bias = factors(batch=2, length=4, dim=3, vocab_size=20)
    for leaf in (hidden, weight, bias):
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(lambda h, w, b: sparse_head(h, mask, w, b, agg), (hidden, weight, bias))


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_first_of_equal_tokens_takes_the_whole_gradient(layout, batch):
    hidden = torch.ones(batch, 3, 2, requires_grad=True)
    mask = torch.tensor([[0, 1, 1], [1, 1, 1], [1, 0, 1]]).repeat(3, 1)[:batch]
    sparse_head(hidden, mask, torch.ones(4, 2)).sum().backward()
    # d/dx log(1 + x) at x = 2, four terms.
    expected = torch.zeros(batch, 3, 2)
    expected[torch.arange(batch), mask.argmax(1)] = 4 / 3
    torch.testing.assert_close(hidden.grad, expected)


@pytest.mark.parametrize("agg", AGGREGATIONS)
def test_terms_that_no_token_supports_have_no_weight_and_no_gradient(layout, agg):
    hidden = torch.ones(2, 3, 2, requires_grad=True)
    weight = torch.full((20, 2), -1.0, requires_grad=True)
    bias = torch.zeros(20, requires_grad=True)
    weights = sparse_head(hidden, torch.ones(2, 3), weight, bias, agg)
    weights.sum().backward()
    assert weights.count_nonzero() == 0
    assert not any(leaf.grad.any() for leaf in (hidden, weight, bias))


@pytest.mark.parametrize("agg", AGGREGATIONS)
def test_a_passage_without_tokens_is_the_zero_vector(layout, agg):
    hidden, mask, weight, bias = factors()
    mask[2] = 0
    hidden.requires_grad_()
    weights = sparse_head(hidden, mask, weight, bias, agg)
    weights.sum().backward()
    assert weights[2].count_nonzero() == 0
    assert weights[1].count_nonzero() > 0
    assert not hidden.grad[2].any() and hidden.grad.isfinite().all()


@pytest.mark.parametrize("agg", AGGREGATIONS)
def test_masked_tokens_have_no_say(layout, agg):
    hidden, mask, weight, bias = factors()
    changed = torch.where(mask.bool().unsqueeze(-1), hidden, 1e6)
    assert torch.equal(sparse_head(hidden, mask, weight, bias, agg), sparse_head(changed, mask, weight, bias, agg))


@pytest.mark.parametrize("agg", AGGREGATIONS)
def test_not_a_number_is_not_hidden(layout, agg):
    hidden, mask, weight, bias = factors()
    hidden[0, 0] = torch.nan
    weights = sparse_head(hidden, mask, weight, bias, agg)
    assert weights[0].isnan().all() and weights[1:].isfinite().all()


@pytest.mark.parametrize("agg", AGGREGATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(layout, agg, dtype):
    hidden, mask, weight, bias = factors(dtype=torch.float32)
    for leaf in (hidden, weight, bias):
        leaf.requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        weights = sparse_head(hidden, mask, weight, bias, agg)
    weights.sum().backward()
    assert weights.dtype == torch.float32
    assert {leaf.grad.dtype for leaf in (hidden, weight, bias)} == {torch.float32}
    expected = textbook(hidden, mask, weight, bias, agg)
    torch.testing.assert_close(weights, expected, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("agg", AGGREGATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision(layout, agg, dtype):
    hidden, mask, weight, bias = factors(dtype=torch.float32)
    halves = [tensor.to(dtype).requires_grad_() for tensor in (hidden, weight, bias)]
    weights = sparse_head(halves[0], mask, halves[1], halves[2], agg)
    weights.sum().backward()
    assert weights.dtype == torch.float32
    assert {half.grad.dtype for half in halves} == {dtype}
    torch.testing.assert_close(weights, textbook(hidden, mask, weight, bias, agg), rtol=0.05, atol=0.1)


def test_gradients_of_the_sum_are_added_up_in_float32(monkeypatch):
    """A gradient is a sum over all terms; added up piece by piece in half precision it would stop growing."""
    monkeypatch.setattr(blocks.PackedBlock, "tile_logits", 4 * 8)
    hidden = torch.ones(1, 4, 1, dtype=torch.bfloat16, requires_grad=True)
    weight, upstream = torch.ones(4096, 1, dtype=torch.bfloat16), torch.ones(1, 4096)
    sparse_head(hidden, torch.ones(1, 4), weight, None, "sum").backward(upstream)
    assert hidden.grad.flatten().tolist() == [2048.0] * 4  # 4096 terms of slope 1 / 2


@pytest.mark.parametrize("agg", AGGREGATIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_blocks_without_autograd_give_the_same_weights(layout, agg, activation):
    hidden, mask, weight, bias = factors()
    weight.requires_grad_()
    whole = sparse_head(hidden, mask, weight, bias, agg, activation).detach()
    inputs = hidden, mask, weight, bias, agg, lambda passages, weights: (passages, weights), None, activation
    pieces = pooled_blocks(*inputs)
    assert len(pieces) > 1
    assert [passages.start for passages, _ in pieces[1:]] == [passages.stop for passages, _ in pieces[:-1]]
    assert not any(weights.requires_grad for _, weights in pieces)
    torch.testing.assert_close(torch.cat([weights for _, weights in pieces]), whole, rtol=1e-12, atol=1e-12)


def test_only_what_needs_a_gradient_gets_one(layout):
    hidden, mask, weight, bias = factors()
    weight.requires_grad_()
    sparse_head(hidden, mask, weight, bias).sum().backward()
    assert weight.grad is not None and hidden.grad is None


def test_unknown_aggregation_is_named():
    hidden, mask, weight, bias = factors()
    with pytest.raises(ConfigError, match="agg='mean'.*max, sum"):
        sparse_head(hidden, mask, weight, bias, "mean")
    with pytest.raises(ConfigError, match="activation='gelu'.*relu, log1p_relu"):
        sparse_head(hidden, mask, weight, bias, "max", "gelu")


@pytest.mark.parametrize("agg", AGGREGATIONS)
def test_the_number_of_threads_changes_nothing(agg):
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(30, 90, 16, generator=generator), torch.randn(300, 16, generator=generator)
    mask = (torch.arange(90) < torch.randint(1, 91, (30, 1), generator=generator)).long()
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
            weights = sparse_head(leaves[0], mask, leaves[1], agg=agg)
            found.append([weights, *torch.autograd.grad(weights.square().sum(), leaves)])
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(*found, strict=True):
        torch.testing.assert_close(one, three)
