"""What Anserini reads must score as the quantised vectors do."""

import json
from collections import Counter

import numpy as np
import pytest

from splade.errors import ConfigError, DataError
from splade.interop.anserini import (
    anserini_commands,
    link_alone,
    quantise,
    unambiguous_tokens,
    write_documents,
    write_queries,
)
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
    assert (docs.n_written, docs.n_empty, docs.mean_terms) == (2, 1, 1.0)
    queries = write_queries(tmp_path / "q", [("a", empty), ("b", full)], TOKENS, factor=2)
    assert (queries.n_written, queries.n_empty) == (1, 1)
    assert queries.path.read_text() == "b\tcat cat [term-2]\n"


def test_tokens_that_lucene_would_split_get_names_of_their_own() -> None:
    names = unambiguous_tokens([*TOKENS, "x" * 256])
    assert names == ["cat", "[term-1]", "[term-2]", "[term-3]", "##s", "[term-5]", "[term-6]", "[term-7]"]
    with pytest.raises(DataError, match=r"already holds '\[term-1\]'"):
        unambiguous_tokens(["[term-1]", "a b"])


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
