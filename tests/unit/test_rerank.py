"""Rerankers: scores as other libraries give them, runs that survive a kill, training by the one trainer."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from splade.config import compose_experiment
from splade.config.choose import available_configs, conf_folder
from splade.config.schema import DataConfig, Experiment, ModelConfig, RunConfig
from splade.datasets.runs import read_run, write_run_json
from splade.datasets.teacher_scores import open_scores
from splade.datasets.text_collection import PairCollection
from splade.encoding.pairs import PairTokenizer
from splade.encoding.reranker import Reranker
from splade.errors import ConfigError, DataError, ModelError
from splade.losses import BatchScores, WeightedLoss
from splade.models.pair_scorer import load_reranker
from splade.retrieval import reranked
from splade.retrieval.reranked import RerankedRetriever
from splade.retrieval.score_journal import SCORES_FILE
from splade.retrieval.stored_run import StoredRun
from splade.storage.atomic import read_json
from splade.tasks.rerank import rerank
from splade.tasks.train_reranker import train_reranker
from splade.training.data import check_loss_fits
from splade.training.reranker_training import _own_alone

DOCUMENTS = {
    f"d{i}": f"{text} " * (1 + 7 * (i % 4)) for i, text in enumerate(["bees make honey", "a fox", "blood"] * 4)
}
QUERIES = {
    f"q{i}": text for i, text in enumerate(["who makes honey", "what do foxes eat", "the heart", "stars", "ice"])
}
RUN = {q: {d: 20.0 - i for i, d in enumerate(list(DOCUMENTS)[j : j + 8])} for j, q in enumerate(QUERIES)}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def saved(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def bert(tokenizer, n_labels=1):
    torch.manual_seed(1)
    return BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=n_labels, **SMALL)).eval()


@pytest.fixture(scope="module")
def cross_encoder(tiny_tokenizer, tmp_path_factory):
    return saved(tmp_path_factory.mktemp("ce"), bert(tiny_tokenizer), tiny_tokenizer)


@pytest.fixture(scope="module")
def t5(tiny_tokenizer, tmp_path_factory):
    torch.manual_seed(0)
    size = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(tiny_tokenizer), pad_token_id=0, **size)).eval()
    return saved(tmp_path_factory.mktemp("t5"), model, tiny_tokenizer)


def test_scores_are_those_of_sentence_transformers(cross_encoder):
    from sentence_transformers import CrossEncoder

    theirs = CrossEncoder(str(cross_encoder), max_length=24, device="cpu", activation_fn=torch.nn.Identity())
    ours = Reranker.load(str(cross_encoder), max_length=24)
    ours.batch_size = 5
    found = ours.score(QUERIES, dict.fromkeys(QUERIES, list(DOCUMENTS.values())))
    for query_id, scores in found.items():
        expected = theirs.predict([(QUERIES[query_id], text) for text in DOCUMENTS.values()])
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_the_document_is_cut_never_the_query(tiny_tokenizer):
    pairs = PairTokenizer(tiny_tokenizer, "cross-encoder", 20)
    query, long = tiny_tokenizer("what do foxes eat")["input_ids"], tiny_tokenizer("honey " * 50)["input_ids"]
    row = pairs.rows("q", "what do foxes eat", [("honey " * 50,)])[0]
    assert len(row.input_ids) == 20 and row.input_ids == query + long[: 20 - len(query)]
    mono = PairTokenizer(tiny_tokenizer, "monoT5", 60)
    begin, end = (tiny_tokenizer(text)["input_ids"] for text in ("Query: what do foxes eat Document:", "Relevant:"))
    row = mono.rows("q", "what do foxes eat", [("honey " * 50,)])[0].input_ids
    assert row == begin + long[: 60 - len(begin) - len(end)] + end
    with pytest.raises(DataError, match="query 'q7'.*takes .* of 20 tokens"):
        pairs.rows("q7", "honey " * 30, [("short",)])


def test_wrong_prompts_and_lengths(tiny_tokenizer, cross_encoder):
    for kind, key, prompts in (
        ("cross-encoder", "prompt_q", {"prompt_q": "query:"}),
        ("monoT5", "prompt_d", {"prompt_d": "Document: Relevant:"}),
        ("duoT5", "prompt_d", {"prompt_d": "Document: {} Relevant:"}),
        ("cross-encoder", "must come last", {"prompt_d": "{} (end)"}),
    ):
        with pytest.raises(ConfigError, match=key):
            PairTokenizer(tiny_tokenizer, kind, 40, **prompts)
    with pytest.raises(ConfigError, match="at most 512 tokens"):
        Reranker.load(str(cross_encoder), max_length=513)


def test_models_that_do_not_rank_are_refused(tiny_tokenizer, tiny_model, cross_encoder, tmp_path):
    with pytest.raises(ModelError, match="has 2 output labels"):
        load_reranker(str(saved(tmp_path / "two", bert(tiny_tokenizer, 2), tiny_tokenizer)), "cross-encoder")
    with pytest.raises(ModelError, match="no head for one label; train it first"):
        load_reranker(str(tiny_model()), "cross-encoder")
    with pytest.raises(ModelError, match="needs a T5"):
        load_reranker(str(cross_encoder), "monoT5")


def test_mono_t5_is_the_probability_of_true(t5, tiny_tokenizer):
    ours = Reranker.load(str(t5), "monoT5", max_length=200)
    model = T5ForConditionalGeneration.from_pretrained(t5).eval()
    true, false = (tiny_tokenizer(word)["input_ids"] for word in ("true", "false"))
    same = next(i for i, (a, b) in enumerate(zip(true, false, strict=False)) if a != b)
    text = "Query: the heart Document: blood Relevant:"
    ids = torch.tensor([tiny_tokenizer(text)["input_ids"]])
    with torch.no_grad():
        logits = model(input_ids=ids, decoder_input_ids=torch.tensor([[0, *true[:same]]])).logits[0, -1]
    expected = torch.log_softmax(logits[[true[same], false[same]]], 0)[0].item()
    assert ours.score({"q": "the heart"}, {"q": ["blood"]})["q"] == pytest.approx([expected], abs=1e-5)


@pytest.mark.parametrize("kind", ["duoT5", "PairwisePrompt"])
def test_comparisons_are_added_up(t5, kind):
    ours = Reranker.load(str(t5), kind, max_length=200)
    texts = list(DOCUMENTS.values())[:4]
    scores = ours.score({"q": "honey"}, {"q": texts})["q"]
    p = {}
    for i, one in enumerate(texts):
        for j, other in enumerate(texts):
            if i != j:
                p[i, j] = np.exp(ours.score_rows(ours.pairs.rows("q", "honey", [(one, other)]))[0])
    for i in range(4):
        others = [j for j in range(4) if j != i]
        if kind == "duoT5":
            expected = sum(p[i, j] + 1 - p[j, i] for j in others)
        else:
            expected = sum(((p[i, j] > 0.5) + (p[j, i] < 0.5)) / 2 for j in others) - i / 16  # equal: in their order
        assert scores[i] == pytest.approx(expected, abs=1e-5)


def test_a_decoder_answers_the_prompt(tiny_tokenizer, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128, "bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tiny_tokenizer), **size))
    ours = Reranker.load(str(saved(tmp_path, model, tiny_tokenizer)), "PairwisePrompt", max_length=120)
    texts = list(DOCUMENTS.values())[:3]
    together = ours.score_rows(ours.rows("q", "honey", texts))
    alone = [ours.score_rows([row])[0] for row in ours.rows("q", "honey", texts)]
    np.testing.assert_allclose(together, alone, atol=1e-5)  # padding changes nothing


def retrieve(model, folder=None, top_k=8, **settings):
    retriever = RerankedRetriever(
        StoredRun("first", RUN), model, PairCollection(list(DOCUMENTS.items())), folder=folder, **settings
    )
    return retriever, retriever.retrieve(QUERIES, top_k)


def test_the_best_are_put_into_another_order(cross_encoder):
    model = Reranker.load(str(cross_encoder), max_length=32)
    retriever, found = retrieve(model, depth=4)
    for query_id, ranking in found:
        best = list(RUN[query_id])[:4]
        scores = model.score(QUERIES, {query_id: [DOCUMENTS[doc_id] for doc_id in best]})[query_id]
        assert list(ranking) == [best[i] for i in np.argsort(-scores, kind="stable")]
    costs = retriever.costs()
    assert costs.pairs_per_query == 4 and costs.n_parameters == model.scorer.n_parameters
    for query_id, ranking in retrieve(model, depth=4, keep_rest=True)[1]:
        assert list(ranking)[4:] == list(RUN[query_id])[4:8] and set(list(ranking)[:4]) == set(list(RUN[query_id])[:4])
        assert list(ranking.values()) == sorted(ranking.values(), reverse=True)


def test_the_first_stage_may_keep_its_part(cross_encoder):
    model = Reranker.load(str(cross_encoder), max_length=32)
    for query_id, ranking in retrieve(model, depth=4, keep_rest=True, first_stage_weight=0.25)[1]:
        best = dict(list(RUN[query_id].items())[:4])
        texts = [DOCUMENTS[doc_id] for doc_id in best]
        both = np.array([list(best.values()), model.score(QUERIES, {query_id: texts})[query_id]])
        both = (both - both.min(1, keepdims=True)) / np.ptp(both, axis=1, keepdims=True)
        expected = dict(zip(best, [0.25, 0.75] @ both, strict=True))
        assert {doc_id: ranking[doc_id] for doc_id in best} == pytest.approx(expected)
        assert list(ranking.values()) == sorted(ranking.values(), reverse=True)
        assert list(ranking)[4:] == list(RUN[query_id])[4:8]


def test_a_killed_run_ends_the_same(cross_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(reranked, "WINDOW_PAIRS", 8)  # a query each
    model = Reranker.load(str(cross_encoder), max_length=32)
    whole = dict(retrieve(model, depth=8)[1])
    for moment in range(5):
        folder = tmp_path / str(moment)
        stream = retrieve(model, folder, depth=8)[1]
        for _ in range(moment):
            next(stream)
        if moment:
            with pytest.raises(KeyboardInterrupt):
                stream.throw(KeyboardInterrupt)
        if (folder / SCORES_FILE).is_file():
            with open(folder / SCORES_FILE, "ab") as part:
                part.write(b'{"half')
        counted = []
        score = Reranker.score

        def counting(self, queries, documents, counted=counted, score=score):
            counted.append(len(documents))
            return score(self, queries, documents)

        with monkeypatch.context() as patch:
            patch.setattr(Reranker, "score", counting)
            assert dict(retrieve(model, folder, depth=8)[1]) == whole
        assert sum(counted) == 5 - moment
        assert not (folder / SCORES_FILE).exists()


def test_scores_of_other_settings_are_not_used(cross_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(reranked, "WINDOW_PAIRS", 8)
    model = Reranker.load(str(cross_encoder), max_length=32)
    next(retrieve(model, tmp_path, depth=8)[1])
    other = Reranker.load(str(cross_encoder), max_length=20)
    assert dict(retrieve(other, tmp_path, depth=8)[1]) == dict(retrieve(other, depth=8)[1])


def write_data(folder, run=RUN):
    for name, texts in (("docs", DOCUMENTS), ("queries", QUERIES)):
        (folder / f"{name}.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in texts.items()))
    (folder / "qrels.json").write_text(json.dumps({q: {list(r)[-1]: 1} for q, r in RUN.items()}))
    write_run_json(folder / "first.json", run)
    data = DataConfig(path_run=str(folder / "first.json"), document_dir=str(folder / "docs.tsv"))
    data.query_dir, data.dataset_name, data.run_name = str(folder / "queries.tsv"), "small", "first"
    data.EVAL_QREL_PATH = [str(folder / "qrels.json")]
    return data


def experiment(folder, model, **settings):
    run = {"out_dir": str(folder / "out"), "top_k": 8, "max_length": 32, "pretrained_no_yamlconfig": True} | settings
    config = RunConfig(eval_metric=[["mrr_10", "ndcg_cut_5", "recall_100"]], **run)
    return Experiment(init_dict=ModelConfig(model_type_or_dir=str(model)), config=config, data=write_data(folder))


def test_the_command(cross_encoder, tmp_path):
    asked = experiment(tmp_path, cross_encoder)
    text = rerank(asked).text
    assert (
        "before" in text and "after" in text and "reranking, ms per query" in text and "reranker, M parameters" in text
    )
    written = tmp_path / "out" / "small" / "first" / "8"
    assert read_run(written / "run.json") == pytest.approx(dict(retrieve_all(cross_encoder)))
    assert list(read_json(written / "perf.json")) == ["ndcg_cut_5"]  # the others look deeper than 8 documents
    first = (written / "run.json").stat().st_mtime_ns
    assert rerank(asked).text == text and (written / "run.json").stat().st_mtime_ns == first
    scores = open_scores(written / "run.json")  # a teacher's, as splade.train reads them
    assert scores.query_ids == list(QUERIES) and scores.n_documents("q0") == 8


def retrieve_all(cross_encoder):
    return {
        query_id: pytest.approx(ranking)
        for query_id, ranking in retrieve(Reranker.load(str(cross_encoder), max_length=32), depth=8)[1]
    }


def test_several_runs_and_wrong_ones(cross_encoder, tmp_path):
    several = experiment(tmp_path, cross_encoder)
    several.data.path_run, several.data.run_name = [str(tmp_path / "first.json")] * 2, ["a", "b"]
    rerank(several)
    assert {path.name for path in (tmp_path / "out" / "small").iterdir()} == {"a", "b"}
    several.data.run_name = ["a", "a"]
    with pytest.raises(ConfigError, match="two runs would go to small/a"):
        rerank(several)
    several.data.document_dir = ["x", "y", "z"]
    with pytest.raises(ConfigError, match=r"data.document_dir has 3 values, data.path_run has 2"):
        rerank(several)
    wrong = experiment(tmp_path, cross_encoder)
    write_run_json(tmp_path / "first.json", {"q0": {"d1": 2.0, "nowhere": 1.0}})
    with pytest.raises(DataError, match="names 1 documents that .*docs.tsv does not have, such as 'nowhere'"):
        rerank(wrong)
    write_run_json(tmp_path / "first.json", {"other": {"d1": 2.0}})
    with pytest.raises(DataError, match="1 queries that data.query_dir does not have, such as 'other'"):
        rerank(wrong)


def test_the_second_stage_of_beir_eval(cross_encoder, tmp_path):
    from splade.tasks.beir_eval import beir_eval

    folder = tmp_path / "beir" / "small"
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", DOCUMENTS), ("queries", {"q0": "bees make honey", "q1": "a fox"})):
        lines = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td1\t1\n")
    settings = [
        *("retriever=rerank", "rerank.depth=3", f"rerank.model_type_or_dir={cross_encoder}", "config.top_k=100"),
        *(f"config.index_dir={tmp_path}/index", f"config.out_dir={tmp_path}/out", "+beir.dataset=small"),
        f"+beir.dataset_path={tmp_path}/beir",
    ]
    first = beir_eval(compose_experiment("config_default", [*settings, "retriever=bm25"])).results[0]
    result = beir_eval(compose_experiment("config_default", settings)).results[0]
    assert result.system == f"BM25 + {cross_encoder}, top 3" and result.costs.pairs_per_query == 3
    before, after = (read_run(one.folder / "run.json") for one in (first, result))
    for query_id in before:
        assert set(list(before[query_id])[:3]) == set(list(after[query_id])[:3])
        assert list(before[query_id])[3:] == list(after[query_id])[3:]
    assert beir_eval(compose_experiment("config_default", settings)).results[0].reused
    both = beir_eval(compose_experiment("config_default", [*settings, "rerank.first_stage_weight=0.5"])).results[0]
    assert not both.reused and both.system.endswith("first stage 0.5")
    for wrong, more in (("rerank", []), ("fuse", ["retriever=fuse", "fuse.retrievers=[bm25,rerank]"])):
        with pytest.raises(ConfigError, match=f"rerank.first_stage={wrong}"):
            beir_eval(compose_experiment("config_default", [*settings, f"rerank.first_stage={wrong}", *more]))


def test_losses_of_a_batch_are_those_of_the_own_documents():
    own = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for name in ("Contrastive", "InBatchPairwiseNLL"):
        loss, _ = WeightedLoss.parse(name)(BatchScores(own, _own_alone(own)))
        assert loss.item() == pytest.approx(WeightedLoss.parse("PairwiseNLL")(BatchScores(own))[0].item())
    loss.backward()
    assert torch.isfinite(own.grad).all()


def training(folder, model, *overrides):
    settings = [
        *("train/data=toy_hard_negatives", f"init_dict.model_type_or_dir={model}", f"config.checkpoint_dir={folder}"),
        *("config.nb_iterations=3", "config.record_frequency=3", "config.train_batch_size=2", "config.max_length=48"),
        *("config.n_negatives=3", "config.regularizer=null", "config.augment_pairs=null", "config.lr=1e-3"),
        *("data.VALIDATION_FULL_RANKING=null", "config.loss={KlDiv: 0.99, Contrastive: 0.01}", "config.warmup_steps=0"),
    ]
    return compose_experiment("config_default", [*settings, *overrides])


def test_a_cross_encoder_is_trained(tiny_model, tmp_path):
    from sentence_transformers import CrossEncoder

    asked = training(tmp_path, tiny_model())
    result = train_reranker(asked)
    assert result.steps == 3 and result.best is not None
    rows = (tmp_path / "training_perf.txt").read_text().splitlines()
    assert {"KlDiv", "Contrastive"} <= set(rows[0].split(","))
    ours = Reranker.load(str(tmp_path / "model"), max_length=48)
    theirs = CrossEncoder(str(tmp_path / "model"), max_length=48, device="cpu", activation_fn=torch.nn.Identity())
    scores = ours.score({"q": "honey"}, {"q": list(DOCUMENTS.values())})["q"]
    np.testing.assert_allclose(scores, theirs.predict([("honey", text) for text in DOCUMENTS.values()]), atol=1e-5)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").config.num_labels == 1
    assert train_reranker(asked).steps == 3  # nothing to do


@pytest.mark.parametrize("kind", ["rankT5", "monoT5"])
def test_t5_is_trained(t5, tmp_path, kind):
    if kind == "rankT5":
        with pytest.raises(ModelError, match="no head of a rankT5"):
            load_reranker(str(t5), "rankT5")
    train_reranker(training(tmp_path, t5, f"config.reranker_type={kind}", "data.VALIDATION_SIZE_FOR_LOSS=0"))
    before, after = (Reranker.load(str(folder), "monoT5") for folder in (t5, t5))
    after = Reranker.load(str(tmp_path / "model"), kind)
    assert np.isfinite(after.score({"q": "honey"}, {"q": ["bees", "foxes"]})["q"]).all()
    assert before.settings()["weights"] != after.settings()["weights"]


@pytest.mark.parametrize("name", [name for name in available_configs(conf_folder()) if name.startswith("reranker/")])
def test_presets_compose(name):
    preset = compose_experiment(name)
    if preset.data.path_run is None:
        loss = WeightedLoss.parse(preset.config.loss)
        check_loss_fits(preset, loss)
        assert loss.needs_teacher and preset.config.monitoring_ckpt == "loss"
        assert preset.data.VALIDATION_FULL_RANKING is None and preset.config.regularizer is None
    else:
        assert preset.config.checkpoint_dir == compose_experiment("reranker/config_train_toy").config.checkpoint_dir


def test_what_cannot_be_trained(t5, tiny_model, tmp_path):
    with pytest.raises(ConfigError, match="duoT5 is for splade.rerank"):
        train_reranker(training(tmp_path, t5, "config.reranker_type=duoT5"))
    (tmp_path / "run_info").mkdir()
    (tmp_path / "run_info" / "train.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a model of splade.train"):
        train_reranker(training(tmp_path, tiny_model()))
