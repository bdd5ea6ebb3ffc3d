"""What Anserini reads must score as the quantised vectors do."""

import gzip
import importlib.util
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from splade.config import compose_experiment
from splade.errors import ConfigError, DataError
from splade.interop.anserini import (
    anserini_commands,
    join_queries,
    link_alone,
    quantise,
    unambiguous_tokens,
    write_documents,
    write_queries,
)
from splade.tasks.create_anserini import create_anserini, factor_of_queries
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
    assert (docs.n_vectors, docs.empty, docs.mean_terms) == (2, ("a",), 1.0)
    assert json.loads(docs.path.read_text().splitlines()[0])["vector"] == {"[empty]": 1}
    queries = write_queries(tmp_path / "q", [("a", empty), ("b", full)], TOKENS, factor=2)
    assert (queries.n_vectors, queries.n_empty) == (2, 1)
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


@pytest.fixture
def shards(tiny_model, tmp_path):
    """Return a function that makes shards of five documents, the third of which is empty."""
    texts = ["a cat sat", "a dog", "", "the green bird flies", "cat and dog"]
    (tmp_path / "c.tsv").write_text("".join(f"d{i}\t{text}\n" for i, text in enumerate(texts)))
    (tmp_path / "q.tsv").write_text("q1\tcat\n")
    given = [f"init_dict.model_type_or_dir={tiny_model()}", "config.max_length=16", f"config.out_dir={tmp_path}/out"]
    given += [f"data.COLLECTION_PATH={tmp_path}/c.tsv", f"data.Q_COLLECTION_PATH=[{tmp_path}/q.tsv]"]

    def make(*keys):
        result = create_anserini(compose_experiment("own_data", [*given, *keys]))
        folder = tmp_path / "out" / "anserini_collection"
        return result, {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    return make


def test_shards_are_compressed_and_go_on_where_they_were(shards, tmp_path) -> None:
    result, made = shards("shard_size=2")
    assert list(made) == [f"docs_anserini.0000{i}.jsonl.gz" for i in range(3)]
    ids = [json.loads(line)["id"] for part in made.values() for line in gzip.decompress(part).decode().splitlines()]
    assert ids == [f"d{i}" for i in range(5)] and "5 vectors" in result.text
    folder = tmp_path / "out" / "anserini_collection"
    first, stamp = folder / "docs_anserini.00000.jsonl.gz", 10**9
    os.utime(first, (stamp, stamp))
    (folder / "docs_anserini.00001.jsonl.gz").unlink()
    (tmp_path / "out" / "anserini_shards" / "00002.json").unlink()  # killed before it was counted
    (folder / "left over").write_text("")
    again, remade = shards("shard_size=2")
    assert remade == made and first.stat().st_mtime == stamp and again.text == result.text

    _, other = shards("shard_size=2", "quantization_factor_document=50")
    assert other.keys() == made.keys() and other != made
    _, alone = shards()
    assert list(alone) == ["docs_anserini.jsonl"]


def test_queries_of_several_files_in_one(tmp_path) -> None:
    for name, text in {"a": "1\tcat\n", "b": "1\tcat\n2\tdog\n", "c": "2\tcat\n"}.items():
        (tmp_path / name).write_text(text)
    assert join_queries(tmp_path / "all", [tmp_path / "a", tmp_path / "b"])
    assert (tmp_path / "all").read_text() == "1\tcat\n2\tdog\n"
    assert not join_queries(tmp_path / "none", [tmp_path / "b", tmp_path / "c"])
    assert not (tmp_path / "none").exists()


def test_queries_of_weight_one_are_not_repeated() -> None:
    for overrides, factor in (([], 100), (["config.matching_type=splade_doc"], 1)):
        assert factor_of_queries(compose_experiment("own_data", overrides)) == factor
    given = ["config.matching_type=splade_doc", "quantization_factor_query=7"]
    assert factor_of_queries(compose_experiment("own_data", given)) == 7


def test_anserini_itself_gives_the_scores_of_the_quantised_vectors(tmp_path) -> None:
    found = importlib.util.find_spec("pyserini")
    places = list(found.submodule_search_locations or []) if found else []
    jars = [jar for place in places for jar in Path(place).glob("resources/jars/anserini-0.22.1-fatjar.jar")]
    java = shutil.which("java")
    if not jars or java is None:
        pytest.skip("needs Java and the jar of: pip install --no-deps pyserini==0.22.1")
    rng = np.random.default_rng(0)
    dense = (rng.random((9, 7)) * 3 * (rng.random((9, 7)) < 0.6)).astype(np.float32)
    dense[5] = 0
    documents, queries = SparseVectors.from_dense(dense[:6]), SparseVectors.from_dense(dense[6:])
    triples = [(f"d{i}", "", row) for i, row in enumerate(documents)]
    for name, some in (("a.jsonl.gz", triples[:4]), ("b.jsonl", triples[4:])):
        write_documents(tmp_path / "docs" / name, some, TOKENS, 100)
    write_queries(tmp_path / "q.tsv", zip(["q0", "q1", "q2"], queries, strict=True), TOKENS, factor=100)
    program = [java, "-Xmx1g", "-cp", str(jars[0])]
    index = [*program, "io.anserini.index.IndexCollection", "-collection", "JsonVectorCollection", "-threads", "1"]
    index += ["-input", str(tmp_path / "docs"), "-index", str(tmp_path / "index"), "-impact", "-pretokenized"]
    done = subprocess.run([*index, "-generator", "DefaultLuceneDocumentGenerator"], capture_output=True, text=True)
    assert "Total 6 documents indexed" in done.stdout, done.stdout + done.stderr
    search = [*program, "io.anserini.search.SearchCollection", "-index", str(tmp_path / "index"), "-impact"]
    search += ["-topics", str(tmp_path / "q.tsv"), "-topicreader", "TsvString", "-output", str(tmp_path / "run")]
    subprocess.run([*search, "-pretokenized", "-hits", "6", "-parallelism", "1"], capture_output=True, check=True)
    run = {}
    for line in (tmp_path / "run").read_text().splitlines():
        query_id, _, doc_id, _, score, _ = line.split()
        run.setdefault(query_id, {})[doc_id] = float(score)
    impacts = np.rint(dense.astype(np.float64) * 100)
    for i, scores in enumerate(impacts[6:] @ impacts[:6].T):
        exact = {f"d{doc}": score for doc, score in enumerate(scores) if score}
        assert run[f"q{i}"] == {doc: pytest.approx(score, abs=0.01) for doc, score in exact.items()}
