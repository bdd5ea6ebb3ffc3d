"""The head on real weights, against the plain formula and sentence-transformers."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from splade.encoding.batching import encode_batches
from splade.encoding.text_encoder import TextEncoder
from splade.encoding.tokens import single_text_tokenizer, token_ids
from splade.models.masked_lm import MaskedLMEncoder
from splade.vectors import SparseVectors

TEXTS = [
    "Aspirin lowers the risk of a second heart attack in patients with coronary disease.",
    "cheap flights to lisbon",
    "The mitochondrion turns nutrients into energy. " * 12,
    "How many moons does Jupiter have, and which of them is the largest?",
    "Bread dough rises because yeast makes carbon dioxide.",
    "x",
]


@pytest.fixture(scope="module")
def tiny(splade_tiny):
    return AutoModelForMaskedLM.from_pretrained(splade_tiny).eval(), AutoTokenizer.from_pretrained(splade_tiny)


@pytest.mark.parametrize("agg", ["max", "sum"])
def test_vectors_equal_the_textbook_formula(tiny, agg):
    model, tokenizer = tiny
    (vectors,) = encode_batches(MaskedLMEncoder(model, agg=agg), tokenizer, TEXTS, 64, batch_size=4)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        weights = torch.log1p(torch.relu(model(**inputs).logits)) * inputs["attention_mask"].unsqueeze(-1)
    expected = (weights.sum(1) if agg == "sum" else weights.max(1).values).numpy()
    assert vectors.lengths.min() >= 5
    np.testing.assert_allclose(vectors.to_dense(), expected, rtol=1e-5, atol=1e-5)


def test_vectors_equal_sentence_transformers(tiny, splade_tiny):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sparse_encoder.modules")
    model, tokenizer = tiny
    transformer = modules.Transformer(str(splade_tiny), transformer_task="fill-mask")
    theirs = sentence_transformers.SparseEncoder(modules=[transformer, modules.SpladePooling()], device="cpu")
    theirs.max_seq_length = 64
    (vectors,) = encode_batches(MaskedLMEncoder(model), tokenizer, TEXTS, 64, batch_size=4)
    expected = theirs.encode_document(TEXTS, show_progress_bar=False).to_dense().numpy()
    np.testing.assert_allclose(vectors.to_dense(), expected, atol=1e-5)


def test_single_queries_equal_the_batch(tiny):
    model, tokenizer = tiny
    encoder = MaskedLMEncoder(model)
    (batch,) = encode_batches(encoder, tokenizer, TEXTS, 64, batch_size=4)
    one = TextEncoder(encoder, tokenizer, 64)
    singles = SparseVectors.concatenate([one.encode_one(text) for text in TEXTS], encoder.vocab_size)
    np.testing.assert_allclose(singles.to_dense(), batch.to_dense(), atol=1e-5)


@pytest.mark.parametrize("agg", ["max", "sum"])
def test_gradients_of_every_parameter_equal_the_textbook_formula(tiny, agg):
    model, tokenizer = tiny
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=32, return_tensors="pt")
    ours, theirs = copy.deepcopy(model), copy.deepcopy(model)
    weights = MaskedLMEncoder(ours, agg=agg)(inputs["input_ids"], inputs["attention_mask"])
    (weights[:3] * weights[3:]).sum().backward()
    activations = torch.log1p(torch.relu(theirs(**inputs).logits)) * inputs["attention_mask"].unsqueeze(-1)
    weights = activations.sum(1) if agg == "sum" else activations.max(1).values
    (weights[:3] * weights[3:]).sum().backward()
    # A gradient that is zero but for rounding, such as that of a key's bias, has nothing to be relative to.
    rounding = 1e-6 * max(their.grad.norm() for their in theirs.parameters() if their.grad is not None)
    for (name, our), their in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (our.grad is None) == (their.grad is None), name
        if their.grad is not None:
            difference = (our.grad - their.grad).norm()
            assert difference < 1e-5 * their.grad.norm() + rounding, f"{name}: {difference / their.grad.norm():.1e}"


@pytest.mark.parametrize("max_length", [4, 16, 64])
def test_single_texts_are_tokenised_as_in_a_batch(tiny, max_length):
    _, tokenizer = tiny
    odd = [*TEXTS, "", "  two  spaces ", "[CLS] [SEP] [MASK] literal", "naïve Ünïcode ✓ 漢字", "a\tb\nc"]
    alone = single_text_tokenizer(tokenizer, max_length)
    assert [alone(text) for text in odd] == token_ids(tokenizer, odd, max_length)
