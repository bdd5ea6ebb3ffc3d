"""Every SparseEncoder of sentence-transformers encodes here as it does there, or is refused by name.

Needs the extra `sentence-transformers`: pip install .[sentence-transformers]
"""

import json

import pytest
import torch

import splade
from splade.errors import ModelError

pytest.importorskip("sentence_transformers", reason="needs the extra: pip install .[sentence-transformers]")

TEXTS = ["why do cats sleep so long", "A cat sleeps.", "the history of the printing press " * 40, ""]


@pytest.fixture(scope="module")
def base(tiny_model):
    """A random masked-language model with weights large enough that many terms are active."""
    folder = tiny_model(seed=3)
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0)
    model.save_pretrained(folder)
    return folder


def sparse_encoder(base, agg="max", activation="relu"):
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer

    transformer = Transformer(str(base), transformer_task="fill-mask")
    return SparseEncoder(modules=[transformer, SpladePooling(agg, activation_function=activation)])


def assert_same_vectors(folder, **settings):
    """Compare all weights of queries and documents with those of sentence-transformers."""
    from sentence_transformers import SparseEncoder

    ours, theirs = splade.load(str(folder), **settings), SparseEncoder(str(folder), device="cpu")
    pairs = [(ours.encode_queries, theirs.encode_query), (ours.encode_documents, theirs.encode_document)]
    for encode, their_encode in pairs:
        expected = their_encode(TEXTS, convert_to_sparse_tensor=False)
        assert (expected > 0).sum() > 0
        torch.testing.assert_close(torch.from_numpy(encode(TEXTS).to_dense()), expected, rtol=1e-4, atol=1e-4)
        one = torch.from_numpy(encode(TEXTS[0]).to_dense())
        torch.testing.assert_close(one, expected[:1], rtol=1e-4, atol=1e-4)
    return ours, theirs


@pytest.mark.parametrize("agg", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_pooling_and_activation(base, tmp_path, agg, activation):
    sparse_encoder(base, agg, activation).save_pretrained(str(tmp_path))
    ours, _ = assert_same_vectors(tmp_path, agg=agg, max_length=512)
    plain = splade.load(str(base), agg=agg).fingerprint
    changed = [] if activation == "relu" else ["document_encoder"]
    assert ours.fingerprint.differences(plain.as_dict()) == changed


def test_an_unknown_activation_is_named(base, tmp_path):
    sparse_encoder(base).save_pretrained(str(tmp_path))
    (tmp_path / "1_SpladePooling" / "config.json").write_text(json.dumps({"activation_function": "gelu"}))
    with pytest.raises(ModelError, match="activation_function is 'gelu'; allowed are relu, log1p_relu"):
        splade.load(str(tmp_path))
