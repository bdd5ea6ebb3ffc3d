"""Vectors of systems whose terms no model here has, DeepImpact's words for instance: indexed, searched."""

import gzip
import json

import numpy as np
import pytest

from splade.config.command import compose_experiment
from splade.errors import ConfigError, DataError, IndexFileError, SpladeError
from splade.interop.query_files import open_vector_queries
from splade.inverted_index import open_index
from splade.inverted_index.own_terms import read_terms
from splade.tasks.export import export
from splade.tasks.flops import flops
from splade.tasks.index import index
from splade.tasks.index_info import index_info
from splade.tasks.prune import prune
from splade.tasks.retrieve import retrieve
from splade.tasks.search import search
from splade.tasks.update import update

DOCUMENTS = {
    "d1": {"honey": 120, "bees": 97, "a b": 3},
    "d2": {"rain": 88, "hügel": 41},
    "d3": {"bees": 12, "rain": 7, "zebra": 30},
    "d4": {},
}
TERMS = ["a b", "bees", "honey", "hügel", "rain", "zebra"]
TSV = "q1\thoney bees bees unknown\nq2\train\n"


def lines(vectors, **more):
    return "".join(json.dumps({"id": key, **more, "vector": bag}) + "\n" for key, bag in vectors.items())


@pytest.fixture
def given(tmp_path):
    """Return a task's result for keys; documents lie in two files, one of them compressed."""
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.jsonl").write_text(lines(dict(list(DOCUMENTS.items())[:2]), contents="some text"))
    (tmp_path / "v" / "b.jsonl.gz").write_bytes(gzip.compress(lines(dict(list(DOCUMENTS.items())[2:])).encode()))
    (tmp_path / "q.tsv").write_text(TSV)
    (tmp_path / "qrels.json").write_text('{"q1": {"d1": 1}, "q2": {"d2": 1}}')

    def run(task, *keys):
        folders = (f"config.index_dir={tmp_path}/index", f"config.out_dir={tmp_path}/out")
        return task(compose_experiment("own_data", [*folders, *keys]))

    return run


@pytest.fixture
def made(given, tmp_path):
    result = given(index, f"data.VECTORS_PATH={tmp_path}/v", "data.VOCABULARY=own")
    assert [finding.code for finding in result.findings] == ["many-document-vectors-empty"]
    return tmp_path


def queries(folder):
    return (f"data.Q_COLLECTION_PATH={folder}/q.tsv", f"data.EVAL_QREL_PATH={folder}/qrels.json")


def scores(weights):
    return {doc_id: sum(bag.get(term, 0) * weights.get(term, 0) for term in bag) for doc_id, bag in DOCUMENTS.items()}


def test_terms_are_those_of_the_files_and_are_kept_with_the_index(made, given):
    postings = open_index(made / "index")
    assert read_terms(postings) == TERMS and postings.doc_ids() == list(DOCUMENTS)
    assert [TERMS[term] for term in postings.vector(0)[0]] == ["a b", "bees", "honey"]
    assert "6 terms of the vectors' own" in given(index_info).text
    before = (made / "index" / "index.h5").read_bytes()
    given(index, f"data.VECTORS_PATH={made}/v", "data.VOCABULARY=own")  # finished: nothing to do
    assert (made / "index" / "index.h5").read_bytes() == before

    (terms,) = (made / "index").glob("terms-*.json")
    terms.write_text(terms.read_text().replace("zebra", "lion"))
    with pytest.raises(IndexFileError, match="not the terms of index.h5, or damaged"):
        given(index_info)
    terms.unlink()
    with pytest.raises(IndexFileError, match="terms cannot be read"):
        given(retrieve, *queries(made))


def test_another_index_takes_its_place_with_its_own_terms(made, given, tmp_path):
    (tmp_path / "w.jsonl").write_text(lines({"x": {"other": 1, "words": 2}}))
    keys = (f"data.VECTORS_PATH={tmp_path}/w.jsonl", "data.VOCABULARY=own")
    with pytest.raises(IndexFileError, match="holds a finished index"):
        given(index, *keys)
    assert read_terms(open_index(made / "index")) == TERMS
    given(index, *keys, "config.overwrite=true")
    assert read_terms(open_index(made / "index")) == ["other", "words"]
    assert len(list((made / "index").glob("terms-*"))) == 1


@pytest.mark.parametrize("form", ["tsv", "jsonl"])
def test_queries_are_vectors(made, given, form):
    if form == "jsonl":
        (made / "q.jsonl").write_text(lines({"q1": {"honey": 0.5, "bees": 2, "unknown": 9}, "q2": {"rain": 1.0}}))
    place, by_qrels = queries(made)
    result = given(retrieve, place.replace("tsv", form), by_qrels, "config.eval_metric=[[nDCG@10]]", "config.top_k=10")
    run = json.loads((made / "out" / "q" / "run.json").read_text())
    honey = 0.5 if form == "jsonl" else 1
    for query_id, weights in (("q1", {"honey": honey, "bees": 2}), ("q2", {"rain": 1})):
        wanted = {doc_id: score for doc_id, score in scores(weights).items() if score > 0}
        assert run[query_id] == wanted and list(run[query_id])[0] == {"q1": "d1", "q2": "d2"}[query_id]
    assert result.runs[0].metrics["nDCG@10"] == 1 and result.runs[0].costs.L0_q == 1.5


def test_an_update_takes_vectors_over_the_same_terms(made, given):
    (made / "new.jsonl").write_text(lines({"d5": {"zebra": 5}}))
    given(update, "delete=[d2]", f"add={made}/new.jsonl")
    postings = open_index(made / "index")
    assert postings.doc_ids() == ["d1", "d3", "d4", "d5"] and read_terms(postings) == TERMS
    (made / "new.jsonl").write_text(lines({"d6": {"lion": 5}}))
    with pytest.raises(DataError, match="'lion' is not in the vocabulary of 6 terms"):
        given(update, f"add={made}/new.jsonl")
    assert open_index(made / "index").n_docs == 4


def test_a_pruned_copy_and_an_export_have_the_terms(made, given):
    given(prune, "size_to_prune=1", *queries(made))
    pruned = open_index(made / "out" / "index")
    assert read_terms(pruned) == TERMS and pruned.n_postings == 3
    given(export, "target=anserini", "quantization_factor_document=1", "quantization_factor_query=1", queries(made)[0])
    out = made / "out" / "anserini"
    documents = [json.loads(line)["vector"] for line in (out / "anserini_collection" / "docs_anserini.jsonl").open()]
    assert documents[0] == {"[term-0]": 3, "bees": 97, "honey": 120} and documents[3] == {"[empty]": 1}
    assert (out / "q.tsv").read_text() == "q1\tbees bees honey\nq2\train\n"
    # What was exported is indexed again with its own terms, and answers the same.
    again = (f"config.index_dir={made}/again", f"data.VECTORS_PATH={out}/anserini_collection", "data.VOCABULARY=own")
    given(index, *again)
    assert open_index(made / "again").n_postings == open_index(made / "index").n_postings


def test_ciff_has_terms_of_its_own(made, given):
    pytest.importorskip("ciff_toolkit", reason="pip install --no-deps ciff-toolkit")
    given(export, "target=ciff", "quantization_factor_document=1")
    given(
        *(index, f"config.index_dir={made}/c", f"data.VECTORS_PATH={made}/out/ciff/documents.ciff"),
        "data.VOCABULARY=own",
    )
    postings = open_index(made / "c")
    assert read_terms(postings) == sorted(["[term-0]", *TERMS[1:]]) and postings.doc_ids() == list(DOCUMENTS)
    np.testing.assert_array_equal(np.sort(postings.vector(0)[1]), [3, 97, 120])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\tLöwe tiger\n", "none of the 2 terms of the queries, such as 'Löwe', is in the index's vocabulary of 6"),
        ("q1\train\nq1\train\n", "'q1' occurs twice"),
        ("q1 rain\n", "no tab"),
        ("", "empty"),
    ],
)
def test_queries_that_cannot_be(tmp_path, text, message):
    (tmp_path / "q.tsv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_vector_queries(tmp_path / "q.tsv", TERMS)


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "a"}',
        '{"id": "a", "vector": {"rain": -1}}',
        '{"id": "a", "vector": [1]}',
        '{"id": "a", "vector": {"rain": null}}',
    ],
)
def test_query_lines_that_cannot_be(tmp_path, line):
    (tmp_path / "q.jsonl").write_text(line)
    with pytest.raises(DataError, match="q.jsonl"):
        open_vector_queries(tmp_path / "q.jsonl", TERMS)


def test_what_needs_a_model_or_the_terms_says_so(made, given, tmp_path):
    for task, keys in ((search, ["query=rain"]), (flops, [f"data.flops_queries={made}/q.tsv"])):
        with pytest.raises(SpladeError, match="6 terms of their own, for which there is no model"):
            given(task, *keys)
    with pytest.raises(ConfigError, match="there is no model; leave 'a/model' out"):
        given(retrieve, *queries(made), "init_dict.model_type_or_dir=a/model")
    with pytest.raises(ConfigError, match="texts; give data.VECTORS_PATH"):
        given(index, f"data.COLLECTION_PATH={made}/q.tsv", "data.VOCABULARY=own")
    np.savez(tmp_path / "v.npz", data=np.ones(1))
    with pytest.raises(DataError, match="numbers of terms, not the terms"):
        given(index, f"data.VECTORS_PATH={tmp_path}/v.npz", "data.VOCABULARY=own")
    (tmp_path / "twice.jsonl").write_text(lines({"a": {"x": 1}}) * 2)
    with pytest.raises(DataError, match="twice"):
        given(
            index, f"data.VECTORS_PATH={tmp_path}/twice.jsonl", "data.VOCABULARY=own", f"config.index_dir={tmp_path}/t"
        )
    (tmp_path / "empty.jsonl").write_text(lines({"a": {}}))
    with pytest.raises(DataError, match="no term"):
        given(
            index, f"data.VECTORS_PATH={tmp_path}/empty.jsonl", "data.VOCABULARY=own", f"config.index_dir={tmp_path}/e"
        )
