"""An index in shards answers as one index of all documents does, to the last bit; what does not fit is refused."""

import json
import shutil

import numpy as np
import pytest

from splade.errors import DataError, IndexFileError
from splade.inverted_index import IndexBuilder, InvertedIndex, ShardedIndex, delete_documents, open_index
from splade.inverted_index.sharded import join_shards
from splade.vectors import SparseVectors

VOCAB = 60


def random_vectors(n, seed):
    """Weights of few values, so that there are many ties, and terms of very different frequency."""
    rng = np.random.default_rng(seed)
    there = rng.random((n, VOCAB)) < np.geomspace(0.7, 0.02, VOCAB)
    return SparseVectors.from_dense((rng.integers(1, 9, (n, VOCAB)) / np.float32(7) * there).astype(np.float32))


def build(path, vectors, first=0, prefix="d", metadata=None):
    builder = IndexBuilder(path.parent / f"of-{path.name}", VOCAB, metadata or {"model": "m"})
    builder.add([f"{prefix}{i}" for i in range(first, first + len(vectors))], vectors)
    made = builder.finish().path
    path.parent.mkdir(exist_ok=True)
    return made.replace(path)


VECTORS = random_vectors(3000, 0)
CUTS = [0, 700, 705, 2000, 3000]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    files = [
        build(folder / "shards" / f"{number}.h5", VECTORS.rows(start, stop), start)
        for number, (start, stop) in enumerate(zip(CUTS[:-1], CUTS[1:], strict=True))
    ]
    join_shards(folder, files)
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return InvertedIndex.open(build(tmp_path_factory.mktemp("one") / "all.h5", VECTORS))


@pytest.mark.parametrize("top_k", [1, 10, 3000])
@pytest.mark.parametrize("n_threads", [1, 3, 50])
def test_it_ranks_and_scores_as_one_index(folder, one, top_k, n_threads):
    queries = random_vectors(40, 1)
    found, expected = open_index(folder).search(queries, top_k, n_threads=n_threads), one.search(queries, top_k)
    assert found.indptr.tolist() == expected.indptr.tolist()
    assert found.doc_idx.tolist() == expected.doc_idx.tolist()
    assert found.scores.tobytes() == expected.scores.tobytes()
    assert len(np.unique(found.scores)) < len(found.scores) or top_k == 1  # there were ties


def test_a_shard_by_its_own_statistics_would_give_other_last_bits(folder, one):
    queries = random_vectors(200, 2)
    alone, differ = InvertedIndex.open(folder / "shards" / "3.h5"), 0
    for (docs, scores), (all_docs, all_scores) in zip(
        map(alone.search(queries, 1000).row, range(200)), map(one.search(queries, 3000).row, range(200)), strict=True
    ):
        expected = dict(zip(all_docs.tolist(), all_scores.tolist(), strict=True))
        differ += any(
            expected[doc + CUTS[3]] != score for doc, score in zip(docs.tolist(), scores.tolist(), strict=True)
        )
    assert differ


def test_it_knows_what_one_index_knows(folder, one):
    index = open_index(folder)
    assert isinstance(index, ShardedIndex)
    assert index.doc_ids() == one.doc_ids() and index.doc_ids(np.array([699, 700, 2999])) == ["d699", "d700", "d2999"]
    assert index.doc_id(704) == "d704" and index.known_doc_ids(["d5", "d2001", "x"]) == {"d5", "d2001"}
    assert index.posting_counts.tolist() == one.posting_counts.tolist()
    for doc_idx in (0, 700, 2999):
        for mine, theirs in zip(index.vector(doc_idx), one.vector(doc_idx), strict=True):
            assert mine.tolist() == theirs.tolist()
        terms = np.arange(VOCAB, dtype=np.int32)
        assert index.impacts(doc_idx, terms)[1].tolist() == one.impacts(doc_idx, terms)[1].tolist()
    assert (index.n_docs, index.n_postings, index.mean_terms) == (one.n_docs, one.n_postings, one.mean_terms)
    assert index.describe()["n_shards"] == 4
    index.verify()
    with pytest.raises(DataError, match="document number 3000: the index holds 0 to 2999"):
        index.doc_id(3000)


def test_a_document_in_two_shards(tmp_path):
    files = [build(tmp_path / f"{number}.h5", VECTORS.rows(0, 5), first=number * 4) for number in range(2)]
    with pytest.raises(DataError, match="'d4' occurs twice, as documents 4 and 5"):
        join_shards(tmp_path, files)
    assert not (tmp_path / "shards.json").exists()


def test_shards_of_two_models(tmp_path):
    files = [build(tmp_path / f"{name}.h5", VECTORS.rows(0, 5), prefix=name, metadata={"model": name}) for name in "ab"]
    with pytest.raises(IndexFileError, match=r"b\.h5: of another model"):
        join_shards(tmp_path, files)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_another_file_in_a_shards_place(copy):
    shutil.copy(copy / "shards" / "0.h5", copy / "shards" / "1.h5")
    with pytest.raises(IndexFileError, match=r"1\.h5: is not the shard"):
        open_index(copy)


@pytest.mark.parametrize("damage", [b"x", None])
def test_a_damaged_or_missing_shard(copy, damage):
    file = copy / "shards" / "2.h5"
    file.write_bytes(file.read_bytes()[:-1] + damage) if damage else file.unlink()
    with pytest.raises(IndexFileError, match=r"2\.h5: (truncated or damaged|cannot be opened)"):
        open_index(copy)


@pytest.mark.parametrize("change", [{"shards": []}, {"shards": [{"file": "../0.h5", "n_docs": 1, "seal": ""}]}, None])
def test_a_manifest_that_cannot_be(copy, change):
    said = json.loads((copy / "shards.json").read_text())
    (copy / "shards.json").write_text("[" if change is None else json.dumps(said | change))
    with pytest.raises(IndexFileError, match="not what indexing in shards writes"):
        open_index(copy)


def test_it_is_not_changed(copy):
    with pytest.raises(IndexFileError, match="an index in shards, which is not changed"):
        delete_documents(copy, ["d1"])
