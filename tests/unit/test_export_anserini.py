"""What Anserini reads must score as the quantised vectors do."""

import gzip
import json
from collections import Counter

import numpy as np
import pytest

import splade
from splade.config import compose_experiment
from splade.datasets.collections import open_collection
from splade.errors import ConfigError, DataError
from splade.interop.anserini import (
    EMPTY_TOKEN,
    anserini_commands,
    link_alone,
    quantise,
    unambiguous_tokens,
    write_documents,
    write_queries,
)
from splade.interop.anserini_shards import with_texts, write_shards
from splade.tasks.create_anserini import create_anserini
from splade.vectors import SparseVectors

TOKENS = ["cat", "a b", "dog", "dog", "##s", "\u2028", ""]


def test_scores_survive_the_round_trip(tmp_path) -> None:
    rng = np.random.default_rng(0)
    dense = (rng.random((8, 7)) * 3 * (rng.random((8, 7)) < 0.6)).astype(np.float32)
    documents, queries = SparseVectors.from_dense(dense[:5]), SparseVectors.from_dense(dense[5:])
    docs_path, queries_path = tmp_path / "docs_anserini.jsonl", tmp_path / "queries_anserini.tsv"
    texts = ['say "é"', "line\nbreak", "", "\u2028", "tab\t"]
    write_documents(docs_path, zip([f"d{i}" for i in range(5)], texts, documents, strict=True), TOKENS, factor=100)
    write_queries(queries_path, zip(["q0", "q1", "q2"], queries, strict=True), TOKENS, factor=100)
    lines = docs_path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    read = [json.loads(line) for line in lines]
    assert [line["content"] for line in read] == texts and [line["id"] for line in read] == [f"d{i}" for i in range(5)]
    bags = [Counter(line.partition("\t")[2].split()) for line in queries_path.read_text("utf-8").split("\n")[:-1]]
    found = [[sum(n * doc["vector"].get(token, 0) for token, n in bag.items()) for doc in read] for bag in bags]
    impacts = np.rint(dense.astype(np.float64) * 100).astype(int)
    assert found == (impacts[5:] @ impacts[:5].T).tolist()


def test_what_rounds_to_zero_is_dropped() -> None:
    terms, impacts = quantise((np.array([1, 2, 3]), np.array([0.004, 0.006, 1.0], dtype=np.float32)), 100)
    assert (terms.tolist(), impacts.tolist()) == ([2, 3], [1, 100])


def test_empty_vectors_are_counted(tmp_path) -> None:
    empty = (np.zeros(0, np.int32), np.zeros(0, np.float32))
    full = (np.array([0, 2]), np.array([1.0, 0.5]))
    docs = write_documents(tmp_path / "d", [("a", "", empty), ("b", "", full)], TOKENS)
    assert (docs.n_written, docs.empty_ids, docs.mean_terms) == (2, ("a",), 1.0)
    assert json.loads(docs.path.read_text().splitlines()[0])["vector"] == {EMPTY_TOKEN: 1}
    queries = write_queries(tmp_path / "q", [("a", empty), ("b", full)], TOKENS, factor=2)
    assert (queries.n_written, queries.empty_ids) == (1, ("a",))
    assert queries.path.read_text() == "b\tcat cat [term-2]\n"


def test_tokens_that_lucene_would_split_get_names_of_their_own() -> None:
    names = unambiguous_tokens([*TOKENS, "x" * 256])
    assert names == ["cat", "[term-1]", "[term-2]", "[term-3]", "##s", "[term-5]", "[term-6]", "[term-7]"]
    with pytest.raises(DataError, match=r"already holds '\[term-1\]'"):
        unambiguous_tokens(["[term-1]", "a b"])
    with pytest.raises(DataError, match=r"already holds '\[no-term\]'"):
        unambiguous_tokens(["cat", EMPTY_TOKEN])


def test_wrong_input_leaves_no_file(tmp_path) -> None:
    vector = (np.array([0]), np.array([1.0]))
    with pytest.raises(ConfigError, match="must be positive"):
        write_documents(tmp_path / "d", [("a", "", vector)], TOKENS, factor=0)
    with pytest.raises(ConfigError, match="must be positive"):
        quantise(vector, float("nan"))
    with pytest.raises(DataError, match="outside the vocabulary"):
        write_documents(tmp_path / "d", [("a", "", (np.array([7]), np.array([1.0])))], TOKENS)
    for query_id in ("a\tb", "a\nb", ""):
        with pytest.raises(DataError, match="cannot be written to a TSV"):
            write_queries(tmp_path / "q", [(query_id, vector)], TOKENS)
    assert not list(tmp_path.iterdir())


def test_documents_are_alone_in_a_folder_of_their_own(tmp_path):
    documents = tmp_path / "out" / "docs_anserini.jsonl"
    for text in ("one\n", "two\n"):
        documents.parent.mkdir(exist_ok=True)
        documents.unlink(missing_ok=True)
        documents.write_text(text)
        link_alone(documents, tmp_path / "out" / "anserini_collection")
        (alone,) = (tmp_path / "out" / "anserini_collection").iterdir()
        assert alone.read_text() == text and alone.samefile(documents)
        (alone.parent / "old.json").write_text("{}")


def test_the_commands_of_anserini(tmp_path):
    queries = [tmp_path / "my out" / f"queries_anserini{name}.tsv" for name in ("", ".DEV")]
    text = "\n".join(anserini_commands(tmp_path / "docs", queries, tmp_path / "my out"))
    assert text.count("IndexCollection") == 1 and text.count("SearchCollection") == 2
    assert f"-topics '{queries[1]}' -topicReader TsvString" in text
    assert f"-output '{tmp_path}/my out/run.queries_anserini.DEV.txt' -impact -pretokenized" in text


@pytest.fixture
def five_documents(tmp_path):
    path = tmp_path / "collection.tsv"
    path.write_text("".join(f"{name}\ta cat and {n} dogs\n" for n, name in enumerate("abcde")), encoding="utf-8")
    return path


def shards(folder):
    return {path.name: gzip.decompress(path.read_bytes()) for path in sorted(folder.iterdir())}


def test_shards_hold_the_lines_of_one_file_and_are_kept(five_documents, tmp_path, tiny_model):
    model, collection = splade.load(str(tiny_model())), open_collection(str(five_documents))
    vectors = list(with_texts(collection, model.documents.encode_pairs(collection)))
    whole = write_documents(tmp_path / "whole.jsonl", vectors, model.tokens, 100)
    folder = tmp_path / "out" / "anserini_collection"
    folder.mkdir(parents=True)
    (folder / "older.json").write_text("{}")
    written = write_shards(folder, model, collection, 2, 100)
    found = shards(folder)
    assert [*found] == [f"docs_anserini-0000{i}.jsonl.gz" for i in range(3)]
    assert b"".join(found.values()) == whole.path.read_bytes()
    assert (written.n_written, written.empty_ids) == (5, ()) and written.mean_terms == pytest.approx(whole.mean_terms)
    first, second, third = sorted(folder.iterdir())
    second.unlink()
    first.write_bytes(kept := gzip.compress(b"kept, not read"))
    assert write_shards(folder, model, collection, 2, 100) == written
    assert first.read_bytes() == kept and gzip.decompress(second.read_bytes()) == found[second.name]
    write_shards(folder, model, collection, 2, 50)  # other impacts: nothing is kept
    assert shards(folder)[first.name] != found[first.name] and b"cat" in shards(folder)[first.name]
    assert [*shards(folder)] == [*found]


@pytest.mark.parametrize(("kind", "factor"), [("splade", 100), ("splade_doc", 1)])
def test_the_usual_factor_of_queries(kind, factor, five_documents, tmp_path, tiny_model):
    experiment = compose_experiment(
        "own_data",
        [
            f"init_dict.model_type_or_dir={tiny_model()}",
            f"config.matching_type={kind}",
            "config.max_length=16",
            f"config.out_dir={tmp_path}",
            f"data.COLLECTION_PATH={five_documents}",
            f"data.Q_COLLECTION_PATH=[{five_documents},{five_documents}]",
            "config.retrieval_name=[one,two]",
        ],
    )
    summary = create_anserini(experiment).summary()
    first = (tmp_path / "queries_anserini.tsv").read_text().splitlines()[0].partition("\t")[2].split()
    assert (tmp_path / "queries_anserini.tsv").samefile(tmp_path / "queries_anserini.one.tsv")
    assert (tmp_path / "queries_anserini.two.tsv").is_file() and "5 vectors" in summary
    largest = max(Counter(first).values())
    assert largest == 1 if factor == 1 else largest > 1
