"""The package as a program uses it: load a model, build and change an index, search it."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import splade
from splade.config import compose_experiment
from splade.errors import ConfigError, DataError, IndexFileError, ModelError
from splade.retrieval.protocol import Retriever
from splade.tasks.beir_eval import beir_eval
from splade.tasks.update import update

ROOT = Path(__file__).resolve().parents[2]
TOY = "pkg://splade/data/toy"
PAIRS = [("d1", "A cat sat on the mat."), ("d2", "Dogs bark at night."), ("d3", "Bees make honey from nectar.")]


@pytest.fixture(scope="module")
def model():
    return splade.load("pkg://cognition/model", max_length=64)


@pytest.fixture
def index(model, tmp_path):
    return splade.Index.build(tmp_path / "index", model, PAIRS)


def test_importing_is_light():
    code = "import splade, sys; print(sorted({'torch', 'transformers', 'numba', 'hydra'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_of_the_front_door():
    assert set(splade.__all__) <= set(dir(splade))
    assert all(getattr(splade, name) is not None for name in splade.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Indx'"):
        _ = splade.Indx
    assert (Path(splade.__file__).parent / "py.typed").is_file()


def test_one_text_several_a_generator_and_none(model):
    texts = [text for _, text in PAIRS]
    several = model.encode_documents(texts)
    assert len(several) == 3 and several.vocab_size == 30522
    np.testing.assert_array_equal(
        model.encode_documents(text for text in texts).to_dense(), model.encode_documents(texts).to_dense()
    )
    np.testing.assert_allclose(model.encode_documents(texts[1]).to_dense()[0], several.to_dense()[1], atol=1e-5)
    assert len(model.encode_queries([])) == 0
    with pytest.raises(DataError, match="must be a string"):
        model.encode_queries(["fine", 3])


def test_bag_of_words_is_the_vector_in_words(model):
    bag = model.bag_of_words("Bees make honey.")
    terms, weights = model.encode_documents("Bees make honey.").row(0)
    assert {token for token, _ in bag} == {model.tokens[term] for term in terms}
    assert [weight for _, weight in bag] == sorted(weights.tolist(), reverse=True)
    assert model.bag_of_words("Bees make honey.", top=2) == bag[:2]
    assert model.bag_of_words("Bees make honey.", side="query") == bag  # one encoder for both sides


def test_hits_explain_themselves(model, index):
    hits = splade.Retriever(model, index).search("a cat, a dog, bees and honey", top_k=2)
    assert [hit.rank for hit in hits] == [1, 2] and hits[0].doc_id == "d3"
    for hit in hits:
        explanation = hit.explain()
        assert explanation.score == pytest.approx(hit.score, rel=1e-5)
        assert sum(part.score for part in explanation.contributions) == pytest.approx(hit.score, rel=1e-5)


def test_hits_are_a_sequence(model, index):
    hits = splade.Retriever(model, index).search("a cat, a dog, bees and honey", top_k=3)
    listed = list(hits)
    assert [hits[i] for i in range(3)] == listed == hits and hits[-1] == listed[2] and hits[1:] == listed[1:]
    assert hits[::-1] == listed[::-1] and repr(hits) == repr(listed) and len(hits) == 3 and hits != listed[:2]
    assert hits.doc_ids == [hit.doc_id for hit in listed] and hits.scores.tolist() == [hit.score for hit in listed]
    for place in (3, -4):
        with pytest.raises(IndexError):
            hits[place]


def test_several_queries_none_and_wrong_ones(model, index):
    retriever = splade.Retriever(model, index)
    queries = ["what do bees make", "a noisy dog"]
    together = retriever.search_many(iter(queries), top_k=1)
    assert [[hit.doc_id for hit in hits] for hits in together] == [["d3"], ["d2"]]
    assert retriever.search_many([]) == [] and dict(retriever.retrieve({}, top_k=3)) == {}
    with pytest.raises(DataError, match="search_many"):
        retriever.search(queries)
    with pytest.raises(DataError, match="top_k"):
        retriever.search("bees", top_k=0)


def test_queries_that_all_processes_have_encoded_are_not_encoded_again(model, index, monkeypatch):
    retriever, queries = splade.Retriever(model, index), {"a": "bees", "b": "tea or coffee"}
    alone = dict(retriever.retrieve(queries, top_k=3))
    monkeypatch.setattr("splade.retrieval.sparse.n_processes", lambda: 2)
    retriever.share(queries, top_k=3)
    monkeypatch.setattr(model.queries, "encode_stream", lambda texts: pytest.fail("encoded again"))
    assert dict(retriever.retrieve(queries, top_k=3)) == alone and retriever.costs().encoding_ms_per_query > 0


def test_threads_get_the_same_answers(model, tmp_path):
    corpus = f"{TOY}/collection"
    retriever = splade.Retriever(model, splade.Index.build(tmp_path, model, corpus))
    queries = [line.split("\t")[1] for line in (ROOT / "data/toy/queries/train/raw.tsv").read_text().splitlines()]
    expected = {query: retriever.search(query, top_k=5) for query in queries}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda query: (query, retriever.search(query, top_k=5)), queries * 3))
        vectors = list(pool.map(model.encode_documents, [queries] * 4))
    assert all(hits == expected[query] for query, hits in found)
    assert all(np.array_equal(one.to_dense(), vectors[0].to_dense()) for one in vectors)


def test_an_index_is_built_once(model, tmp_path):
    index = splade.Index.build(tmp_path, model, PAIRS)
    written = index.postings.path.stat().st_mtime_ns
    assert splade.Index.build(tmp_path, model, PAIRS).postings.path.stat().st_mtime_ns == written
    with pytest.raises(IndexFileError, match="overwrite"):
        splade.Index.build(tmp_path, model, PAIRS[:2])
    assert len(splade.Index.build(tmp_path, model, PAIRS[:2], overwrite=True)) == 2


def test_an_iterator_of_pairs_is_read_once_and_never_taken_for_another(model, tmp_path):
    index = splade.Index.build(tmp_path, model, (pair for pair in PAIRS))
    assert index.postings.doc_ids() == ["d1", "d2", "d3"]
    with pytest.raises(IndexFileError, match="overwrite"):
        splade.Index.build(tmp_path, model, (pair for pair in PAIRS))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("d1", "one"), ("d1", "two")], "occurs twice"),
        ([("d1", None)], r"expected a pair \(id, text\)"),
        ([("d1", "one", "more")], r"expected a pair \(id, text\)"),
        ([(" d1", "one")], "whitespace"),
        ([], "empty"),
    ],
)
def test_wrong_pairs(model, tmp_path, pairs, message):
    with pytest.raises(DataError, match=message):
        splade.Index.build(tmp_path / "index", model, pairs)
    if pairs:
        with pytest.raises(DataError, match=message):
            splade.Index.build(tmp_path / "streamed", model, iter(pairs))
    assert not list(tmp_path.rglob("index.h5"))


def test_add_and_delete_give_what_a_new_build_gives(model, index, tmp_path):
    index.add([("d4", "Rain falls on the hills.")])
    index.delete("d2")
    fresh = splade.Index.build(tmp_path / "fresh", model, [PAIRS[0], PAIRS[2], ("d4", "Rain falls on the hills.")])
    assert index.postings.doc_ids() == fresh.postings.doc_ids() == ["d1", "d3", "d4"]
    query = model.encode_queries("rain on a cat")
    assert index.postings.search(query, 3).doc_idx.tolist() == fresh.postings.search(query, 3).doc_idx.tolist()
    with pytest.raises(DataError, match="d9"):
        index.delete(["d9"])
    with pytest.raises(DataError, match="d1"):
        index.add([("d1", "again")])
    with pytest.raises(ConfigError, match="without a model"):
        splade.Index.open(index.folder).add([("d5", "more")])


def test_a_changed_index_is_no_longer_that_of_its_collection(model, index):
    index.delete(["d1"])
    with pytest.raises(IndexFileError, match="changed since"):
        splade.Index.build(index.folder, model, PAIRS)


def test_an_index_of_another_model(index, tiny_model):
    other = splade.load(tiny_model(), max_length=64)
    with pytest.raises(IndexFileError, match="the model"):
        splade.Index.open(index.folder, other)
    with pytest.raises(IndexFileError, match="the model"):
        splade.Retriever(other, splade.Index.open(index.folder))


def test_models_that_cannot_be_loaded(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        splade.load(tmp_path / "nothing")
    with pytest.raises(ModelError, match="positions for at most"):
        splade.load("pkg://cognition/model", max_length=4096)


@pytest.fixture
def made(model, tmp_path):
    """Overrides of an index of the toy collection."""
    splade.Index.build(tmp_path / "index", splade.load("pkg://cognition/model"), f"{TOY}/collection")
    return [f"config.index_dir={tmp_path / 'index'}", "config.pretrained_no_yamlconfig=true"]


def run(task, *overrides):
    return task(compose_experiment("config_default", [*overrides, "init_dict.model_type_or_dir=pkg://cognition/model"]))


def test_update_as_a_command(made, tmp_path):
    (tmp_path / "new.tsv").write_text("n1\tBees are insects.\nn2\tHoney is sweet.\n")
    (tmp_path / "old.txt").write_text("\n".join(splade.Index.open(tmp_path / "index").postings.doc_ids([0, 1])) + "\n")
    done = run(update, *made, f"add={tmp_path / 'new.tsv'}", f"delete=[{tmp_path / 'old.txt'}]")
    assert "2 documents deleted, 2 added; the index holds 240" in done.summary()
    assert json.loads((tmp_path / "index" / "index_stats.json").read_text())["L0_d"] > 0
    assert "the index holds 238" in run(update, *made, "delete=[n1,n2]").summary()
    with pytest.raises(ConfigError, match="nothing to do"):
        run(update, *made)
    with pytest.raises(DataError, match="not in the index"):
        run(update, *made, "delete=[nobody]")


class Alphabetical(Retriever):
    """A retriever as somebody else would write it."""

    name = "alphabetical"

    def __init__(self, corpus):
        self.doc_ids = sorted(doc_id for doc_id, _ in corpus)

    def retrieve(self, queries, top_k):
        for query_id in queries:
            yield query_id, {doc_id: 1 / rank for rank, doc_id in enumerate(self.doc_ids[:top_k], 1)}


def test_a_retriever_of_ones_own_is_evaluated_with_one_override(tmp_path, monkeypatch):
    folder = tmp_path / "beir" / "mine"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("".join(f'{{"_id": "{d}", "text": "{t}"}}\n' for d, t in PAIRS))
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "cat"}\n{"_id": "q2", "text": "dog"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\n")
    shutil.copy(__file__, tmp_path / "their_module.py")
    monkeypatch.syspath_prepend(tmp_path)
    data = ["beir.dataset=mine", f"beir.dataset_path={tmp_path / 'beir'}", f"config.out_dir={tmp_path / 'out'}"]
    result = run(beir_eval, *data, f"config.index_dir={tmp_path / 'i'}", "retriever=their_module:Alphabetical")
    assert result.results[0].metrics["NDCG@10"] == pytest.approx((1 + 1 / np.log2(3)) / 2, abs=1e-4)
    assert "alphabetical: nDCG@10" in result.summary()
    assert (tmp_path / "out/Alphabetical/beir/mine/run.json").is_file()
    for wrong, message in (
        ("no.such:Thing", "cannot be imported"),
        ("json:JSONDecoder", "no class derived"),
        ("x", ""),
    ):
        with pytest.raises(ConfigError, match=message or "allowed are sparse"):
            run(beir_eval, *data, f"config.index_dir={tmp_path / 'i'}", f"retriever={wrong}")
