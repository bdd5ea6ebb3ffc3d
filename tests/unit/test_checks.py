"""Checks around the stages: each is provoked, and silent on sound input."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from splade.config import compose_experiment
from splade.datasets.collections import open_collection
from splade.datasets.dataset import Dataset
from splade.encoding.lengths import check_max_length
from splade.errors import ConfigError, DataError, ModelError
from splade.evaluation.checks import (
    Finding,
    check_qrels_against_collection,
    check_results,
    check_vector_counts,
    named,
    warning_messages,
)
from splade.inverted_index import IndexBuilder, InvertedIndex
from splade.reports.summaries import warning_block
from splade.retrieval.evaluate_retriever import check_qrels
from splade.retrieval.protocol import Retriever
from splade.tasks.evaluation_sets import check_collection
from splade.tasks.index import check_index
from splade.tasks.model_loading import check_named_models as check_settings
from splade.vectors import SparseVectors


def experiment(*overrides):
    return compose_experiment("config_default", list(overrides))


def codes(findings):
    return [finding.code for finding in findings]


class Positions(nn.Module):
    """As much of a language model as tells how many positions it has."""

    def __init__(self, count=None, padding_idx=None, trained=None):
        super().__init__()
        if count is not None:
            self.position_embeddings = nn.Embedding(count, 2, padding_idx=padding_idx)
        self.config = SimpleNamespace(max_position_embeddings=trained)


def lengths(language_model, max_length):
    return check_max_length(SimpleNamespace(model=language_model), max_length, "m", "document")


def test_max_length_of_bert_is_its_number_of_positions():
    bert = Positions(512)
    assert lengths(bert, 512) == []
    with pytest.raises(ModelError, match="at most 512 tokens; set config.max_length=512"):
        lengths(bert, 513)


def test_max_length_of_roberta_is_less_than_its_number_of_positions():
    roberta = Positions(514, padding_idx=1)
    assert lengths(roberta, 512) == []
    with pytest.raises(ModelError, match="at most 512"):
        lengths(roberta, 513)


def test_max_length_of_the_query_encoder_counts_too():
    with pytest.raises(ModelError, match="query encoder of 'm' has positions for at most 128"):
        check_max_length(SimpleNamespace(model=Positions(128)), 256, "m", "query")


def test_max_length_beyond_training_is_a_warning_where_positions_have_no_end():
    rotary = Positions(trained=8192)
    assert lengths(rotary, 8192) == []
    assert codes(lengths(rotary, 9000)) == ["length-beyond-training"]


def test_max_length_of_real_models():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    sizes |= {"vocab_size": 40, "max_position_embeddings": 34}
    bert = transformers.BertForMaskedLM(transformers.BertConfig(**sizes))
    roberta = transformers.RobertaForMaskedLM(transformers.RobertaConfig(**sizes))
    for language_model, limit in ((bert, 34), (roberta, 32)):
        lengths(language_model, limit)
        with pytest.raises(ModelError, match=f"at most {limit}"):
            lengths(language_model, limit + 1)
        ids = np.full((1, limit), 7)
        import torch

        assert language_model(torch.from_numpy(ids)).logits.shape == (1, limit, 40)
        with pytest.raises((IndexError, RuntimeError)):
            language_model(torch.from_numpy(np.full((1, limit + 1), 7)))


READY = "config.pretrained_no_yamlconfig=true"


@pytest.mark.parametrize(
    ("document", "query"),
    [
        ("naver/efficient-splade-V-large-query", "naver/efficient-splade-V-large-doc"),
        ("experiments/x/model_q", "experiments/x/model"),
        ("my/query_encoder", "my/doc_encoder"),
    ],
)
def test_encoders_swapped_by_their_names(document, query):
    names = [f"init_dict.model_type_or_dir={document}", f"init_dict.model_type_or_dir_q={query}"]
    with pytest.raises(ConfigError, match="look swapped"):
        check_settings(experiment(READY, *names))
    names = [f"init_dict.model_type_or_dir={query}", f"init_dict.model_type_or_dir_q={document}"]
    assert check_settings(experiment(READY, *names)) == []


def test_one_encoder_of_a_pair_on_the_wrong_side():
    query = experiment(READY, "init_dict.model_type_or_dir=naver/efficient-splade-V-large-query")
    assert codes(check_settings(query)) == ["query-encoder-for-documents"]
    names = ["init_dict.model_type_or_dir=naver/splade-v3", "init_dict.model_type_or_dir_q=naver/splade-v3-doc"]
    assert codes(check_settings(experiment(READY, *names))) == ["document-encoder-for-queries"]
    assert check_settings(experiment(READY, "init_dict.model_type_or_dir=naver/splade-v3")) == []


def test_a_model_that_the_checkpoint_would_hide(tmp_path):
    (tmp_path / "config.yaml").write_text("init_dict:\n  model_type_or_dir: distilbert-base-uncased\n")
    given = [f"config.checkpoint_dir={tmp_path}", "init_dict.model_type_or_dir=naver/splade-v3"]
    with pytest.raises(ConfigError, match=r"trained from distilbert-base-uncased.*pretrained_no_yamlconfig=true"):
        check_settings(experiment(*given))
    assert check_settings(experiment(*given, READY)) == []
    same = "init_dict.model_type_or_dir=distilbert-base-uncased"
    assert check_settings(experiment(given[0], same)) == []


def test_a_queries_file_as_the_collection(tmp_path):
    queries, copied, other = tmp_path / "queries.tsv", tmp_path / "copy.tsv", tmp_path / "other.tsv"
    queries.write_text("q1\tone\nq2\ttwo\n")
    copied.write_text("q1\tone\nq2\ttwo\n")
    other.write_text("d1\tone\nd2\ttwo\n")
    for path, code in ((copied, ["collection-is-queries"]), (other, [])):
        given = experiment(f"data.COLLECTION_PATH={path}", f"data.Q_COLLECTION_PATH=[{queries},/no/such/file]")
        assert codes(check_collection(given, open_collection(path))) == code
    given = experiment(f"data.COLLECTION_PATH={queries}", f"data.Q_COLLECTION_PATH=[{queries}]")
    with pytest.raises(DataError, match="that is the queries file"):
        check_collection(given, open_collection(queries))


@pytest.fixture
def build(tmp_path):
    def make(doc_ids, matrix):
        builder = IndexBuilder(tmp_path / "index", vocab_size=len(matrix[0]))
        builder.add(doc_ids, SparseVectors.from_dense(np.array(matrix, dtype=float)))
        builder.finish()
        return InvertedIndex.open(tmp_path / "index")

    return make


def test_vectors_of_an_index(build):
    sound = np.eye(20)
    assert check_index(build([f"d{i}" for i in range(20)], sound)) == []


def test_empty_and_full_vectors_of_an_index(build):
    matrix = np.ones((20, 20))
    matrix[0] = 0
    found = check_index(build([f"d{i}" for i in range(20)], matrix))
    assert codes(found) == ["many-document-vectors-empty", "document-vectors-not-sparse"]
    assert "1 of 20" in found[0].message and "19 terms on average, of 20" in found[1].message


def test_an_index_of_empty_vectors(build):
    with pytest.raises(DataError, match="all 3 document vectors are empty"):
        check_index(build(["a", "b", "c"], np.zeros((3, 5))))


class Stored(Retriever):
    """As much of a retriever as tells which documents it has."""

    def __init__(self, postings):
        self.postings = postings

    def retrieve(self, queries, top_k):
        return iter(())

    def known_doc_ids(self, wanted):
        return [*self.postings.doc_ids(range(1)), *self.postings.known_doc_ids(wanted)]


def test_qrels_queries_and_index_belong_together(build):
    retriever = Stored(build(["d1", "d2", "d3"], np.eye(3)))

    def check(qrels, query_ids):
        return check_qrels(Dataset("set", dict.fromkeys(query_ids, "text"), qrels), retriever)

    assert check({"q1": {"d1": 1, "x": 0}}, ["q1", "q2"]) == [] == check(None, ["q1"])
    found = check({"q1": {"d1": 1, "x": 1}, "q9": {"d2": 1}}, ["q1"])
    assert codes(found) == ["judged-query-missing", "relevant-document-missing"]
    with pytest.raises(DataError, match="not one relevant document id of the qrels occurs in the collection"):
        check({"q1": {"x1": 1}}, ["q1"])
    with pytest.raises(DataError, match="not one judged query id"):
        check({"x": {"d1": 1}}, ["q1"])
    with pytest.raises(DataError, match="differ by whitespace.*' d3'"):
        check({"q1": {" d3": 1}}, ["q1"])


def test_queries_that_retrieve_nothing():
    run = {"q1": {"d1": 1.0}, "q2": {}}
    found = check_results(run, {"q1": {"d1": 1}, "q2": {"d1": 1}, "q3": {"d1": 1}})
    assert codes(found) == ["queries-without-result"] and "1 of 3 judged queries retrieve nothing" in found[0].message


def test_warnings_end_a_summary_and_cannot_be_overlooked():
    findings = named("TOY", [Finding("warning", "odd", "something is odd " * 20), Finding("warning", "b", "short")])
    lines = warning_block(findings)
    assert lines[:2] == ["", "WARNING: 2 things to look at before using this:"]
    assert lines[2].startswith("  - TOY: something") and lines[-1] == "  - TOY: short" and max(map(len, lines)) <= 110
    assert warning_block([]) == [] and json.dumps(warning_messages(findings))


@pytest.mark.parametrize(
    ("n_empty", "code"), [(1000, "all-document-vectors-empty"), (1001, "all-document-vectors-empty")]
)
def test_counts_are_compared_by_value(n_empty, code):
    n_vectors = int("1000")  # no constant of the interpreter's
    assert [finding.code for finding in check_vector_counts(n_vectors, n_empty, 0.0, 30522, "document")] == [code]


def test_a_blank_before_an_id_is_named_on_either_side():
    for of_qrels, of_collection in ((" d1", "d1"), ("d1", " d1"), ("d1 ", "d1")):
        (finding,) = check_qrels_against_collection({"q": {of_qrels: 1}}, [of_collection])
        assert finding.level == "error" and "whitespace" in finding.code
        assert repr(of_qrels) in finding.message and repr(of_collection) in finding.message
