"""Queries made from a collection, what they learn from, and adapting a model to documents alone."""

import json
from dataclasses import replace

import pytest
from transformers import T5Config, T5ForConditionalGeneration

import splade
from splade.config import compose_experiment
from splade.datasets.collections import open_collection
from splade.datasets.dataset import Dataset
from splade.datasets.made_queries import KINDS, QueryMaker, TitledDocument, titled_documents
from splade.datasets.text_collection import PairCollection
from splade.encoding.query_generator import QueryGenerator
from splade.errors import ConfigError, DataError, ModelError
from splade.tasks import adapt as task
from splade.tasks import adaptation_queries as queries
from splade.tasks import adaptation_stage as stage
from splade.tasks.adaptation_teacher import teach, teachers, write_teacher
from splade.tasks.made_set import made_set, round_trip

SENTENCES = (
    "Hens lay eggs in nests of straw.",
    "Most hens of A. Smith lay one egg on five days of a week, e.g. in spring, at 0. 5 per day.",
    "Foxes like hens and eggs.",
    "Straw keeps eggs of hens from breaking, and nests keep hens calm.",
)
TEXT = " ".join(SENTENCES)
HENS = TitledDocument("d1", "How often hens lay eggs in straw nests", TEXT)
FOXES = TitledDocument("d2", "", "Foxes live in dens. A fox digs its den in a dry bank. Young foxes play at the den.")


def experiment(*overrides):
    return compose_experiment("config_domain_adaptation", list(overrides))


def test_queries_are_cut_out_of_their_documents():
    maker = QueryMaker([HENS, FOXES], seed=1)
    queries, rest = maker.cut(HENS, n=3)
    assert {query.doc_id for query in queries} == {"d1"} and len({query.kind for query in queries}) == len(queries) > 0
    for query in queries:
        assert query.kind in KINDS and query.text in HENS.joined and query.text not in rest
    assert len(rest.split()) >= len(HENS.joined.split()) * 2 / 3 - 1
    assert maker.cut(HENS, n=3) == (queries, rest)
    assert maker.cut(FOXES, n=0) == ([], FOXES.joined)


def test_each_kind_is_made_and_an_abbreviation_ends_no_sentence():
    documents = [replace(HENS, doc_id=f"d{number}") for number in range(60)]
    maker = QueryMaker([*documents, FOXES], seed=0)
    made = [query for document in documents for query in maker.cut(document, 1)[0]]
    assert {query.kind for query in made} == {"title", "sentence"}  # all words of the spans are frequent
    assert {query.text for query in made if query.kind == "sentence"} <= set(SENTENCES)
    rare = QueryMaker([HENS, *(TitledDocument(f"f{i}", "", "Foxes live in dens of foxes.") for i in range(60))], seed=0)
    kinds = {query.kind for document in documents for query in rare.cut(document, 1)[0]}
    assert kinds == set(KINDS)


@pytest.mark.parametrize("text", ["", "one two", "這是一個沒有空格的句子", "every word here stands just once alone"])
def test_nothing_is_made_of_what_is_too_short_or_says_nothing_of_itself(text):
    document = TitledDocument("d", "", text)
    assert QueryMaker([document, HENS], seed=0).cut(document, n=3) == ([], text)


def test_titles_are_known_of_json_lines_only(tmp_path):
    lines = [
        {"_id": "a", "title": "Hens", "text": "lay eggs"},
        {"_id": "b", "text": "Foxes"},
        {"_id": "c", "title": "x", "text": ""},
    ]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    found = list(titled_documents(open_collection(tmp_path)))
    assert found == [
        TitledDocument("a", "Hens", "lay eggs"),
        TitledDocument("b", "", "Foxes"),
        TitledDocument("c", "", "x"),
    ]
    (tmp_path / "raw.tsv").write_text("a\tHens\tlay eggs\n")
    assert list(titled_documents(open_collection(tmp_path / "raw.tsv"))) == [TitledDocument("a", "", "Hens lay eggs")]
    assert [document.joined for document in titled_documents(PairCollection([("a", "Hens")]))] == ["Hens"]


def test_of_a_large_collection_a_part_is_taken_and_a_set_that_is_there_is_used_again(tmp_path):
    collection = PairCollection([(f"d{number}", f"{TEXT} Number {number}.") for number in range(100)])
    given = experiment("adapt.made=30", "adapt.most_documents=40")
    made = made_set(given, collection, tmp_path)
    assert len(made.queries) == 30 and len(made.documents) == 40
    own = dict(collection)
    for query_id, judged in made.qrels.items():
        (doc_id,) = judged
        assert made.queries[query_id] in own[doc_id] and made.queries[query_id] not in made.documents.text(doc_id)
    (tmp_path / "queries.jsonl").write_text('{"_id": "made-0", "text": "mine"}\n')
    assert made_set(given, collection, tmp_path).queries == {"made-0": "mine"}
    assert len(made_set(experiment("adapt.made=25"), collection, tmp_path).queries) == 25
    with pytest.raises(DataError, match="no query can be made"):
        made_set(given, PairCollection([("a", "too short"), ("b", "too")]), tmp_path / "short")


def test_a_query_must_find_its_own_document():
    dataset = Dataset("made", {"q1": "x", "q2": "y"}, {"q1": {"d1": 1}, "q2": {"d2": 1}})
    found = {"q1": {"d3": 3.0, "d1": 1.0}, "q2": {"d4": 2.0, "d5": 1.0, "d2": 0.5}}
    assert round_trip(dataset, found, 2) == {"q1": {"d1": 1}}
    assert round_trip(dataset, found, 3) == dataset.qrels
    with pytest.raises(DataError, match="none of the 2 queries"):
        round_trip(dataset, found, 1)


def test_a_teacher_speaks_in_the_units_of_the_model(tmp_path, monkeypatch):
    collection = PairCollection([("d1", "hens lay eggs"), ("d2", "foxes like hens"), ("d3", "straw")])
    dataset = Dataset("own", {"q": "hens eggs"}, {"q": {"d2": 1}}, collection)
    (tmp_path / "own.json").write_text(json.dumps({"q": {"d3": 14.0, "d2": 12.0, "d1": 10.0}}))
    given = experiment("adapt.teacher=[sparse,bm25]")
    taught = teach(given, dataset, tmp_path / "own.json", tmp_path / "index", tmp_path / "teacher")
    # BM25, minimum and maximum 0 and 1: d1 1, d2 0. The model: d3 1, d2 0.5, d1 0. Its scores lie 4 apart.
    assert taught["q"] == pytest.approx({"d1": 2.0, "d3": 2.0, "d2": 1.0})
    write_teacher(taught, dataset, tmp_path / "teacher.json")
    assert json.loads((tmp_path / "teacher.json").read_text())["q"]["d2"] == pytest.approx(2.0)


def test_what_teaches():
    assert teachers(experiment("adapt.teacher=[bm25]")) == ["bm25"]
    assert teachers(experiment("dense.model_type_or_dir=pkg://no_such_package/model")) == ["sparse", "bm25"]
    assert teachers(experiment("dense.model_type_or_dir=my/dense")) == ["sparse", "bm25", "dense"]
    for wrong in ("[bm25,bm25]", "[fuse,bm25]", "[]"):
        with pytest.raises(ConfigError, match="different ones are fused"):
            teachers(experiment(f"adapt.teacher={wrong}"))


def test_a_generator_writes_queries(tiny_tokenizer, tmp_path, tiny_model):
    size = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2}
    tokens = {"vocab_size": len(tiny_tokenizer), "pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 3}
    T5ForConditionalGeneration(T5Config(**tokens, **size)).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    generator = QueryGenerator.load(str(tmp_path))
    texts = generator.generate(["hens lay eggs", "foxes"], seed=0)
    assert len(texts) == 2 and texts == generator.generate(["hens lay eggs", "foxes"], seed=0)
    with pytest.raises(ModelError, match="no sequence-to-sequence model"):
        QueryGenerator.load(str(tiny_model()))
    collection = PairCollection([(f"d{number}", f"{TEXT} Number {number}.") for number in range(40)])
    made = made_set(experiment("adapt.made=40", f"adapt.query_generator={tmp_path}"), collection, tmp_path / "made")
    kinds = json.loads((tmp_path / "made" / "made.json").read_text())["kinds"]
    assert 0 < kinds["generated"] <= 20 and len(made.queries) == sum(kinds.values())


def test_documents_alone_are_enough(tmp_path, tiny_model):
    lines = [json.dumps({"_id": f"d{i}", "text": f"{TEXT} Number {i} of {i % 7} hens."}) for i in range(50)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    fast = ("nb_iterations=2", "record_frequency=1", "warmup_steps=1", "train_batch_size=4", "max_length=32")
    given = [f"data.TRAIN_DATA_DIR={tmp_path}", f"config.out_dir={tmp_path / 'out'}", "adapt.round_trip=50"]
    given += [f"init_dict.model_type_or_dir={tiny_model()}", "adapt.teacher=[sparse,bm25]", "adapt.held_out=10"]
    given += [f"config.{setting}" for setting in fast]
    result = task.adapt(experiment(*given))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(summary) == {"kept", "made"} and summary["made"]["held_out"]["n_queries"] == 10
    assert result.test == {} and "made queries are trained on, 10 held out" in result.summary()
    assert (tmp_path / "out/checkpoint/model/config.json").is_file()
    assert task.adapt(experiment(*given)).summary() == result.summary()


def test_an_adapted_query_encoder_searches_the_index_that_is_there(tmp_path, tiny_model, monkeypatch):
    lines = [json.dumps({"_id": f"d{i}", "text": f"{TEXT} Number {i} of {i % 7} hens."}) for i in range(50)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "number 3"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td3\t1\n")
    better = stage.Verdict(9, *({"NDCG@10": value, "Recall@100": 0.5} for value in (0.4, 0.6)), 0.01)
    monkeypatch.setattr(queries, "judge", lambda *_: (better, None))
    out, model = tmp_path / "out", tiny_model()
    result = task.adapt(
        experiment(f"data.TRAIN_DATA_DIR={tmp_path}", f"config.out_dir={out}", f"init_dict.model_type_or_dir={model}")
    )
    assert set(result.test) == {"before", "after"} and "kept: the adapted model" in result.summary()
    assert (out / "checkpoint/model_q/config.json").is_file() and not (out / "index/after").exists()
    adapted, old = splade.load(out / "checkpoint", max_length=256), splade.load(model, max_length=256)
    assert adapted.fingerprint == old.fingerprint and adapted.network.query_digest() != old.network.query_digest()


def test_judged_queries_have_a_say_in_made_ones():
    better, worse = ({"NDCG@10": value, "Recall@100": 0.5} for value in (0.6, 0.4))
    helped, harmed = stage.Verdict(9, worse, better, 0.01), stage.Verdict(9, better, worse, 0.01)
    assert stage.Stage("made", experiment(), helped, None, "").helped
    assert not stage.Stage("made", experiment(), helped, harmed, "").helped
    by_chance = replace(harmed, p_value=0.5)
    assert stage.Stage("made", experiment(), helped, by_chance, "").helped
    assert not stage.Stage("made", experiment(), replace(helped, p_value=0.5), None, "").helped
