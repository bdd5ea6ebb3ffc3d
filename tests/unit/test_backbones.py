"""Backbones of every family: trained ten steps, saved, loaded, indexed, searched; and how training fails."""

import csv

import numpy as np
import pytest
import torch
import transformers
from tiny_models import N_TERMS, SMALL, write_model
from transformers import AutoModelForMaskedLM

import splade
from splade.config import compose_experiment
from splade.errors import CollapseError, ModelError
from splade.evaluation.collapse import find_collapse
from splade.models.load import build_splade
from splade.models.rescaling import scale_logits
from splade.tasks.index import index
from splade.tasks.train import train
from splade.vectors import SparseVectors

MBERT_TERMS = 119_547
BACKBONES = ["bert", "distilbert", "roberta", "xlm_roberta", "deberta_v2", "electra", "modernbert", "mbert"]
TOPICS = {"tea": "hot tea of leaves", "snow": "cold snow", "river": "the river is deep", "bread": "warm bread"}
DOCUMENTS = [(f"{topic}{i}", f"{text} {filler}") for topic, text in TOPICS.items() for i, filler in enumerate("ab")]


def make_backbone(name, folder):
    # Larger first weights than usual: so few steps can make something of them.
    n_terms, architecture = (MBERT_TERMS, "bert") if name == "mbert" else (N_TERMS, name)
    wider = {"embedding_size": 16} if name == "electra" else {}
    return write_model(architecture, folder, n_terms, initializer_range=0.1, **wider)


@pytest.fixture(scope="module")
def triplets(tmp_path_factory):
    """Queries of one word, a document with that word and one without."""
    path = tmp_path_factory.mktemp("triplets") / "raw.tsv"
    texts = list(TOPICS.items())
    lines = [f"what is {topic}\t{text}\t{texts[i - 1][1]}" for i, (topic, text) in enumerate(texts)]
    path.write_text("\n".join(lines * 8) + "\n")
    return path


@pytest.fixture
def experiment(triplets, tmp_path):
    """Compose ten steps of training from a model folder."""

    def make(folder, **changes):
        settings = {
            "init_dict.model_type_or_dir": folder,
            "config.checkpoint_dir": tmp_path / "out",
            "config.nb_iterations": 10,
            "config.warmup_steps": 0,
            "config.lr": 3e-2,
            "config.train_batch_size": 4,
            "config.max_length": 16,
            "config.regularizer": "null",
            "config.train_monitoring_freq": 1,
            "data.TRAIN.DATASET_PATH": triplets,
            "data.VALIDATION_SIZE_FOR_LOSS": 0,
            "data.VALIDATION_FULL_RANKING": "null",
        }
        return compose_experiment("config_default", [f"{name}={value}" for name, value in (settings | changes).items()])

    return make


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_from_training_to_search(name, experiment, tmp_path):
    train(experiment(make_backbone(name, tmp_path / "start")))
    with open(tmp_path / "out" / "training_perf.txt") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 10 and np.mean(losses[-3:]) < 0.95 * np.mean(losses[:3])
    model = splade.load(tmp_path / "out", max_length=16)
    vectors = model.encode_documents(text for _, text in DOCUMENTS)
    assert find_collapse(vectors) is None
    again = splade.load(tmp_path / "out" / "model", max_length=16)
    made = splade.Index.build(tmp_path / "index", again, DOCUMENTS)
    queries = [f"what is {topic}" for topic in TOPICS]
    expected = model.encode_queries(queries).to_dense() @ vectors.to_dense().T
    for query, scores in zip(queries, expected, strict=True):
        hits = splade.Retriever(again, made).search(query, top_k=len(DOCUMENTS))
        found = {hit.doc_id: hit.score for hit in hits}
        assert len({round(score, 4) for score in found.values()}) > 1
        np.testing.assert_allclose([found[doc_id] for doc_id, _ in DOCUMENTS], scores, rtol=1e-5)


IDS = torch.tensor([[5, 9, 11, 7]])


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "deberta_v2", "electra", "modernbert"])
def test_divided_logits_are_exact_and_survive_saving(name, experiment, tmp_path):
    folder = make_backbone(name, tmp_path / "start")
    with torch.no_grad():
        before = AutoModelForMaskedLM.from_pretrained(folder).eval()(IDS).logits
    settings = experiment(folder, **{"init_dict.head_divisor": 8})
    model = build_splade(settings.init_dict, settings.config).document_encoder.model
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, before / 8, rtol=1e-4, atol=1e-6)
    model.save_pretrained(tmp_path / "saved")
    with torch.no_grad():
        again = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved").eval()
        torch.testing.assert_close(again(IDS).logits, model(IDS).logits)


def test_a_divided_model_trains_and_loads_again_as_it_is(experiment, tmp_path):
    folder = make_backbone("modernbert", tmp_path / "start")
    train(experiment(folder, **{"init_dict.head_divisor": 8, "config.nb_iterations": 2}))
    texts = [text for _, text in DOCUMENTS]
    trained = splade.load(tmp_path / "out", max_length=16).encode_documents(texts).to_dense()
    plain = splade.load(tmp_path / "out" / "model", max_length=16).encode_documents(texts).to_dense()
    np.testing.assert_array_equal(trained, plain)
    untouched = splade.load(folder, max_length=16).encode_documents(texts).to_dense()
    assert 0 < trained.max() < untouched.max()


def test_a_head_that_is_no_single_product_cannot_be_divided():
    config = transformers.DebertaV2Config(vocab_size=50, **SMALL, legacy=False)
    with pytest.raises(ModelError, match="head_divisor"):
        scale_logits(transformers.AutoModelForMaskedLM.from_config(config).eval(), torch.tensor(1 / 8))


# How training fails: the output biases of a model that starts there, and what is said.
FAILURES = {
    "no term is active": (lambda bias: bias.fill_(-100.0), "training has failed: no term is active"),
    "every term is active": (lambda bias: bias.fill_(100.0), "training has failed: every term is active"),
    "all vectors are the same": (lambda bias: bias.fill_(-100.0)[7:9].fill_(1e7), "all vectors are the same"),
}


@pytest.fixture
def failed(tmp_path):
    """Make a model that gives vectors of one collapse."""

    def make(collapse):
        folder = make_backbone("bert", tmp_path / "start")
        model = AutoModelForMaskedLM.from_pretrained(folder)
        with torch.no_grad():
            FAILURES[collapse][0](model.get_output_embeddings().bias)
        model.save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize("collapse", FAILURES)
def test_training_that_collapses_ends_with_an_error(collapse, failed, experiment, tmp_path, monkeypatch):
    monkeypatch.setattr("splade.training.collapse_check.TRIAL_STEPS", 1)
    settings = experiment(failed(collapse), **{"config.lr": 0, "config.nb_iterations": 1})
    with pytest.raises(CollapseError, match=FAILURES[collapse][1]):
        train(settings)
    assert not (tmp_path / "out" / "model").exists()


def test_a_short_trial_may_leave_every_term_active(failed, experiment, caplog):
    train(experiment(failed("every term is active"), **{"config.lr": 0, "config.nb_iterations": 1}))
    assert "every term is active" in caplog.text


@pytest.mark.parametrize("collapse", ["every term is active", "all vectors are the same"])
def test_indexing_with_a_collapsed_model_ends_with_an_error(collapse, failed, experiment, tmp_path):
    n_documents = 520 if collapse == "every term is active" else 9
    collection = tmp_path / "collection.tsv"
    collection.write_text("".join(f"d{i}\tw{20 + i % 40} tea w{20 + i // 40}\n" for i in range(n_documents)))
    settings = {"config.pretrained_no_yamlconfig": True, "config.index_dir": tmp_path / "index"}
    with pytest.raises(CollapseError):
        index(experiment(failed(collapse), **settings, **{"data.COLLECTION_PATH": collection}))


def test_vectors_that_differ_have_not_collapsed():
    rows = [([1, 2], [0.5, 1.0]), ([1, 3], [0.5, 1.0]), ([], [])]
    assert find_collapse(SparseVectors.from_rows(rows, 30)) is None
    assert find_collapse(SparseVectors.from_rows([([1], [0.5]), ([1], [0.6])], 30)) is None
    assert find_collapse(SparseVectors.from_rows([([1, 2], [0.5, 1.0])], 30)) is None
    assert find_collapse(SparseVectors.empty(30)) is None
