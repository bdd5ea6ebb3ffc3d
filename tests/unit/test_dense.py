"""Dense retrieval: vectors as sentence-transformers makes them, exact search, an index that survives a kill."""

import json
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModel

from splade.config import compose_experiment
from splade.datasets.text_collection import PairCollection
from splade.encoding.dense_model import DenseModel
from splade.errors import ConfigError, IndexFileError, ModelError
from splade.models.dense_encoder import load_dense
from splade.retrieval import dense_index
from splade.retrieval.dense import DenseRetriever, search_dense
from splade.retrieval.dense_index import INDEX_FILE, DenseIndex
from splade.storage.atomic import read_json

TEXTS = ["Bees make honey.", "A fox.", "The heart pumps blood through the body of every animal " * 20, ""]
PAIRS = [(f"d{i}", f"{text} number {i}") for i, text in enumerate(TEXTS * 4)]


@pytest.fixture(scope="module")
def folder(tiny_model):
    return tiny_model()


def with_modules(folder, target, pooling, normalise, prompts=None, similarity="dot"):
    """Write the files of sentence-transformers beside the model, as that library does."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    transformer = Transformer(str(folder), max_seq_length=32)
    size = AutoModel.from_pretrained(str(folder)).config.hidden_size
    modules = [transformer, Pooling(size, pooling_mode=pooling), *([Normalize()] if normalise else [])]
    model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts, similarity_fn_name=similarity)
    model.save(str(target))
    return model


@pytest.mark.parametrize("pooling, normalise", [("cls", False), ("mean", True)])
def test_vectors_are_those_of_sentence_transformers(folder, tmp_path, pooling, normalise):
    theirs = with_modules(folder, tmp_path / "st", pooling, normalise, {"query": "query: ", "document": "passage: "})
    ours = DenseModel.load(tmp_path / "st")
    assert ours.max_length == 32 and ours.encoder.pooling == pooling and ours.encoder.normalise == normalise
    for encode, other in ((ours.encode_queries, "query"), (ours.encode_documents, "document")):
        expected = theirs.encode(TEXTS, prompt_name=other, convert_to_numpy=True)
        np.testing.assert_allclose(encode(TEXTS), expected, atol=1e-5)


def test_cosines_are_dot_products_of_normalised_vectors(folder, tmp_path):
    with_modules(folder, tmp_path / "st", "cls", normalise=False, similarity="cosine")
    assert DenseModel.load(tmp_path / "st").encoder.normalise


def test_what_is_not_followed_is_refused(folder, tmp_path):
    with_modules(folder, tmp_path / "st", "cls", False)
    modules = json.loads((tmp_path / "st" / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (tmp_path / "st" / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="its module Dense"):
        load_dense(str(tmp_path / "st"))
    with_modules(folder, tmp_path / "max", "max", False)
    with pytest.raises(ModelError, match="pooling .*max.*; allowed are cls, mean"):
        load_dense(str(tmp_path / "max"))
    with pytest.raises(ModelError, match="no such folder"):
        load_dense(str(tmp_path / "nothing"))


def test_a_folder_without_modules_is_pooled_as_asked(folder):
    assert load_dense(str(folder)).settings.pooling == "cls"
    mean = DenseModel.load(folder, pooling="mean", normalise=True)
    assert np.linalg.norm(mean.encode_documents(TEXTS[:3]), axis=1) == pytest.approx(1)


def test_search_is_exact_whatever_the_block():
    random = np.random.default_rng(0)
    documents = random.integers(-2, 3, (300, 4)).astype(np.float32)  # many equal scores
    queries = random.integers(-2, 3, (7, 4)).astype(np.float32)
    expected = np.argsort(-(queries @ documents.T), axis=1, kind="stable")
    for block in (1, 7, 64, 300, 1000):
        for top_k in (1, 10, 300):
            rows, scores = search_dense(queries, documents, top_k, block=block)
            assert (rows == expected[:, :top_k]).all()
            assert (scores == np.take_along_axis(queries @ documents.T, rows, 1)).all()


def test_faiss_finds_the_same():
    faiss = pytest.importorskip("faiss")
    random = np.random.default_rng(0)
    documents, queries = random.random((300, 8), np.float32), random.random((5, 8), np.float32)
    rows, scores = search_dense(queries, documents, 20, block=128, faiss=faiss)
    expected, values = search_dense(queries, documents, 20)
    assert (rows == expected).all()
    np.testing.assert_allclose(scores, values, rtol=1e-5)


def test_without_faiss(folder, tmp_path, monkeypatch):
    model = DenseModel.load(folder)
    index = DenseIndex.build(tmp_path, model, PairCollection(PAIRS))
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match="pip install faiss-cpu"):
        DenseRetriever(model, index, engine="faiss")


def test_index_and_retriever(folder, tmp_path):
    model, corpus = DenseModel.load(folder), PairCollection(PAIRS)
    index = DenseIndex.build(tmp_path, model, corpus)
    assert len(index) == len(PAIRS) and list(index.doc_ids) == [doc_id for doc_id, _ in PAIRS]
    retriever = DenseRetriever(model, index, n_threads=1)
    queries = {"q1": "honey", "q2": "blood"}
    found = dict(retriever.retrieve(queries, 5))
    scores = model.encode_queries(queries.values()) @ model.encode_documents(text for _, text in PAIRS).T
    for row, query_id in enumerate(queries):
        order = np.argsort(-scores[row], kind="stable")[:5]
        assert list(found[query_id]) == [PAIRS[i][0] for i in order]
        assert list(found[query_id].values()) == pytest.approx(scores[row][order].tolist(), rel=1e-4)
    costs = retriever.costs()
    assert costs.n_docs == len(PAIRS) and costs.n_queries == 2 and costs.index_bytes == len(PAIRS) * 16 * 4
    assert dict(retriever.retrieve({}, 5)) == {}
    assert "d3" in retriever.known_doc_ids(["d3", "elsewhere"])


def test_an_index_is_used_again_only_for_the_same_job(folder, tmp_path, tiny_model):
    model, corpus = DenseModel.load(folder), PairCollection(PAIRS)
    first = DenseIndex.build(tmp_path, model, corpus).path.stat().st_mtime_ns
    assert DenseIndex.build(tmp_path, model, corpus).path.stat().st_mtime_ns == first
    for other, texts in (
        (DenseModel.load(tiny_model(seed=1)), corpus),
        (DenseModel.load(folder, "mean"), corpus),
        (DenseModel.load(folder, max_length=8), corpus),
        (model, PairCollection(PAIRS[1:])),
    ):
        with pytest.raises(IndexFileError, match="another one"):
            DenseIndex.build(tmp_path, other, texts)
    assert len(DenseIndex.build(tmp_path, model, PairCollection(PAIRS[1:]), overwrite=True)) == len(PAIRS) - 1
    with pytest.raises(IndexFileError, match="not the same as"):
        DenseIndex.open(tmp_path, DenseModel.load(folder, "mean"))


def test_a_killed_build_goes_on_with_the_same_bytes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(dense_index, "WINDOW", 4)
    monkeypatch.setattr("splade.encoding.batching.WINDOW", 4)
    model, corpus = DenseModel.load(folder), PairCollection(PAIRS)
    model.stream = lambda texts, side: windows(DenseModel.stream, model, texts, side)
    DenseIndex.build(tmp_path / "whole", model, corpus)
    encoded = []

    def killed(texts, side):
        for i, vectors in enumerate(windows(DenseModel.stream, model, texts, side)):
            if i == 2:
                raise KeyboardInterrupt
            yield vectors

    monkeypatch.setattr(model, "stream", killed)
    with pytest.raises(KeyboardInterrupt):
        DenseIndex.build(tmp_path / "killed", model, corpus)
    with open(tmp_path / "killed" / "dense_vectors.part", "ab") as stream:
        stream.write(b"half a row")

    def counted(texts, side):
        for vectors in windows(DenseModel.stream, model, texts, side):
            encoded.append(len(vectors))
            yield vectors

    monkeypatch.setattr(model, "stream", counted)
    DenseIndex.build(tmp_path / "killed", model, corpus)
    assert sum(encoded) == len(PAIRS) - 8
    assert (tmp_path / "killed" / INDEX_FILE).read_bytes() == (tmp_path / "whole" / INDEX_FILE).read_bytes()


def windows(stream, model, texts, side):
    """Encode four texts at a time, so that a small collection has several windows."""
    texts = list(texts)
    for start in range(0, len(texts), 4):
        yield from stream(model, texts[start : start + 4], side)


def test_training_and_inference_agree(folder):
    encoder = load_dense(str(folder), "mean", True).encoder
    ids, mask = torch.tensor([[2, 5, 9, 3], [2, 7, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    np.testing.assert_array_equal(encoder(ids, mask).detach().numpy(), encoder.encode(ids, mask))


@pytest.fixture(scope="module")
def beir_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beir") / "small"
    (folder / "qrels").mkdir(parents=True)
    words = ["honey", "foxes", "blood", "rivers", "stars", "clocks", "bread", "glass"]
    documents = [{"_id": f"d{i}", "title": "", "text": f"all about {word} and more"} for i, word in enumerate(words)]
    queries = [{"_id": f"q{i}", "text": f"what is {word}"} for i, word in enumerate(words)]
    for name, records in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for split, rows in (("train", range(4)), ("test", range(4, 8))):
        lines = "".join(f"q{i}\td{i}\t1\n" for i in rows)
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    return folder


def evaluate(beir_folder, tmp_path, folder, *overrides):
    from splade.tasks.beir_eval import beir_eval

    settings = [
        *("config.pretrained_no_yamlconfig=true", f"init_dict.model_type_or_dir={folder}", "config.max_length=32"),
        *(f"dense.model_type_or_dir={folder}", f"config.index_dir={tmp_path}/index", f"config.out_dir={tmp_path}/out"),
        *("+beir.dataset=small", f"+beir.dataset_path={beir_folder.parent}", "config.top_k=100", "config.n_threads=1"),
    ]
    return beir_eval(compose_experiment("config_default", [*settings, *overrides]))


def test_every_retriever_in_one_table(beir_folder, tmp_path, folder):
    parts = [evaluate(beir_folder, tmp_path, folder, f"retriever={name}").results[0] for name in ("bm25", "dense")]
    fuse = ["retriever=fuse", "fuse.retrievers=[bm25,dense]", "fuse.method=convex"]
    learned = evaluate(beir_folder, tmp_path, folder, *fuse, "fuse.weights=learn").results[0]
    equal = evaluate(beir_folder, tmp_path, folder, *fuse).results[0]
    assert evaluate(beir_folder, tmp_path, folder, *fuse).results[0].reused
    assert parts[0].metrics["NDCG@10"] == 1.0  # the dense model is random, and so is what it adds
    assert all(parts[1].metrics["NDCG@10"] <= fused.metrics["NDCG@10"] <= 1.0 for fused in (learned, equal))
    assert "weights learned" in learned.system
    rows = {row["model"] for row in read_json(tmp_path / "out" / "beir_table.json")["rows"]}
    assert len(rows) == 4 and {"BM25", str(folder)} < rows


def test_wrong_retrievers(beir_folder, tmp_path, folder):
    for overrides, message in (
        (["retriever=dens"], "did you mean 'dense'"),
        (["retriever=fuse", "fuse.retrievers=[bm25]"], "two or more different ones"),
        (["retriever=fuse", "fuse.retrievers=[bm25,dense]", "fuse.weights={bm2: 1}"], "did you mean 'bm25'"),
        (["retriever=fuse", "fuse.retrievers=[bm25,dense]", "fuse.weights=learn", "fuse.split=test"], "is evaluated"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(beir_folder, tmp_path, folder, *overrides)
