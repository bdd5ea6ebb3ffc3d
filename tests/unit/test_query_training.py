"""Training of a query encoder against documents that stay as they are."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

import splade
from splade.config import compose_experiment
from splade.errors import ConfigError
from splade.models.load import build_splade
from splade.tasks.first_look import first_look
from splade.training.query_training import AnsweredQuery, rarity, train_queries
from splade.vectors import SparseVectors

TEXTS = ("hens lay eggs in straw", "foxes like hens", "bees dance on flowers", "a queen bee lays eggs", "tea is hot")
QUERIES = [AnsweredQuery(*pair) for pair in (("straw", 0), ("foxes", 1), ("flowers", 2), ("queen", 3), ("hot tea", 4))]


@pytest.fixture
def documents_of(tiny_model):
    """Return a model, and the vectors of the texts."""
    model = splade.load(tiny_model(), max_length=16)
    return model.network, model.encode_documents(list(TEXTS))


def run(**settings):
    return replace(compose_experiment("config_domain_adaptation", ["config.max_length=16"]).config, **settings)


@torch.no_grad()
def loss(model, documents):
    """Return the cross-entropy of each query's own document."""
    encoded = model.query_tokenizer([query.text for query in QUERIES], padding=True, return_tensors="pt")
    vectors = model.query_encoder.eval()(encoded["input_ids"], encoded["attention_mask"])
    own = torch.tensor([query.document for query in QUERIES])
    return functional.cross_entropy(vectors @ torch.from_numpy(documents.to_dense()).T, own).item()


def test_queries_learn_and_documents_stay(documents_of):
    model, documents = documents_of
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained, steps = train_queries(model, documents, QUERIES * 64, run(lr=1e-2))
    assert steps == 10 and loss(trained, documents) < loss(model, documents)
    assert trained.fingerprint() == model.fingerprint() and trained.query_digest() != model.query_digest()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again, _ = train_queries(model, documents, QUERIES * 64, run(lr=1e-2))
    assert again.query_digest() == trained.query_digest()


def test_rare_terms_count_more():
    vectors = SparseVectors.from_rows([([0, 1], [1, 9]), ([0], [1]), ([0], [1])], vocab_size=3)
    frequent, rare, absent = rarity(vectors).tolist()
    assert frequent < rare < absent
    assert (3 * frequent + rare) / 4 == pytest.approx(1)  # weights stay of the size that they have


def test_queries_without_a_language_model_cannot_be_trained(tiny_model):
    given = [f"init_dict.model_type_or_dir={tiny_model()}", "config.matching_type=splade_doc"]
    experiment = compose_experiment("config_domain_adaptation", given)
    model = build_splade(experiment.init_dict, experiment.config)
    documents = SparseVectors.from_rows([([1], [1])], model.vocab_size)
    with pytest.raises(ConfigError, match="without a language model"):
        train_queries(model, documents, QUERIES, run())


def test_a_folder_of_documents_alone_passes_the_first_look(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "title": "", "text": "hens lay eggs"}\n')
    first_look(compose_experiment("config_domain_adaptation", [f"data.TRAIN_DATA_DIR={tmp_path}"]), "adapt")
