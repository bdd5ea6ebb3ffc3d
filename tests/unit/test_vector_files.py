"""Vectors in files: what is written is read, an index of them is that of the texts, and what is wrong is named."""

import gzip
import json

import numpy as np
import pytest
import scipy.sparse

import splade
from splade.config import compose_experiment
from splade.errors import ConfigError, DataError
from splade.interop.vector_files import FORMS, VectorFiles
from splade.retrieval.vector_index import index_vectors
from splade.tasks.encode import encode
from splade.tasks.index import index
from splade.vectors import SparseVectors

pa = pytest.importorskip("pyarrow", reason="needs the extra: pip install .[parquet]")
pq = pytest.importorskip("pyarrow.parquet")

TOKENS = ["[PAD]", "cat", "dog", "a b", "bird", "bird"]
VECTORS = SparseVectors.from_rows([([4, 1], [0.5, 1.25]), ([], []), ([2, 3, 5], [3, 0.1, 7])], len(TOKENS))
IDS = ["d1", "7", "é"]


def joined(groups):
    ids, parts = [], []
    for some_ids, vectors in groups:
        ids += some_ids
        parts.append(vectors)
    return ids, SparseVectors.concatenate(parts, len(TOKENS))


def assert_equal(one, other):
    for name in ("indptr", "term_ids", "weights"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_is_read(tmp_path, form):
    FORMS[form].write(tmp_path / f"v.{form}", IDS, VECTORS, TOKENS)
    ids, vectors = joined(VectorFiles(tmp_path / f"v.{form}", TOKENS))
    assert ids == IDS
    assert_equal(vectors, VECTORS)


@pytest.mark.parametrize("form", FORMS)
def test_many_vectors_come_some_at_a_time(tmp_path, form, monkeypatch):
    for module in FORMS.values():
        monkeypatch.setattr(module, "AT_ONCE", 2)
    FORMS[form].write(tmp_path / f"v.{form}", IDS, VECTORS, TOKENS)
    groups = list(VectorFiles(tmp_path / f"v.{form}", TOKENS))
    assert [ids for ids, _ in groups] == [IDS[:2], IDS[2:]]
    assert_equal(joined(groups)[1], VECTORS)


def test_other_programs_read_and_write_them(tmp_path):
    FORMS["npz"].write(tmp_path / "v.npz", IDS, VECTORS, TOKENS)
    assert (scipy.sparse.load_npz(tmp_path / "v.npz") != VECTORS.to_scipy()).nnz == 0
    scipy.sparse.save_npz(tmp_path / "w.npz", VECTORS.to_scipy())
    ids, vectors = joined(VectorFiles(tmp_path / "w.npz", TOKENS))
    assert ids == ["0", "1", "2"]
    assert_equal(vectors, VECTORS)
    FORMS["parquet"].write(tmp_path / "v.parquet", IDS, VECTORS, TOKENS)
    rows = pq.read_table(tmp_path / "v.parquet").to_pylist()
    assert rows[2] == {"doc_id": "é", "term_ids": [2, 3, 5], "weights": [3.0, pytest.approx(0.1), 7.0]}
    # Integers as numbers and ids, terms in any order, zeros.
    table = {"doc_id": [5], "term_ids": [[4, 2, 1]], "weights": [[1, 0, 2]], "more": ["x"]}
    pq.write_table(pa.table(table), tmp_path / "w.parquet")
    ids, vectors = joined(VectorFiles(tmp_path / "w.parquet", TOKENS))
    assert ids == ["5"] and vectors.row(0)[0].tolist() == [1, 4] and vectors.row(0)[1].tolist() == [2, 1]


def test_json_lines_of_anserini_and_unicoil(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write('{"id": "d1", "content": "a cat", "vector": {"cat": 127, "[term-3]": 3}}\n\n')
        file.write('{"id": 7, "contents": "", "vector": {}}\n')
    ids, vectors = joined(VectorFiles(tmp_path, TOKENS))
    assert ids == ["d1", "7"]
    assert dict(zip(*(array.tolist() for array in vectors.row(0)), strict=True)) == {1: 127.0, 3: 3.0}


def table(**columns):
    whole = {"doc_id": ["d"], "term_ids": [[1]], "weights": [[1.0]]}
    return lambda path: pq.write_table(pa.table(whole | columns), path)


def cut(form):
    def write(path):
        FORMS[form].write(path, IDS, VECTORS, TOKENS)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return write


def lines(*values):
    return lambda path: path.write_text("".join(f"{value}\n" for value in values))


def arrays(**changes):
    whole = dict(indices=[1], indptr=[0, 1], format=np.array(b"csr"), shape=[1, len(TOKENS)], data=[1.0])
    return lambda path: np.savez(path, **(whole | changes))


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("v.parquet", cut("parquet"), "not a whole Parquet file"),
        ("v.parquet", lines("no Parquet"), "not a whole Parquet file"),
        ("v.parquet", table(term_ids=[["cat"]]), "term_ids .list of integers.*the file has .*term_ids .list<.*string"),
        ("v.parquet", lambda path: pq.write_table(pa.table({"id": ["d"]}), path), "the file has id"),
        ("v.parquet", table(weights=[None]), "a row has no value|list of floats"),
        ("v.parquet", table(weights=[[None]], term_ids=[[1]]), "missing value|list of floats"),
        ("v.parquet", table(term_ids=[[1, 2]]), "the vector of 'd' has 2 term_ids and 1 weights"),
        ("v.parquet", table(term_ids=[[6]]), "the term 6, outside the vocabulary of 6 terms: another model"),
        ("v.parquet", table(term_ids=[[-1]]), "the term -1, outside the vocabulary"),
        ("v.parquet", table(weights=[[-1.0]]), "a weight that is not finite and positive"),
        ("v.parquet", table(weights=[[float("nan")]]), "a weight that is not finite and positive"),
        ("v.parquet", table(term_ids=[[1, 1]], weights=[[1.0, 2.0]]), "term ids that are not ascending and unique"),
        ("v.parquet", table(doc_id=["a b"]), "whitespace inside the id"),
        ("v.npz", cut("npz"), "not a whole .npz file"),
        ("v.npz", lambda path: np.savez(path, x=[1]), "not a CSR matrix .* it holds x"),
        ("v.npz", arrays(format=np.array(b"csc")), "not a CSR matrix"),
        ("v.npz", arrays(shape=[1, 9]), r"shape \(1, 9\), the vocabulary has 6 terms: another model"),
        ("v.npz", arrays(indptr=[0, 5]), "indptr must ascend"),
        ("v.npz", arrays(doc_ids=np.array(["a", "b"])), "2 doc_ids for 1 vectors"),
        ("v.npz", lambda path: np.savez(path, x=np.array([{}], dtype=object)), "not a whole .npz file"),
        ("v.jsonl", lines("{"), "line 1: not JSON"),
        ("v.jsonl", lines("5"), "line 1: a vector is"),
        ("v.jsonl", lines('{"id": "d", "vector": {"cat": 1}}', '{"id": "e"}'), "line 2: a vector is"),
        ("v.jsonl", lines('{"vector": {}}'), "line 1: a vector is"),
        (
            "v.jsonl",
            lines('{"id": "d", "vector": {"horse": 1}}'),
            "line 1: the token .*horse.* is not in the vocabulary",
        ),
        ("v.jsonl", lines('{"id": "d", "vector": {"cat": "1"}}'), "a weight must be a number"),
        ("v.jsonl", lines('{"id": "d", "vector": {"cat": true}}'), "a weight must be a number"),
        ("v.jsonl", lines('{"id": "d", "vector": {"cat": 1e999}}'), "a weight must be a number"),
        ("v.txt", lines("x"), "vectors are .parquet"),
    ],
)
def test_files_that_are_none(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(DataError, match=message):
        joined(VectorFiles(tmp_path / name, TOKENS))


def test_folders_that_are_none(tmp_path):
    with pytest.raises(DataError, match="no file of vectors"):
        VectorFiles(tmp_path, TOKENS)
    for form in ("npz", "jsonl"):
        FORMS[form].write(tmp_path / f"v.{form}", IDS, VECTORS, TOKENS)
    with pytest.raises(DataError, match="files of several forms"):
        VectorFiles(tmp_path, TOKENS)
    with pytest.raises(DataError, match="nothing"):
        VectorFiles(tmp_path / "nothing", TOKENS)


@pytest.fixture
def experiment(tiny_model, tmp_path):
    """Compose a configuration for a model and thirty documents."""
    texts = [f"d{i}\tthe {word} number {i} of a long list" for i, word in enumerate(["cat", "moon", "printing"] * 10)]
    (tmp_path / "raw.tsv").write_text("".join(f"{line}\n" for line in texts))
    keys = {
        "init_dict.model_type_or_dir": tiny_model(),
        "config.pretrained_no_yamlconfig": "true",
        "config.out_dir": tmp_path / "out",
        "data.COLLECTION_PATH": tmp_path / "raw.tsv",
        "config.max_length": 16,
    }

    def compose(*overrides):
        return compose_experiment("config_default", [*(f"{k}={v}" for k, v in keys.items()), *overrides])

    return compose


@pytest.mark.parametrize("form", FORMS)
def test_an_index_of_vectors_is_that_of_the_texts(experiment, tmp_path, monkeypatch, form):
    monkeypatch.setattr("splade.tasks.encode.PART_SIZE", 8)
    assert "30 vectors in 4 parts" in encode(experiment(f"target={form}")).summary()
    of_texts = index(experiment(f"config.index_dir={tmp_path}/a")).postings
    keys = (f"data.VECTORS_PATH={tmp_path}/out/vectors", "data.COLLECTION_PATH=null", f"config.index_dir={tmp_path}/b")
    of_vectors = index(experiment(*keys)).postings
    assert of_vectors.doc_ids() == of_texts.doc_ids()
    for row in range(30):
        for one, other in zip(of_vectors.vector(row), of_texts.vector(row), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
    model = splade.load(experiment().init_dict.model_type_or_dir, max_length=16)
    hits = splade.Retriever(model, splade.Index.open(tmp_path / "b", model)).search("moon", top_k=3)
    assert len(hits) == 3
    assert of_vectors.metadata["max_length"] == 16
    before = of_vectors.path.stat().st_mtime_ns
    index(experiment(*keys))
    assert of_vectors.path.stat().st_mtime_ns == before  # nothing to do


def test_encoding_goes_on_with_the_parts_that_are_missing(experiment, tmp_path, monkeypatch, tiny_model):
    monkeypatch.setattr("splade.tasks.encode.PART_SIZE", 8)
    encode(experiment())
    folder = tmp_path / "out" / "vectors"
    parts = sorted(folder.glob("part-*.parquet"))
    whole = {part.name: part.read_bytes() for part in parts}
    parts[1].unlink()
    kept = parts[0].stat().st_mtime_ns
    model = splade.load(experiment().init_dict.model_type_or_dir)
    with pytest.raises(DataError, match="parts are missing, such as part-00001.parquet of 4"):
        VectorFiles(folder, model.tokens)
    encode(experiment())
    assert {part.name: part.read_bytes() for part in parts} == whole and parts[0].stat().st_mtime_ns == kept
    with pytest.raises(ConfigError, match="holds vectors of .*config.overwrite=true"):
        encode(experiment("target=npz"))
    encode(experiment("target=npz", "config.overwrite=true"))
    assert not list(folder.glob("*.parquet")) and len(list(folder.glob("*.npz"))) == 4
    other = experiment(f"init_dict.model_type_or_dir={tiny_model(seed=9)}", f"data.VECTORS_PATH={folder}")
    other.config.index_dir = str(tmp_path / "other")
    with pytest.raises(DataError, match="made by another model .* differ in document_encoder"):
        index(other)
    (folder / "vectors.json").write_text(json.dumps({"form": "npz"}))
    with pytest.raises(DataError, match="not what splade.encode writes"):
        VectorFiles(folder, model.tokens)


def test_a_killed_build_goes_on(experiment, tmp_path, monkeypatch):
    from splade.inverted_index import IndexBuilder

    model = splade.load(experiment().init_dict.model_type_or_dir)
    rows = [([i % 50 + 1], [1.0 + i]) for i in range(10)]
    vectors = SparseVectors.from_rows(rows, model.vocab_size)
    for form_number in range(2):
        span = slice(form_number * 5, form_number * 5 + 5)
        ids = [f"d{i}" for i in range(10)][span]
        FORMS["npz"].write(
            tmp_path / "v" / f"{form_number}.npz", ids, vectors.rows(span.start, span.stop), model.tokens
        )
    source = VectorFiles(tmp_path / "v", model.tokens)
    added = []
    real_add = IndexBuilder.add

    def add(self, ids, group):
        if len(added) == 1:
            raise KeyboardInterrupt
        added.append(list(ids))
        real_add(self, ids, group)
        self._flush()

    monkeypatch.setattr(IndexBuilder, "add", add)
    with pytest.raises(KeyboardInterrupt):
        index_vectors(tmp_path / "index", model, source, None, None)
    monkeypatch.setattr(IndexBuilder, "add", real_add)
    made = index_vectors(tmp_path / "index", model, source, None, None)
    assert made.doc_ids() == [f"d{i}" for i in range(10)]
    assert [made.vector(i)[1].tolist() for i in range(10)] == [[1.0 + i] for i in range(10)]


def test_what_encode_does_not_write(experiment):
    with pytest.raises(ConfigError, match="target=onnx: splade.encode writes parquet, npz, jsonl"):
        encode(experiment("target=onnx"))
