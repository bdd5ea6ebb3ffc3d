"""What must hold for every text, batch and order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForMaskedLM

from splade.encoding.tokens import padded_batch
from splade.models.head.pooling import AGGREGATIONS, sparse_head
from splade.models.masked_lm import MaskedLMEncoder
from splade.vectors import SparseVectors

VOCAB = 60


def make_encoder(agg):
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    model = BertForMaskedLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return MaskedLMEncoder(model, agg=agg)


ENCODERS = {agg: make_encoder(agg) for agg in AGGREGATIONS}
texts = st.lists(st.lists(st.integers(1, VOCAB - 1), min_size=1, max_size=20), min_size=1, max_size=6)
few = settings(max_examples=40, deadline=None)


def alone(encoder, rows):
    vectors = [encoder.encode(*padded_batch([row], 0)) for row in rows]
    return SparseVectors.concatenate(vectors, VOCAB).to_dense()


@pytest.mark.parametrize("agg", AGGREGATIONS)
@few
@given(rows=texts, padding=st.integers(0, 12), pad_id=st.integers(0, VOCAB - 1))
def test_padding_does_not_change_a_vector(agg, rows, padding, pad_id):
    input_ids, mask = padded_batch(rows, pad_id)
    input_ids = torch.nn.functional.pad(input_ids, (0, padding), value=pad_id)
    mask = torch.nn.functional.pad(mask, (0, padding))
    padded = ENCODERS[agg].encode(input_ids, mask).to_dense()
    np.testing.assert_allclose(padded, alone(ENCODERS[agg], rows), atol=2e-6 * (20 if agg == "sum" else 1))


@pytest.mark.parametrize("agg", AGGREGATIONS)
@few
@given(rows=texts, data=st.data())
def test_order_in_the_batch_does_not_change_a_vector(agg, rows, data):
    order = data.draw(st.permutations(range(len(rows))))
    encoder = ENCODERS[agg]
    straight = encoder.encode(*padded_batch(rows, 0)).to_dense()
    permuted = encoder.encode(*padded_batch([rows[i] for i in order], 0)).to_dense()
    np.testing.assert_allclose(permuted, straight[list(order)], atol=2e-6 * (20 if agg == "sum" else 1))


@pytest.mark.parametrize("agg", AGGREGATIONS)
@few
@given(rows=texts)
def test_encode_gives_the_non_zeros_of_forward(agg, rows):
    encoder = ENCODERS[agg]
    batch = padded_batch(rows, 0)
    vectors = encoder.encode(*batch)
    dense = encoder(*batch).detach().numpy()
    np.testing.assert_allclose(vectors.to_dense(), dense, atol=2e-6 * (20 if agg == "sum" else 1))
    assert (vectors.weights > 0).all() and vectors.term_ids.dtype == np.int32
    assert all((np.diff(terms) > 0).all() for terms, _ in vectors)


@pytest.mark.parametrize("agg", AGGREGATIONS)
@few
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 5),
    length=st.integers(1, 20),
    dim=st.integers(1, 9),
    vocab_size=st.integers(1, 70),
    masked=st.floats(0, 1),
)
def test_head_equals_the_textbook_formula(agg, seed, batch, length, dim, vocab_size, masked):
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        # Small integers make equal logits frequent.
        torch.randint(-2, 3, shape, generator=generator).double().requires_grad_()
        for shape in ((batch, length, dim), (vocab_size, dim), (vocab_size,))
    )
    mask = (torch.rand(batch, length, generator=generator) >= masked).long()
    ours = sparse_head(hidden, mask, weight, bias, agg)
    activations = torch.log1p(torch.relu(hidden @ weight.t() + bias)) * mask.unsqueeze(-1)
    theirs = activations.sum(1) if agg == "sum" else activations.max(1).values
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    # Of the gradients, that of the bias does not depend on which of several equal tokens won.
    ours_bias, theirs_bias = (torch.autograd.grad(out.square().sum(), bias)[0] for out in (ours, theirs))
    torch.testing.assert_close(ours_bias, theirs_bias, rtol=1e-10, atol=1e-10)
