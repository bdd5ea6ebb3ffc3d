"""Queries without a transformer: weights from a collection, fixed, learned, or learned from embeddings (Li-LSR)."""

import json
import math

import numpy as np
import pytest
import torch

from splade.config import compose_experiment
from splade.datasets.collections import open_collection
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError, DataError, ModelError
from splade.models import token_idf
from splade.models.load import build_splade, load_for_inference
from splade.models.token_idf import collection_idf
from splade.models.token_lookup import ProjectedLookupEncoder, TokenLookupEncoder
from splade.tasks.train import train
from splade.training.run import prepare_training

TOY = "pkg://splade/data/toy"
IDF = {"config.matching_type": "splade_idf", "init_dict.idf_collection": f"{TOY}/collection"}


@pytest.fixture(scope="module")
def model_folder(tiny_model):
    """A tiny random model."""
    return tiny_model()


@pytest.fixture
def experiment(model_folder, tmp_path):
    """Compose a run of three steps."""

    def compose(**changes):
        settings = {
            "init_dict.model_type_or_dir": model_folder,
            "config.checkpoint_dir": tmp_path / "checkpoint",
            "config.nb_iterations": 3,
            "config.warmup_steps": 0,
            "config.train_batch_size": 4,
            "config.max_length": 16,
            "config.regularizer": "{FLOPS: {lambda_d: 0.1}}",
            "data.VALIDATION_SIZE_FOR_LOSS": 0,
        }
        return compose_experiment("config_default", [f"{name}={value}" for name, value in (settings | changes).items()])

    return compose


def toy_texts():
    return [text for _, text in open_collection(f"{TOY}/collection")]


def test_idf_is_that_of_bm25_over_tokens(tiny_tokenizer):
    texts = toy_texts()
    rows = [set(tiny_tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    idf = collection_idf(open_collection(f"{TOY}/collection"), tiny_tokenizer, len(tiny_tokenizer))
    for term in range(len(tiny_tokenizer)):
        df = sum(term in row for row in rows)
        assert idf[term].item() == pytest.approx(math.log(1 + (len(texts) - df + 0.5) / (df + 0.5)), rel=1e-6)
    assert idf.min() > 0


def test_texts_without_tokens_do_not_count_and_large_collections_are_read_once(tiny_tokenizer, tmp_path, monkeypatch):
    (tmp_path / "raw.tsv").write_text("1\tthe cat\n2\t\n3\tthe\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(token_idf, "CACHE_FROM_TEXTS", 1)
    collection = open_collection(tmp_path / "raw.tsv")
    first = collection_idf(collection, tiny_tokenizer, len(tiny_tokenizer))
    the = tiny_tokenizer.convert_tokens_to_ids("the")
    assert first[the].item() == pytest.approx(math.log(1 + 0.5 / 2.5))
    with monkeypatch.context() as patch:
        patch.setattr(token_idf, "document_frequencies", None)
        assert torch.equal(collection_idf(collection, tiny_tokenizer, len(tiny_tokenizer)), first)
    (tmp_path / "raw.tsv").write_text("1\ta\n")
    assert not torch.equal(collection_idf(open_collection(tmp_path / "raw.tsv"), tiny_tokenizer, len(first)), first)
    (tmp_path / "raw.tsv").write_text("1\t \n")
    with pytest.raises(DataError, match="no text has a token"):
        collection_idf(open_collection(tmp_path / "raw.tsv"), tiny_tokenizer, len(first))


def test_score_weighs_terms_by_idf(experiment, tiny_tokenizer):
    settings = experiment(**IDF, **{"init_dict.query_weights": "fixed"})
    model = SparseModel(build_splade(settings.init_dict, settings.config).eval())
    idf = collection_idf(open_collection(f"{TOY}/collection"), tiny_tokenizer, len(tiny_tokenizer)).numpy()
    query, document = toy_texts()[:2]
    tokens = sorted(set(tiny_tokenizer(query, add_special_tokens=False)["input_ids"]))
    terms, weights = model.encode_documents(document).row(0)
    of_document = dict(zip(terms.tolist(), weights.tolist(), strict=True))
    expected = sum(float(idf[token]) * of_document.get(token, 0.0) for token in tokens)
    query_terms, query_weights = model.encode_queries(query).row(0)
    score = sum(w * of_document.get(t, 0.0) for t, w in zip(query_terms.tolist(), query_weights.tolist(), strict=True))
    assert query_terms.tolist() == tokens and score == pytest.approx(expected, rel=1e-5) and score > 0


def test_scaled_idf_reaches_the_queries_of_the_trained_model(experiment):
    changes = IDF | {"init_dict.query_weights": "fixed", "init_dict.idf_scale": 0.25}
    plain, scaled = experiment(**IDF), experiment(**changes)
    whole, quarter = (build_splade(one.init_dict, one.config).query_encoder.table() for one in (plain, scaled))
    assert torch.equal(quarter, whole / 4) and quarter.max() > 0
    train(scaled)
    assert torch.allclose(load_for_inference(scaled).query_encoder.table(), quarter)


@pytest.mark.parametrize("top_k", [None, 2])
def test_all_ways_of_looking_up_agree_and_see_a_changed_weight(top_k):
    encoder = TokenLookupEncoder(6, [0, 1], torch.tensor([9.0, 9, 3, -1, 2, 5]), trainable=True, top_k=top_k)
    ids = [[0, 2, 2, 4, 3, 5, 1]]
    for _ in range(2):
        dense = encoder(torch.tensor(ids), torch.ones(1, 7)).detach().numpy()[0]
        for vectors in (encoder.encode(torch.tensor(ids), torch.ones(1, 7)), encoder.encode_tokens(ids[0])):
            terms, weights = vectors.row(0)
            assert terms.tolist() == np.flatnonzero(dense).tolist()
            assert weights.tolist() == dense[terms].tolist()
        with torch.no_grad():
            encoder.weights[4] += 10
    assert dense[4] == 12


def test_li_lsr_by_hand():
    random = np.random.default_rng(0)
    embeddings, projection, bias = random.normal(size=(7, 3)), random.normal(size=3), 0.3
    encoder = ProjectedLookupEncoder(torch.tensor(embeddings), 6, special_token_ids=[0])
    assert encoder.table().tolist() == pytest.approx([0, 1, 1, 1, 1, 1])
    with torch.no_grad():
        encoder.projection.copy_(torch.tensor(projection)), encoder.bias.fill_(bias)
    scores = [math.log(1 + max(0, float(projection @ row) + bias)) for row in embeddings]
    vectors = encoder.encode(torch.tensor([[0, 2, 5, 5]]), torch.tensor([[1, 1, 1, 1]]))
    expected = {term: scores[term] for term in (2, 5) if scores[term] > 0}
    found = dict(zip(*(part.tolist() for part in vectors.row(0)), strict=True))
    assert found == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ModelError, match="embeddings of 7 tokens and 8 terms"):
        ProjectedLookupEncoder(torch.tensor(embeddings), 8, [])


@pytest.mark.parametrize("how", ["learned", "fixed", "projected"])
def test_trained_weights_are_saved_as_a_table(experiment, tmp_path, how):
    changes = {"config.matching_type": "splade_idf", "init_dict.query_weights": how, "config.token_weights_lr": 0.1}
    changes |= {} if how == "projected" else {"init_dict.idf_collection": f"{TOY}/collection"}
    settings = experiment(**changes)
    train(settings)
    before, after = build_splade(settings.init_dict, settings.config), load_for_inference(settings)
    assert type(after.query_encoder) is TokenLookupEncoder
    moved = (after.query_encoder.table() - before.query_encoder.table()).abs().max().item()
    assert moved < 1e-6 if how == "fixed" else 0.05 < moved < 1.0
    table = json.loads((tmp_path / "checkpoint" / "model_q" / "token_weights.json").read_text())
    vocabulary = after.tokenizer.get_vocab()
    own = after.query_encoder.table()
    assert all(own[vocabulary[token]].item() == pytest.approx(weight) for token, weight in table.items())


def test_weights_of_tokens_have_a_learning_rate_of_their_own(experiment):
    trainer, _ = prepare_training(experiment(**IDF, **{"config.lr": 1e-5, "config.token_weights_lr": 0.02}))
    lookup = trainer.splade.query_encoder
    trainer.train_from(None)
    groups = trainer.optimizer.param_groups
    (own,) = [group for group in groups if any(weight is lookup.weights for weight in group["params"])]
    assert (own["initial_lr"], own["weight_decay"], len(own["params"])) == (0.02, 0.0, 1)
    assert {group["initial_lr"] for group in groups if group is not own} == {1e-5}
    n_trained = sum(weight.requires_grad for weight in trainer.splade.parameters())
    assert sum(len(group["params"]) for group in groups) == n_trained


def test_idf_flops_penalises_frequent_terms_more(experiment, tiny_tokenizer):
    regularizer = "{IDF_FLOPS: {lambda_d: 1, pool: all}}"
    collection = {"init_dict.idf_collection": f"{TOY}/collection"}
    trainer, _ = prepare_training(experiment(**collection, **{"config.regularizer": regularizer}))
    documents = torch.rand(4, len(tiny_tokenizer))
    (penalty,) = trainer.objective.regularizers[0](0, documents[:1], documents).values()
    idf = collection_idf(open_collection(f"{TOY}/collection"), tiny_tokenizer, len(tiny_tokenizer)).numpy()
    relative = np.maximum(idf / idf.mean(), 0.1)
    expected = sum((documents[:, j].mean().item() / relative[j]) ** 2 for j in range(len(relative)))
    assert penalty.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_dict.query_weights": "fixed"}, "query_weights is for config.matching_type=splade_idf"),
        ({"init_dict.idf_collection": "x"}, "idf_collection is for config.matching_type=splade_idf"),
        (IDF | {"init_dict.idf_path": "x"}, "keep one"),
        ({"init_dict.idf_scale": 0.5}, "idf_scale=0.5 is a factor of idf_path or idf_collection"),
        (IDF | {"init_dict.query_weights": "projected"}, "begins with weights of 1"),
        (IDF | {"init_dict.query_weights": "fixed", "init_dict.freeze_d_model": True}, "nothing to train"),
        ({"config.regularizer": "{IDF_FLOPS: {lambda_d: 1}}"}, "IDF_FLOPS needs init_dict.idf_collection"),
    ],
)
def test_settings_that_contradict_each_other(experiment, changes, message):
    settings = experiment(**changes)
    with pytest.raises(ConfigError, match=message):
        build_splade(settings.init_dict, settings.config)
