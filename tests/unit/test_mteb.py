"""MTEB measures our models as `splade.evaluate` does."""

from types import SimpleNamespace

import pytest

import splade
from splade.datasets.dataset import Dataset
from splade.errors import DataError
from splade.evaluation.metrics import evaluate_run

mteb = pytest.importorskip("mteb", reason="mteb is not installed")
from splade.interop.mteb_search import MtebSearch  # noqa: E402

TOY = "pkg://splade/data/toy"
SPLIT = {"hf_split": "test", "hf_subset": "default", "task_metadata": SimpleNamespace(name="Toy")}


@pytest.fixture(scope="module")
def model(tiny_model):
    return splade.load(str(tiny_model()), max_length=16)


@pytest.fixture(scope="module")
def toy():
    return Dataset.open("toy", f"{TOY}/queries/heldout", f"{TOY}/qrels/heldout.json", f"{TOY}/collection")


def toy_task(toy):
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    unknown = ["reference", "date", "domains", "task_subtypes", "license", "annotations_creators", "dialect"]

    class ToyRetrieval(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="ToyRetrieval",
            description="the toy collection",
            dataset={"path": "toy/toy", "revision": "1"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            **dict.fromkeys([*unknown, "sample_creation", "bibtex_citation"]),
        )

        def load_data(self, **kwargs):
            self.corpus = {"test": {doc_id: {"title": "", "text": text} for doc_id, text in toy.documents}}
            self.queries = {"test": dict(toy.queries)}
            self.relevant_docs = {"test": {query_id: dict(judged) for query_id, judged in toy.qrels.items()}}
            self.data_loaded = True

    return ToyRetrieval()


def test_mteb_gives_our_figures(model, toy, tmp_path):
    result = mteb.evaluate(MtebSearch(model), [toy_task(toy)], cache=None, show_progress_bar=False)
    (scores,) = result.task_results[0].scores["test"]
    index = splade.Index.build(tmp_path / "index", model, toy.documents)
    run = dict(splade.Retriever(model, index).retrieve(toy.queries, top_k=1000))
    ours = evaluate_run(run, toy.qrels, ["nDCG@10", "R@100"]).means
    assert [scores["ndcg_at_10"], scores["recall_at_100"]] == pytest.approx(list(ours.values()), abs=1e-5)


def test_given_documents_are_ranked_as_search_ranks_them(model, tmp_path):
    corpus = [
        {"id": "a", "title": "Bees", "text": "make honey"},
        {"id": "b", "text": "rain"},
        {"id": "c", "text": "sun"},
    ]
    queries = [{"id": "q", "text": "honey", "instruction": "find bees"}]
    search = MtebSearch(model, tmp_path)
    with pytest.raises(DataError, match="nothing is indexed"):
        search.search(queries, top_k=2)
    search.index(corpus, **SPLIT)
    assert (tmp_path / "Toy" / "default-test" / "index.h5").is_file()
    found = search.search(queries, top_k=3)["q"]
    of_texts = model.encode_documents(["Bees make honey", "rain", "sun"]).to_scipy()
    scores = (of_texts @ model.encode_queries("honey find bees").to_scipy().T).toarray().ravel().tolist()
    assert found == pytest.approx({doc: score for doc, score in zip("abc", scores, strict=True) if score}, rel=1e-5)
    again = search.search(queries, top_k=2, top_ranked={"q": ["c", "a", "b"]})["q"]
    assert again == pytest.approx(dict(list(found.items())[:2]), rel=1e-5) and list(again) == list(found)[:2]
    with pytest.raises(DataError, match="'z' to be re-ranked is not in the corpus"):
        search.search(queries, top_k=2, top_ranked={"q": ["z"]})
    with pytest.raises(DataError, match="document 'i' has no text"):
        search.index([{"id": "i", "image": b""}], **SPLIT)


def test_it_is_a_sparse_model_for_mteb(model):
    meta = MtebSearch(model).mteb_model_meta
    assert meta.model_type == ["sparse"] and meta.embed_dim == model.vocab_size
    assert meta.revision == model.fingerprint.document_encoder and meta.name.startswith("splade/")
