"""Which words made a score, and which tokens made the words: everything adds up."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import splade
from splade.config import compose_experiment
from splade.config.arguments import hydra_arguments
from splade.encoding.text_encoder import TextEncoder
from splade.errors import ConfigError, DataError
from splade.inspection.explanation_page import explanation_page
from splade.inspection.term_differences import as_shares, term_differences
from splade.inspection.traced_text import explain_traced, trace
from splade.inspection.views import BagView, ScoreView
from splade.models.causal_lm import CausalLMEncoder
from splade.models.encoder import SparseEncoder
from splade.models.token_lookup import TokenLookupEncoder
from splade.tasks.explain import explain

WORDS = "the sky is blue because air scatters short waves more than long ones and cats see it at night".split()


def random_texts(count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(2, 12))) for _ in range(count)]


@pytest.fixture(scope="module")
def model(tiny_model):
    return splade.load(str(tiny_model()))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """A collection, queries, a run of two documents, and an index."""
    folder = tmp_path_factory.mktemp("explain")
    texts = {f"d{i}": text for i, text in enumerate(random_texts(20, seed=1))}
    (folder / "docs.tsv").write_text("".join(f"{doc_id}\t{text}\n" for doc_id, text in texts.items()))
    (folder / "queries.tsv").write_text("q1\twhy is the sky blue\nq2\tcats at night\n")
    (folder / "run.json").write_text(json.dumps({"q2": {"d3": 9.0, "d7": 8.0, "d1": 7.0}}))
    splade.Index.build(folder / "index", model, folder / "docs.tsv")
    return folder


def run(*arguments):
    return explain(compose_experiment("own_data", hydra_arguments(list(map(str, arguments)), "explain")))


def test_shares_add_up_to_the_score_that_search_reports(model, folder):
    retriever = splade.Retriever(model, splade.Index.open(folder / "index", model))
    texts = dict(line.split("\t") for line in (folder / "docs.tsv").read_text().splitlines())
    n_pairs = 0
    for query in random_texts(5, seed=2):
        asked = trace(model.queries, model.tokens, query)
        for hit in retriever.search(query, top_k=20):
            vector = retriever.index.postings.vector(retriever.index.postings.doc_number(hit.doc_id))
            document = trace(model.documents, model.tokens, texts[hit.doc_id], vector)
            explanation = explain_traced(asked, document)
            assert document.agrees
            assert sum(part.score for part in explanation.contributions) == pytest.approx(hit.score, rel=1e-4)
            assert sum(part.score / explanation.score for part in explanation.contributions) == pytest.approx(1)
            n_pairs += 1
    assert n_pairs == 100


@pytest.mark.parametrize(("agg", "activation"), [("max", "relu"), ("sum", "relu"), ("max", "log1p_relu")])
def test_what_tokens_gave_adds_up_to_the_bag(tiny_model, agg, activation):
    model = splade.load(tiny_model(), agg=agg)
    model.network.document_encoder.activation = activation
    for text in random_texts(5, seed=3):
        traced = trace(model.documents, model.tokens, text)
        assert traced.agrees and len(traced.inputs) == len(traced.parts) > 3
        np.testing.assert_allclose(traced.parts.sum(axis=0), traced.weights, rtol=1e-5)
        assert sum(traced.input_totals) == pytest.approx(traced.weights.sum(), rel=1e-5)
        if agg == "max":
            assert (np.count_nonzero(traced.parts, axis=0) == 1).all()


def test_the_token_named_is_the_one_that_reached_the_maximum(model):
    text = "the sky is blue at night"
    traced = trace(model.documents, model.tokens, text)
    tokenizer, network = model.network.tokenizer, model.network.document_encoder.model
    with torch.no_grad():
        logits = network(**tokenizer(text, return_tensors="pt")).logits[0]
    for term, source in zip(traced.term_ids.tolist(), traced.sources, strict=True):
        assert source.position == int(logits[:, term].argmax())
        assert source.token == traced.inputs[source.position]


def test_a_text_that_is_read_twice_has_the_places_of_its_second_copy():
    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=40, **size)).eval()
    encoder = CausalLMEncoder(network, repeat_text=True, special_token_ids=[1]).eval()
    ids = torch.tensor([1, 7, 3, 9])
    term_ids, weights = encoder.encode(ids[None], torch.ones(1, 4, dtype=torch.int64)).row(0)
    given = encoder.token_weights(ids, torch.from_numpy(term_ids).long())
    assert given.shape == (4, len(term_ids)) and not given[0].any()
    np.testing.assert_allclose(given.max(dim=0).values, weights, rtol=1e-5)


def test_a_looked_up_term_comes_from_its_own_token():
    encoder = TokenLookupEncoder(6, special_token_ids=[0], weights=torch.arange(6.0))
    given = encoder.token_weights(torch.tensor([0, 4, 2, 4]), torch.tensor([2, 4]))
    assert given.tolist() == [[0, 0], [0, 4], [2, 0], [0, 4]]


def test_an_encoder_that_cannot_tell_leaves_the_tokens_out(model, monkeypatch):
    monkeypatch.setattr(type(model.network.document_encoder), "token_weights", SparseEncoder.token_weights)
    traced = trace(model.documents, model.tokens, "the sky")
    assert traced.inputs == () and set(traced.sources) == {None} and traced.input_totals == []
    assert "expansion" not in BagView("x", traced, "m").text(3)
    assert "document token" not in explain_traced(traced, traced).render()


def test_another_text_than_the_indexed_one_is_noticed(model):
    traced = trace(model.documents, model.tokens, "the sky is blue")
    other = trace(model.documents, model.tokens, "cats see at night", traced.vector)
    assert not other.agrees and other.weights is traced.weights


def test_differences_have_every_term_of_both_sides():
    rows = term_differences({"a": 1.0, "b": 3.0}, {"b": 1.0, "c": 2.5})
    assert [(row.token, row.difference) for row in rows] == [("c", -2.5), ("b", 2.0), ("a", 1.0)]
    assert as_shares({"a": 1.0, "b": 3.0}) == {"a": 0.25, "b": 0.75} and as_shares({}) == {}


def test_a_page_takes_no_text_for_markup(model):
    traced = trace(model.documents, model.tokens, "<script>alert(1)</script> sky")
    traced = replace(traced, inputs=("<b>", *traced.inputs[1:]))
    views = [BagView("<b>x</b>", traced, "m"), ScoreView("<i>", explain_traced(traced, traced), "m")]
    page = explanation_page("<u>", views, top=5)
    assert not any(tag in page for tag in ("<script", "<b>", "<i>", "<u>"))
    assert "&lt;b&gt;x&lt;/b&gt;" in page and page.count('class="bar"') == 10


def test_a_text_from_the_command_line(model):
    shown = run("the sky is blue", f"init_dict.model_type_or_dir={model.name}", "explain.top=4").summary()
    title, note, *bars = shown.splitlines()
    assert title == "== the sky is blue ==" and note.startswith(f"{len(model.bag_of_words('the sky is blue'))} terms")
    assert len([line for line in bars if "█" in line or "░" in line]) == 4
    words = [line.split()[0] for line in bars[:4]]
    assert words == [token for token, _ in model.bag_of_words("the sky is blue", top=4)]


def test_documents_of_an_index_and_files(folder, tmp_path):
    files = tmp_path / "found.json", tmp_path / "found.html"
    named = f"explain.write=[{files[0]},{files[1]}]"
    shown = run(f"config.index_dir={folder}/index", "query=why is the sky blue", "explain.most=2", named).summary()
    assert shown.count("from") >= 2 and "is above B" in shown and str(files[0]) in shown
    first, second, difference = json.loads(files[0].read_text())
    assert first["score"] >= second["score"] and difference["kind"] == "difference"
    assert sum(term["share"] for term in first["terms"]) == pytest.approx(1)
    assert all(term["doc_from"]["token"] for term in first["terms"])
    gap = sum(term["difference"] for term in difference["terms"])
    assert gap == pytest.approx(first["score"] - second["score"], abs=1e-6)
    assert files[1].read_text().count("<section>") == 3


def test_a_ranking_of_a_run(folder):
    queries = f"data.Q_COLLECTION_PATH={folder}/queries.tsv"
    shown = run(f"config.index_dir={folder}/index", f"explain.run={folder}/run.json", queries).summary()
    assert "== cats at night → d3: " in shown and "→ d7: " in shown and "→ d1: " not in shown
    assert "above B" in shown or "level with B" in shown
    with pytest.raises(DataError, match="no such query"):
        run(f"config.index_dir={folder}/index", f"explain.run={folder}/run.json", queries, "explain.query_id=q1")
    with pytest.raises(DataError, match="query 'q2': not in data.Q_COLLECTION_PATH"):
        run(f"config.index_dir={folder}/index", f"explain.run={folder}/run.json")


def test_two_models_side_by_side(model, folder, tiny_model):
    other = str(tiny_model(seed=1))
    arguments = f"init_dict.model_type_or_dir={model.name}", f"explain.other_model={other}"
    shown = run(*arguments, f"explain.file={folder}/docs.tsv", "explain.most=1").summary()
    assert shown.count("terms of ") == 2 and f"B: {other}" in shown and "100.0%   100.0%" in shown
    documents = f"data.COLLECTION_PATH={folder}/docs.tsv"
    shown = run(*arguments, documents, "explain.doc_ids=[d3]", "query=cats at night").summary()
    assert shown.count("shared term") == 2 and "shares of the score" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to explain"),
        (["explain.text=sky", "explain.write=[a.txt]"], "a.txt: names end in .json or .html"),
        (["explain.doc_ids=[d1]"], "document 'd1': not found; config.index_dir or data.COLLECTION_PATH"),
        (["explain.text=sky", "explain.query_id=q1"], "query 'q1': not in data.Q_COLLECTION_PATH"),
    ],
)
def test_what_is_missing_is_named(model, arguments, message):
    with pytest.raises((ConfigError, DataError), match=message):
        run(f"init_dict.model_type_or_dir={model.name}", *arguments)


def test_an_unknown_document_of_an_index(folder):
    with pytest.raises(DataError, match="document 'nope' is not in the index, which holds 20 documents"):
        run(f"config.index_dir={folder}/index", "explain.doc_ids=[nope]")


def test_a_side_has_its_own_encoder(model):
    assert isinstance(model.queries, TextEncoder)
    shown = run("sky", f"init_dict.model_type_or_dir={model.name}", "explain.side=query").summary()
    assert f"{len(model.bag_of_words('sky', side='query'))} terms" in shown
