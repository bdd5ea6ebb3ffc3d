"""Static pruning keeps exactly what its definition says, of an index and of JSON lines, and says what it costs."""

import gzip
import json

import numpy as np
import pytest

import splade
from splade.config import compose_experiment
from splade.errors import ConfigError, DataError, IndexFileError
from splade.interop.jsonl_pruning import prune_lines
from splade.inverted_index import IndexBuilder, InvertedIndex
from splade.inverted_index import layout as index_layout
from splade.inverted_index.prune import Pruning, prune_index
from splade.inverted_index.sharded import join_shards
from splade.tasks.prune import STUDY, prune
from splade.vectors import SparseVectors

N_DOCS, N_TERMS = 300, 40
SETTINGS = [
    Pruning(value_to_prune=1.0),
    Pruning(size_to_prune=7),
    Pruning(quantile=0.75),
    Pruning(longest_list=20),
    Pruning(idf_to_prune=1.0),
    Pruning(value_to_prune=0.5, size_to_prune=9, quantile=0.3, longest_list=90, idf_to_prune=0.3),
]


@pytest.fixture(scope="module")
def impacts():
    """Whole numbers with many ties; the last document is empty."""
    rng = np.random.default_rng(0)
    dense = rng.integers(1, 6, (N_DOCS, N_TERMS)) * (rng.random((N_DOCS, N_TERMS)) < rng.random(N_TERMS))
    dense[-1] = 0
    return dense.astype(np.float32)


@pytest.fixture(scope="module")
def index_dir(impacts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    builder = IndexBuilder(folder, N_TERMS, {"model": "none"}, "impacts")
    builder.add([f"d{i}" for i in range(N_DOCS)], SparseVectors.from_dense(impacts))
    builder.finish()
    return folder


def first_largest(values, most):
    mask = np.zeros(len(values), np.bool_)
    mask[np.argsort(-values, kind="stable")[:most]] = True
    return mask


def by_definition(dense, pruning):
    kept = dense > 0
    if pruning.value_to_prune is not None:
        kept &= dense >= pruning.value_to_prune * dense[dense > 0].mean(dtype=np.float64)
    if pruning.idf_to_prune is not None:
        n_docs, df = len(dense), (dense > 0).sum(axis=0)
        products = dense * np.log(1 + (n_docs - df + 0.5) / (df + 0.5))
        kept &= products >= pruning.idf_to_prune * products[dense > 0].mean(dtype=np.float64)
    if pruning.size_to_prune is not None:
        kept &= np.array([first_largest(row, pruning.size_to_prune) for row in dense])
    for term, column in enumerate(dense.T):
        length = int((column > 0).sum())
        most = length - int((pruning.quantile or 0) * length)
        kept[:, term] &= first_largest(column, min(most, pruning.longest_list or length))
    return dense * kept


def rows(index):
    dense = np.zeros((index.n_docs, index.vocab_size), np.float32)
    for i in range(index.n_docs):
        terms, weights = index.vector(i)
        dense[i, terms] = weights
    return dense


@pytest.mark.parametrize("pruning", SETTINGS, ids=lambda pruning: pruning.name)
def test_an_index_keeps_what_the_definition_says(impacts, index_dir, tmp_path, pruning, monkeypatch):
    monkeypatch.setattr("splade.inverted_index.merge._RANGE_POSTINGS", 500)  # several ranges of terms
    pruned = prune_index(index_dir, tmp_path, pruning)
    expected = by_definition(impacts, pruning)
    np.testing.assert_array_equal(rows(pruned), expected)
    assert pruned.n_empty == (expected.sum(axis=1) == 0).sum() and pruned.doc_ids() == [f"d{i}" for i in range(N_DOCS)]
    pruned.verify()


@pytest.mark.parametrize("pruning", SETTINGS, ids=lambda pruning: pruning.name)
def test_shards_give_the_file_that_the_whole_index_gives(impacts, index_dir, tmp_path, pruning, monkeypatch):
    monkeypatch.setattr("splade.inverted_index.merge._RANGE_POSTINGS", 500)
    for number, docs in enumerate((slice(0, 170), slice(170, N_DOCS))):
        builder = IndexBuilder(tmp_path / f"s{number}", N_TERMS, {"model": "none"}, "impacts")
        builder.add([f"d{i}" for i in range(N_DOCS)[docs]], SparseVectors.from_dense(impacts[docs]))
        builder.finish()
    join_shards(tmp_path, [tmp_path / f"s{number}" / "index.h5" for number in range(2)])
    whole, pruned = prune_index(index_dir, tmp_path / "a", pruning), prune_index(tmp_path, tmp_path / "b", pruning)
    assert pruned.path.read_bytes() == whole.path.read_bytes()


def test_documents_of_several_windows(tmp_path):
    n_docs = (1 << index_layout.WINDOW_BITS) + 10
    weights = np.tile(np.float32([1, 3, 2]), n_docs)
    vectors = SparseVectors(np.arange(n_docs + 1) * 3, np.tile(np.int32([0, 1, 2]), n_docs), weights, 3)
    builder = IndexBuilder(tmp_path / "whole", 3)
    builder.add(list(map(str, range(n_docs))), vectors)
    builder.finish()
    pruned = prune_index(tmp_path / "whole", tmp_path / "pruned", Pruning(size_to_prune=2))
    assert pruned.posting_counts.tolist() == [0, n_docs, n_docs]
    assert pruned.vector(n_docs - 1)[1].tolist() == [3, 2]


@pytest.mark.parametrize("pruning", SETTINGS, ids=lambda pruning: pruning.name)
def test_json_lines_keep_the_same(impacts, tmp_path, pruning):
    bags = [{f"t{t}": int(row[t]) for t in np.flatnonzero(row)} for row in impacts]
    lines = [json.dumps({"id": f"d{i}", "content": f"text {i}", "vector": bag}) for i, bag in enumerate(bags)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines[:100]) + "\n")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write("\n".join(lines[100:]) + "\n")
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"]
    counts = prune_lines(files, tmp_path / "out", pruning)
    written = (tmp_path / "out/a.jsonl").read_text() + gzip.open(tmp_path / "out/b.jsonl.gz", "rt").read()
    read = [json.loads(line) for line in written.splitlines()]
    expected = by_definition(impacts, pruning)
    for i, (entry, row) in enumerate(zip(read, expected, strict=True)):
        assert entry["id"] == f"d{i}" and entry["content"] == f"text {i}"
        assert entry["vector"] == {f"t{t}": row[t] for t in np.flatnonzero(row)}
    assert (counts.n_docs, counts.n_before, counts.n_after) == (N_DOCS, (impacts > 0).sum(), (expected > 0).sum())


def test_a_finished_one_is_not_pruned_again_and_another_is_not_replaced(index_dir, tmp_path):
    first = prune_index(index_dir, tmp_path, Pruning(size_to_prune=3))
    written = first.path.stat().st_mtime_ns
    assert prune_index(index_dir, tmp_path, Pruning(size_to_prune=3)).path.stat().st_mtime_ns == written
    with pytest.raises(IndexFileError, match="is another index"):
        prune_index(index_dir, tmp_path, Pruning(size_to_prune=4))
    again = prune_index(index_dir, tmp_path, Pruning(size_to_prune=4), overwrite=True)
    assert again.metadata == {"model": "none", "pruned": [{"size_to_prune": 4}]}
    with pytest.raises(IndexFileError, match="is to be pruned"):
        prune_index(tmp_path, tmp_path, Pruning(size_to_prune=2), overwrite=True)
    with pytest.raises(DataError, match="leaves no posting"):
        prune_index(index_dir, tmp_path / "none", Pruning(value_to_prune=50))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """An index of three documents, with queries and qrels."""
    folder = tmp_path_factory.mktemp("searched")
    pairs = [("d1", "A cat sat on the mat."), ("d2", "Dogs bark at night."), ("d3", "Birds sing in spring.")]
    (folder / "docs.tsv").write_text("".join(f"{doc_id}\t{text}\n" for doc_id, text in pairs))
    (folder / "queries.tsv").write_text("q1\tnoisy dog\nq2\tcat\n")
    (folder / "qrels.json").write_text('{"q1": {"d2": 1}, "q2": {"d1": 1}}')
    model = splade.load("pkg://cognition/model")
    splade.Index.build(folder / "index", model, folder / "docs.tsv")
    return folder


def task(searched, out_dir, *more, queries=True):
    given = [
        f"data.Q_COLLECTION_PATH={searched / 'queries.tsv'}",
        f"data.EVAL_QREL_PATH={searched / 'qrels.json'}",
        "config.retrieval_name=[toy]",
        "config.eval_metric=[[mrr_10]]",
    ]
    overrides = [f"config.index_dir={searched / 'index'}", f"config.out_dir={out_dir}", *more]
    return prune(compose_experiment("own_data", overrides + (given if queries else [])))


def test_one_setting_is_evaluated_and_the_result_is_an_index_of_the_model(searched, tmp_path):
    result = task(searched, tmp_path, "size_to_prune=8")
    assert "MRR@10 1.0000" in result.text and "8.0 terms per document" in result.text
    assert result.figures()[0].metrics == {"mrr_10": 1.0}
    model = splade.load("pkg://cognition/model")
    index = splade.Index.open(tmp_path / "index", model)
    assert splade.Retriever(model, index).search("noisy dog", top_k=1)[0].doc_id == "d2"
    assert (tmp_path / "index/origin.json").is_file()
    with pytest.raises(IndexFileError, match="pruned"):
        splade.Index.build(tmp_path / "index", model, searched / "docs.tsv")


def test_without_a_setting_all_of_the_study_side_by_side(searched, tmp_path):
    result = task(searched, tmp_path)
    assert len(result.rows) == 1 + len(STUDY) + 3 and result.rows[0].setting == "as it is"
    table = json.loads((tmp_path / "pruning.json").read_text())["rows"]
    by_setting = {row["pruning"]: row for row in table}
    assert by_setting["as it is"]["postings left"] == 1 and by_setting["size_to_prune=4"]["terms /doc"] == 4
    assert (tmp_path / "pruning.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "quantile-0.85/index/index.h5").is_file()


def test_without_queries_sizes_alone_and_no_model(searched, tmp_path, monkeypatch):
    monkeypatch.setattr("splade.tasks.prune.load_model_of_index", None)
    result = task(searched, tmp_path, "quantile=0.5", queries=False)
    assert result.figures()[0].metrics == {} and InvertedIndex.open(tmp_path / "index").n_docs == 3


def test_vectors_of_any_vocabulary(searched, tmp_path):
    (tmp_path / "unicoil.jsonl").write_text('{"id": 1, "contents": "x", "vector": {"any": 3, "##thing": 9}}\n')
    given = f"data.VECTORS_PATH={tmp_path / 'unicoil.jsonl'}"
    assert "1.0 terms each of 2.0" in task(searched, tmp_path / "out", "size_to_prune=1", given).text
    line = json.loads((tmp_path / "out/vectors/unicoil.jsonl").read_text())
    assert line == {"id": 1, "contents": "x", "vector": {"##thing": 9}}
    with pytest.raises(ConfigError, match="have one setting"):
        task(searched, tmp_path / "out", given)
    with pytest.raises(DataError, match="jsonl vectors are needed"):
        (tmp_path / "v.npz").write_bytes(b"")
        task(searched, tmp_path / "out", "size_to_prune=1", f"data.VECTORS_PATH={tmp_path / 'v.npz'}")
