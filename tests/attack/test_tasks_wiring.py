"""What the configuration says reaches what does the work: results of tasks, computed a second time in a few lines.

Queries and documents are encoded differently (4 and 30 terms), so that sides which are exchanged show.
"""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

import splade
from splade.config import compose_experiment
from splade.datasets.dataset import Dataset
from splade.datasets.made_queries import QueryMaker, TitledDocument
from splade.datasets.training_sets import TrainingExample
from splade.encoding import text_encoder
from splade.errors import ModelError
from splade.evaluation.protocols import TrecProtocol
from splade.inverted_index import InvertedIndex, open_index
from splade.inverted_index.two_step import TwoStepIndex
from splade.models.encoder import EncoderSettings
from splade.retrieval.dense import DenseRetriever
from splade.retrieval.evaluate_retriever import evaluate_retriever
from splade.retrieval.stored_run import StoredRun
from splade.server import service
from splade.server.requests import ExplainRequest, SearchRequest
from splade.server.service import SearchService
from splade.tasks import fuse as fuse_task
from splade.tasks import rerank as task
from splade.tasks import systems
from splade.tasks.create_anserini import create_anserini
from splade.tasks.export import export
from splade.tasks.flops import flops
from splade.tasks.fuse import fuse
from splade.tasks.index import index
from splade.tasks.prune import prune
from splade.tasks.push import push
from splade.tasks.rerank import rerank
from splade.tasks.retrieve import retrieve
from splade.tasks.search import search
from splade.tasks.serve import serve
from splade.training.collator import Collator
from splade.training.pretraining import open_texts, prepare_middle_training
from splade.training.run import prepare_training

TOY = Path(__file__).resolve().parents[2] / "data" / "toy"
LENGTH, TOP_D, TOP_Q = 12, 30, 4


def rows(name, n):
    lines = (TOY / name / "raw.tsv").read_text(encoding="utf-8").splitlines()[:n]
    return dict(line.split("\t", 1) for line in lines)


@pytest.fixture(scope="module")
def place(tiny_model, tmp_path_factory):
    """A folder with documents, queries, qrels, two runs, and an index of the documents."""
    folder = tmp_path_factory.mktemp("wired")
    (folder / "model").symlink_to(tiny_model(seed=3))
    documents, queries = rows("collection", 30), rows("queries/heldout", 5)
    for name, texts in (("docs", documents), ("queries", queries)):
        (folder / f"{name}.tsv").write_text("".join(f"{text_id}\t{text}\n" for text_id, text in texts.items()))
    rng = np.random.default_rng(0)
    for name, n in (("a", 9), ("b", 6)):
        run = {
            q: dict(
                zip(
                    rng.permutation(list(documents))[:n].tolist(),
                    np.sort(rng.normal(size=n))[::-1].tolist(),
                    strict=True,
                )
            )
            for q in queries
        }
        (folder / f"{name}.json").write_text(json.dumps(run))
    first = json.loads((folder / "a.json").read_text())
    (folder / "qrels.json").write_text(json.dumps({q: {list(run)[2]: 1} for q, run in first.items()}))
    index(experiment(folder, f"config.index_dir={folder / 'index'}"))
    return folder


def experiment(place, *overrides):
    """Compose the settings of all tasks."""
    settings = {
        "init_dict.model_type_or_dir": place / "model",
        "init_dict.top_d": TOP_D,
        "init_dict.top_q": TOP_Q,
        "config.pretrained_no_yamlconfig": "true",
        "config.matching_type": "splade_topk",
        "config.max_length": LENGTH,
        "config.index_dir": place / "index",
        "data.COLLECTION_PATH": place / "docs.tsv",
        "data.Q_COLLECTION_PATH": f"[{place / 'queries.tsv'}]",
        "data.EVAL_QREL_PATH": f"[{place / 'qrels.json'}]",
        "config.retrieval_name": "[toy]",
        "config.eval_metric": "[[mrr_10]]",
    }
    return compose_experiment("own_data", [f"{name}={value}" for name, value in settings.items()] + list(overrides))


@torch.no_grad()
def vectors(place, name):
    """Return (texts, vocabulary) weights, by the formula."""
    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    model = AutoModelForMaskedLM.from_pretrained(place / "model").eval()
    most, found = {"docs": TOP_D, "queries": TOP_Q}[name], []
    for line in (place / f"{name}.tsv").read_text().splitlines():
        ids = torch.tensor([tokenizer(line.split("\t", 1)[1], truncation=True, max_length=LENGTH)["input_ids"]])
        weights = model(ids).logits[0].relu().log1p().amax(0)
        weights[weights < weights.topk(most).values[-1]] = 0
        found.append(weights.numpy().astype(np.float64))
    return np.stack(found)


def ids_of(place, name):
    return [line.split("\t")[0] for line in (place / f"{name}.tsv").read_text().splitlines()]


def test_flops_are_the_mean_of_the_shared_terms(place, tmp_path, monkeypatch):
    def one_by_one(encoder, texts):
        for pair in texts:
            yield from encoder.encode_pairs([pair])

    monkeypatch.setattr("splade.tasks.flops.encode_shared", one_by_one)
    flops(experiment(place, f"data.flops_queries={place / 'queries.tsv'}", f"config.out_dir={tmp_path}"))
    shared = (vectors(place, "queries") > 0).astype(float) @ (vectors(place, "docs") > 0).T
    assert json.loads((tmp_path / "flops.json").read_text())["flops"] == pytest.approx(shared.mean())


FACTORS = ("quantization_factor_document=50", "quantization_factor_query=20")


def test_quantised_vectors_for_anserini(place, tmp_path):
    create_anserini(experiment(place, *FACTORS, "shard_size=7", f"config.out_dir={tmp_path}"))
    from splade.storage.text_files import iterate_lines

    shards = sorted((tmp_path / "anserini_collection").iterdir())
    lines = [[json.loads(line) for _, line in iterate_lines(shard)] for shard in shards]
    assert [len(some) for some in lines] == [7, 7, 7, 7, 2]
    tokens = AutoTokenizer.from_pretrained(place / "model").convert_ids_to_tokens(range(400))
    expected = np.rint(50 * vectors(place, "docs"))
    for row, record in zip(expected, (record for some in lines for record in some), strict=True):
        bag = {tokens[term]: int(row[term]) for term in np.flatnonzero(row)}
        assert record["vector"].keys() == bag.keys() and all(abs(record["vector"][t] - bag[t]) <= 1 for t in bag)
    asked = dict(line.split("\t") for line in (tmp_path / "queries_anserini.tsv").read_text().splitlines())
    for query_id, row in zip(ids_of(place, "queries"), np.rint(20 * vectors(place, "queries")), strict=True):
        counts = Counter(asked[query_id].split())
        assert counts.keys() == {tokens[t] for t in np.flatnonzero(row)} and abs(counts.total() - row.sum()) <= TOP_Q


def test_quantised_vectors_for_pisa(place, tmp_path):
    export(experiment(place, *FACTORS, "target=pisa", f"config.out_dir={tmp_path}"))
    sizes = np.frombuffer((tmp_path / "pisa" / "inv.sizes").read_bytes(), "<u4")[1:]
    np.testing.assert_allclose(sizes, np.rint(50 * vectors(place, "docs")).sum(1), atol=TOP_D / 3)
    lines = (tmp_path / "pisa" / "toy.pisa").read_text().splitlines()
    known = (vectors(place, "docs") > 0).any(0)
    asked = np.rint(20 * vectors(place, "queries") * known).sum(1)
    np.testing.assert_allclose([len(line.split(":")[1].split()) for line in lines], asked, atol=TOP_Q / 2)


def test_as_many_answers_as_are_asked_for(place, capsys):
    search(experiment(place, "config.top_k=2", "query=honey bees"))
    assert "2 documents in" in capsys.readouterr().out


def test_rankings_are_fused_as_said(place, tmp_path):
    whole = {name: json.loads((place / f"{name}.json").read_text()) for name in "ab"}
    runs = {name: {q: dict(list(own.items())[:5]) for q, own in run.items()} for name, run in whole.items()}
    given = [f"runs={{b: {place / 'b.json'}, a: {place / 'a.json'}}}", f"qrels={place / 'qrels.json'}"]
    given += ["metrics=[nDCG@10]", "config.top_k=5", "fuse.weights={a: 0.7, b: 0.3}"]
    ways = {"fuse.k=3": lambda run: {d: 1 / (3 + i) for i, d in enumerate(run, start=1)}}

    def normalised(run):
        mean, spread = np.mean(list(run.values())), np.std(list(run.values()))
        return {d: (score - mean) / spread for d, score in run.items()}

    ways["fuse.method=convex fuse.normalise=z_score"] = normalised
    for way, part in ways.items():
        folder = tmp_path / part.__name__
        fuse(compose_experiment("own_data", [*given, *way.split(), f"config.out_dir={folder}"]))
        written = json.loads((folder / "run.json").read_text())
        for query_id, ranking in written.items():
            parts = {name: part(run[query_id]) for name, run in runs.items()}
            lowest = {name: min(own.values()) if "convex" in way else 0 for name, own in parts.items()}
            every = {d for own in parts.values() for d in own}
            scores = {d: 0.7 * parts["a"].get(d, lowest["a"]) + 0.3 * parts["b"].get(d, lowest["b"]) for d in every}
            assert ranking == pytest.approx(dict(sorted(scores.items(), key=lambda one: -one[1])[:5]))
        pairs = json.loads((folder / "compare.json").read_text())["pairs"]
        assert [(pair["first"], pair["second"]) for pair in pairs] == [("fused", "b"), ("fused", "a")]


def test_the_best_are_re_ranked_as_said(place, tmp_path, tiny_tokenizer, monkeypatch):
    from transformers import BertConfig, BertForSequenceClassification

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    size |= {"initializer_range": 0.5}  # large weights: every token changes the score
    torch.manual_seed(1)
    BertForSequenceClassification(BertConfig(vocab_size=len(tiny_tokenizer), num_labels=1, **size)).save_pretrained(
        tmp_path / "ce"
    )
    tiny_tokenizer.save_pretrained(tmp_path / "ce")
    where = [f"data.path_run={place / 'a.json'}", f"data.document_dir={place / 'docs.tsv'}"]
    where += [f"data.query_dir={place / 'queries.tsv'}", f"config.out_dir={tmp_path / 'out'}"]
    model = f"init_dict.model_type_or_dir={tmp_path / 'ce'}"
    depths, made = [], task.RerankedRetriever
    monkeypatch.setattr(task, "RerankedRetriever", lambda *a, **k: depths.append(a[3]) or made(*a, **k))
    done = rerank(
        experiment(place, *where, model, "config.top_k=4", "config.max_length=30", "config.prompt_d='about {}'")
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ce")
    scorer = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ce").eval()
    documents, queries = rows("collection", 30), rows("queries/heldout", 5)
    written = json.loads((tmp_path / "out/dataset/a/4/run.json").read_text())
    for query_id, before in json.loads((place / "a.json").read_text()).items():
        expected = {}
        for doc_id in list(before)[:4]:
            pair = queries[query_id], f"about {documents[doc_id]}"
            row = tokenizer(*pair, truncation="only_second", max_length=30, return_tensors="pt")
            with torch.no_grad():
                expected[doc_id] = scorer(**row).logits.item()
        assert written[query_id] == pytest.approx(expected, abs=1e-5)
    qrels = json.loads((place / "qrels.json").read_text())
    before = json.loads((place / "a.json").read_text())
    ranks = [[i for i, d in enumerate(list(run)[:4]) if d in qrels[query_id]] for query_id, run in before.items()]
    ndcg = np.mean([sum(1 / np.log2(2 + rank) for rank in own) for own in ranks])  # of one relevant document each
    shown = next(line for line in done.text.splitlines() if "nDCG@10" in line).split()
    assert depths == [4] and ndcg > 0 and shown[1] == f"{ndcg:.4f}"


def test_what_is_pruned_is_evaluated_as_said(place, tmp_path):
    scores = np.sort((vectors(place, "queries") @ vectors(place, "docs").T).ravel())
    threshold = float(scores[len(scores) // 2])
    unjudged = ["data.EVAL_QREL_PATH=[]", "config.eval_metric=[]", f"config.threshold={threshold}"]
    prune(experiment(place, "longest_list=5", *unjudged, f"config.out_dir={tmp_path}"))
    counts = open_index(tmp_path / "index").posting_counts
    assert counts.max() == 5 and (vectors(place, "docs") > 0).sum(0).max() > 5
    run = json.loads((tmp_path / "toy" / "run.json").read_text())
    assert any(run.values()) and all(score > threshold for ranking in run.values() for score in ranking.values())


def test_a_pushed_model_says_where_texts_are_cut(place, tmp_path):
    plain = ["config.matching_type=splade", "init_dict.top_d=null", "init_dict.top_q=null"]
    push(experiment(place, *plain, f"push.folder={tmp_path / 'hub'}"))
    assert json.loads((tmp_path / "hub" / "sentence_bert_config.json").read_text())["max_seq_length"] == LENGTH


def test_limits_of_the_server(place, monkeypatch):
    uvicorn = pytest.importorskip("uvicorn")
    testing = pytest.importorskip("starlette.testclient")
    apps = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: apps.append(self.config.app))
    limits = ["serve.characters=20", "serve.top_k=3", "serve.per_second=0.4", "serve.port=0", "serve.at_once=1"]
    serve(experiment(place, *limits))
    with testing.TestClient(apps[0], base_url="http://localhost") as client:
        codes = [client.get("/search", params=given).status_code for given in (
            {"q": "honey"}, {"q": "honey " * 9}, {"q": "honey", "k": 4}, {"q": "honey", "k": 3}, {"q": "honey"}
        )]  # fmt: skip
        assert codes == [200, 400, 400, 200, 429]


def test_a_request_is_searched_as_it_asks(place, monkeypatch):
    given, found = [], InvertedIndex.search
    monkeypatch.setattr(InvertedIndex, "search", lambda self, *a, **k: given.append(a[1:4]) or found(self, *a, **k))
    model = splade.load(place / "model", max_length=LENGTH)
    splade.Index.build(place / "plain", model, place / "docs.tsv")
    SearchService(model, place / "plain").search_many([SearchRequest("honey", 3, 0.25)])
    assert given[-1] == (3, 0.0, 0.25)


def test_dense_queries_are_encoded_as_queries():
    class Index:
        vectors, doc_ids = np.eye(3, dtype=np.float32), ["a", "b", "c"]

        def __len__(self):
            return 3

    sides = []

    def stream(texts, side):
        sides.append((list(texts), side))
        yield np.array([[0, 2, 1]], np.float32)

    model = SimpleNamespace(name="m", stream=stream, encoder=torch.nn.Linear(1, 1))
    assert dict(DenseRetriever(model, Index()).retrieve({"q": "text"}, 2)) == {"q": {"b": 2.0, "c": 1.0}}
    assert sides == [(["text"], "query")]


def test_settings_of_training(place, tmp_path):
    toy = {name: f"pkg://splade/data/toy/{name}" for name in ("collection", "queries/train", "qrels/train.json")}
    settings = {
        "data.VALIDATION_FULL_RANKING.TOP_K": 7,
        "data.VALIDATION_FULL_RANKING.D_COLLECTION_PATH": place / "docs.tsv",
        "data.VALIDATION_FULL_RANKING.Q_COLLECTION_PATH": place / "queries.tsv",
        "data.VALIDATION_FULL_RANKING.QREL_PATH": place / "qrels.json",
        "config.n_negatives": 3,
        "config.seed": 9,
        "config.encode_at_a_time": 2,
        "config.eval_batch_size": 5,
        "config.early_stopping": "true",
        "config.patience": 6,
        "config.train_batch_size": 4,
        "config.nb_iterations": "null",
        "config.nb_epochs": 2,
        "config.max_length": LENGTH,
        "config.checkpoint_dir": tmp_path,
        "init_dict.model_type_or_dir": place / "model",
        "data.type": "hard_negatives",
        "data.TRAIN.DATASET_PATH": "pkg://splade/data/toy/hard_negatives/scores.json.gz",
        "data.TRAIN.D_COLLECTION_PATH": toy["collection"],
        "data.TRAIN.Q_COLLECTION_PATH": toy["queries/train"],
        "data.TRAIN.QREL_PATH": toy["qrels/train.json"],
        "data.VALIDATION_SIZE_FOR_LOSS": 20,
    }
    given = compose_experiment("config_default", [f"{name}={value}" for name, value in settings.items()])
    trainer, data = prepare_training(given)
    validation = trainer.validation
    assert (validation.full_ranking.top_k, validation.batch_size, validation.max_length) == (7, 5, LENGTH)
    assert (trainer.objective.encode_at_a_time, trainer.stopping.patience) == (2, 6)
    assert len(trainer.sampler[0].negatives) == 3 and len(data.held_out) == 20
    assert data.schedule.steps == -(-2 * len(trainer.sampler.rows) // 4)
    given.config.seed = 10
    other, _ = prepare_training(given)
    index_of = trainer.sampler.rows[0]
    drawn = [{tuple(sampler.examples.example(int(index_of), draw).negatives) for draw in range(5)}
             for sampler in (trainer.sampler, other.sampler)]  # fmt: skip
    assert drawn[0] != drawn[1]


def test_settings_of_a_search_in_two_steps(place, tmp_path, monkeypatch):
    given, made = [], TwoStepIndex.beside
    monkeypatch.setattr(TwoStepIndex, "beside", lambda index, *terms: given.append(terms) or made(index, *terms))
    steps = [f"config.two_step.{name}" for name in ("document_terms=9", "query_terms=3", "candidates=6")]
    retrieve(experiment(place, *steps, f"config.out_dir={tmp_path}", "config.top_k=10"))
    assert given == [(9, 3, 6)]


def test_settings_of_middle_training(place, tmp_path):
    given = [f"init_dict.model_type_or_dir={place / 'model'}", f"pretrain.collection={place / 'docs.tsv'}"]
    given += ["pretrain.span_weight=0.5", "pretrain.masked_share=0.3", "data.VALIDATION_SIZE_FOR_LOSS=4"]
    given += ["config.seed=9", f"config.checkpoint_dir={tmp_path}", "config.max_length=16", "config.regularizer=null"]
    settings = compose_experiment("config_default", given)
    trainer, _ = prepare_middle_training(settings, open_texts(settings))
    assert trainer.objective.span_weight == 0.5 and len(trainer.validation.held_out) == 4
    assert (trainer.collator.share, trainer.collator.seed, trainer.collator.max_length) == (0.3, 9, 16)


def test_made_queries_depend_on_the_seed():
    texts = [TitledDocument(doc_id, "", text) for doc_id, text in rows("collection", 30).items()]
    made = [[QueryMaker(texts, seed).cut(text, 1)[0] for text in texts] for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]


def test_figures_of_an_earlier_run_do_not_stay(tmp_path):
    data, run = Dataset("x", {"q": ""}, {"q": {"d": 1}}), StoredRun("r", {"q": {"d": 2.0, "e": 1.0}})
    evaluate_retriever(run, data, TrecProtocol(["nDCG@10"]), 5, tmp_path)
    assert (tmp_path / "perf.json").is_file() and (tmp_path / "eval_stats.json").is_file()
    evaluate_retriever(run, data, None, 5, tmp_path)
    assert not (tmp_path / "perf.json").exists() and not (tmp_path / "eval_stats.json").exists()


def test_the_kind_of_reranker_that_is_named(place, tmp_path):
    where = [f"data.path_run={place / 'a.json'}", f"data.document_dir={place / 'docs.tsv'}"]
    where += [f"data.query_dir={place / 'queries.tsv'}", f"config.out_dir={tmp_path}", "config.reranker_type=monoT5"]
    with pytest.raises(ModelError, match="needs a T5"):
        rerank(experiment(place, *where))


def test_a_query_is_ranked_with_the_weights_that_it_has_no_part_in(place, tmp_path, monkeypatch):
    given, made = [], fuse_task.FusedRetriever
    monkeypatch.setattr(fuse_task, "FusedRetriever", lambda *a: given.append(a) or made(*a))
    runs = [f"runs=[{place / 'a.json'},{place / 'b.json'}]", f"qrels={place / 'qrels.json'}", "fuse.weights=learn"]
    fuse(compose_experiment("own_data", [*runs, f"config.out_dir={tmp_path}"]))
    assert given[0][3].keys() == json.loads((place / "qrels.json").read_text()).keys()


def test_each_side_of_a_training_batch_has_its_own_prompt(tiny_tokenizer):
    sides = EncoderSettings(prompt="bees "), EncoderSettings(prompt="honey ")
    batch = Collator(tiny_tokenizer, tiny_tokenizer, 50, *sides)([TrainingExample("what", "this", ["that"])])
    for name, texts in (("queries", ["honey what"]), ("documents", ["bees this", "bees that"])):
        rows = [tiny_tokenizer(text)["input_ids"] for text in texts]
        assert [ids[: len(row)] for ids, row in zip(batch[name]["input_ids"].tolist(), rows, strict=True)] == rows


def test_special_tokens_are_left_out_where_the_model_says_so(place, monkeypatch):
    given, made = [], text_encoder.encode_batches
    monkeypatch.setattr(text_encoder, "encode_batches", lambda *a, **k: given.append(k) or made(*a, **k))
    model = splade.load(place / "model", max_length=LENGTH)
    for special in (True, False):
        settings = EncoderSettings(special_tokens=special)
        encoder = text_encoder.TextEncoder(model.documents.encoder, model.documents.tokenizer, 8, settings=settings)
        assert len(encoder.encode(["one", "two"])) == 2
    assert given == [{"special_tokens": True}, {"special_tokens": False}]


def test_settings_of_a_dense_system(place, monkeypatch):
    given = []

    def load(*arguments):
        given.append(arguments)
        raise ModelError("far enough")

    monkeypatch.setattr(systems.DenseModel, "load", load)
    dense = ["model_type_or_dir=some/model", "pooling=cls", "normalise=false", "max_length=33"]
    settings = experiment(place, *(f"dense.{one}" for one in dense), "config.index_retrieve_batch_size=5")
    with pytest.raises(ModelError, match="far enough"):
        systems.DenseSystem(settings, {})
    assert given == [("some/model", "cls", False, 33, 5)]


def test_an_explained_query_is_encoded_as_one(place, monkeypatch):
    sides, made = [], service.trace
    monkeypatch.setattr(service, "trace", lambda encoder, *a: sides.append((encoder.side, a[1])) or made(encoder, *a))
    model = splade.load(place / "model", max_length=LENGTH)
    splade.Index.build(place / "explained", model, place / "docs.tsv")
    SearchService(model, place / "explained").explain(ExplainRequest("honey", None, "bees make it"))
    assert sorted(sides) == [("document", "bees make it"), ("query", "honey")]
