"""What vectors are exported to other systems as: those systems give the scores of the quantised vectors."""

import json
import resource
from collections import Counter

import numpy as np
import pytest

from splade.errors import ConfigError, DataError, WriteError
from splade.interop.targets import TARGETS
from splade.interop.vector_files import VectorFiles
from splade.inverted_index import IndexBuilder, open_index
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.inverted_index.sharded import join_shards
from splade.vectors import SparseVectors

TOKENS = ["cat", "a b", "##s", "dog", "Ünı", "unused", "zebra", "ant"]
N_DOCS = 40
FACTOR = 50


@pytest.fixture(scope="module")
def dense():
    """Weights of documents, the last one empty, and of queries; one term occurs nowhere."""
    rng = np.random.default_rng(0)
    made = (rng.random((N_DOCS + 5, len(TOKENS))) * 4 * (rng.random((N_DOCS + 5, len(TOKENS))) < 0.5)).astype(
        np.float32
    )
    made[:, TOKENS.index("unused")] = 0
    made[N_DOCS - 1] = 0
    return made[:N_DOCS], made[N_DOCS:]


def build(folder, dense, first=0):
    builder = IndexBuilder(folder, len(TOKENS))
    builder.add([f"d{first + i}" for i in range(len(dense))], SparseVectors.from_dense(dense))
    builder.finish()


@pytest.fixture(scope="module", params=["one file", "shards"])
def vectors(request, dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    if request.param == "one file":
        build(folder, dense[0])
    else:
        build(folder / "a", dense[0][:25])
        build(folder / "b", dense[0][25:], first=25)
        join_shards(folder, [folder / "a" / "index.h5", folder / "b" / "index.h5"])
    return IndexedVectors(open_index(folder))


def queries(dense):
    return [([f"q{i}" for i in range(len(dense[1]))], SparseVectors.from_dense(dense[1]))]


def exact_scores(dense):
    documents, asked = (np.rint(part.astype(np.float64) * FACTOR) for part in dense)
    return asked @ documents.T


def assert_scores(found, exact):
    """`found` are the rankings of the queries: document number to score."""
    assert len(found) == len(exact)
    for ranking, scores in zip(found, exact, strict=True):
        assert ranking == {doc: score for doc, score in enumerate(scores) if score > 0}


def test_vectors_of_an_index_by_document_and_by_term(vectors, dense):
    groups = list(vectors.by_document())
    assert [doc_id for ids, _ in groups for doc_id in ids] == [f"d{i}" for i in range(N_DOCS)]
    joined = SparseVectors.concatenate([rows for _, rows in groups], len(TOKENS))
    np.testing.assert_array_equal(joined.to_dense(), dense[0])
    by_term = np.zeros_like(dense[0])
    for term, docs, impacts in vectors.by_term(range(len(TOKENS))):
        by_term[docs, term] = impacts
    np.testing.assert_array_equal(by_term, dense[0])


@pytest.fixture
def ciff(vectors, dense, tmp_path):
    pytest.importorskip("ciff_toolkit", reason="pip install --no-deps ciff-toolkit")
    written = TARGETS["ciff"].export_documents(tmp_path, vectors, TOKENS, FACTOR)
    assert (written.n_vectors, written.n_empty, written.empty) == (N_DOCS, 1, (f"d{N_DOCS - 1}",))
    TARGETS["ciff"].export_queries(tmp_path, "test", queries(dense), TOKENS, FACTOR)
    return tmp_path


def test_ciff_holds_the_quantised_vectors(ciff, dense):
    from ciff_toolkit.read import CiffReader

    with CiffReader(ciff / "documents.ciff") as reader:
        terms = [message.term for message in reader.read_postings_lists()]
        lengths = [record.doclength for record in reader.read_documents()]
    assert terms == sorted(terms, key=str.encode) and "unused" not in terms and "[term-1]" in terms
    impacts = np.rint(dense[0].astype(np.float64) * FACTOR)
    assert lengths == impacts.sum(axis=1).tolist()
    groups = list(VectorFiles(ciff / "documents.ciff", TOKENS))
    np.testing.assert_array_equal(groups[0][1].to_dense(), impacts)
    assert groups[0][0] == [f"d{i}" for i in range(N_DOCS)]


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_no_room_for_the_documents(target, vectors, tmp_path):
    if target == "ciff":
        pytest.importorskip("ciff_toolkit")
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, largest[1]))
    try:
        with pytest.raises(WriteError, match="File too large"):
            TARGETS[target].export_documents(tmp_path, vectors, TOKENS, FACTOR)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, largest)
    assert not list(tmp_path.rglob("*.part"))


def test_bmp_reads_ciff(ciff, dense):
    bmp = pytest.importorskip("bmp", reason="pip install bmp")
    bmp.ciff2bmp(ciff_file=str(ciff / "documents.ciff"), output=str(ciff / "bmp"), bsize=8, compress_range=False)
    searcher = bmp.Searcher(str(ciff / "bmp"))
    impacts = np.rint(dense[0].astype(np.float64) * FACTOR)
    for terms in ((0,), (2, 4), (1, 3, 6), (7, 0, 2, 4)):  # of equal weight: BMP rounds those of queries once more
        names = ["[term-1]" if term == 1 else TOKENS[term] for term in terms]
        doc_ids, scores = searcher.search(dict.fromkeys(names, 1.0), k=5, alpha=1.0, beta=1.0)
        exact = impacts[:, list(terms)].sum(axis=1)
        scale = scores[0] / exact.max()
        assert [exact[int(doc_id[1:])] * scale for doc_id in doc_ids] == pytest.approx(scores)
        assert scores == pytest.approx((np.sort(exact)[::-1][:5] * scale).tolist())


def test_a_cut_or_foreign_ciff_is_refused(ciff):
    whole = (ciff / "documents.ciff").read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 3):
        (ciff / "cut.ciff").write_bytes(whole[:length])
        with pytest.raises(DataError, match="not a whole CIFF file|not as many postings"):
            list(VectorFiles(ciff / "cut.ciff", TOKENS))
    with pytest.raises(DataError, match="'zebra' is not in the vocabulary"):
        list(VectorFiles(ciff / "documents.ciff", [token.replace("zebra", "lion") for token in TOKENS]))


@pytest.fixture
def pisa(vectors, dense, tmp_path):
    TARGETS["pisa"].export_documents(tmp_path, vectors, TOKENS, FACTOR)
    TARGETS["pisa"].export_queries(tmp_path, "test", queries(dense), TOKENS, FACTOR)
    return tmp_path


def sequences(path):
    numbers, found, place = np.fromfile(path, "<u4"), [], 0
    while place < len(numbers):
        found.append(numbers[place + 1 : place + 1 + numbers[place]].tolist())
        place += 1 + numbers[place]
    return found


def test_pisas_files_hold_the_quantised_vectors(pisa, dense):
    (count,), *docs = sequences(pisa / "inv.docs")
    impacts, names = sequences(pisa / "inv.freqs"), (pisa / "fwd.terms").read_text("utf-8").splitlines()
    assert count == N_DOCS and len(docs) == len(impacts) == len(names)
    quantised = np.zeros((N_DOCS, len(names)))
    for column, (numbers, of_term) in enumerate(zip(docs, impacts, strict=True)):
        quantised[numbers, column] = of_term
    asked = np.zeros((len(dense[1]), len(names)))
    for line in (pisa / "test.pisa").read_text().splitlines():
        query_id, _, numbers = line.partition(":")
        for number in numbers.split():
            asked[int(query_id[1:]), int(number)] += 1
    np.testing.assert_array_equal(asked @ quantised.T, exact_scores(dense))
    assert sequences(pisa / "inv.sizes") == [quantised.sum(axis=1).tolist()]
    assert "-b 40" in (pisa / "evaluate.sh").read_text()


def test_pisa_itself_searches_them(pisa, dense):
    pyterrier_pisa = pytest.importorskip("pyterrier_pisa", reason="pip install pyterrier-pisa")
    pd = pytest.importorskip("pandas")
    for names, lexicon in (("terms", "termlex"), ("documents", "doclex")):
        pyterrier_pisa._pisathon.build_binlex(str(pisa / f"fwd.{names}"), str(pisa / f"fwd.{lexicon}"))
    names = (pisa / "fwd.terms").read_text("utf-8").splitlines()
    rows = []
    for line in (pisa / "test.pisa").read_text().splitlines():
        query_id, _, numbers = line.partition(":")
        rows.append({"qid": query_id, "query_toks": dict(Counter(names[int(number)] for number in numbers.split()))})
    index = pyterrier_pisa.PisaIndex(str(pisa), stemmer="none", stops="none")
    search = pyterrier_pisa.PisaRetrieve(
        index,
        "quantized",
        num_results=N_DOCS,
        stops="none",
        query_algorithm="block_max_wand",
        toks_scale=1,
        block_size=40,
    )
    found = [{} for _ in rows]
    for hit in search(pd.DataFrame(rows)).itertuples():
        found[int(hit.qid[1:])][int(hit.docno[1:])] = hit.score
    assert_scores(found, exact_scores(dense))


@pytest.mark.parametrize("target", ["anserini", "ciff", "pisa"])
def test_ids_that_do_not_fit_and_wrong_factors_are_refused(vectors, tmp_path, target):
    if target == "ciff":
        pytest.importorskip("ciff_toolkit")
    with pytest.raises(ConfigError, match="factor must be positive"):
        TARGETS[target].export_documents(tmp_path, vectors, TOKENS, 0)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    TARGETS[target].export_documents(tmp_path, vectors, TOKENS, 1)
    with pytest.raises(DataError, match="id"):
        TARGETS[target].export_queries(tmp_path, "q", [(["a\nb"], SparseVectors.from_rows([([0], [1])], 8))], TOKENS, 1)


def export(target, vectors, dense, folder):
    TARGETS[target].export_documents(folder, vectors, TOKENS, 1)
    TARGETS[target].export_queries(folder, "test", queries(dense), TOKENS, 1)
    return [json.loads(line) for line in (folder / "test.jsonl").read_text("utf-8").splitlines()]


def test_seismic_builds_an_index_of_its_lines(vectors, dense, tmp_path):
    seismic = pytest.importorskip("seismic", reason="pip install pyseismic-lsr")
    asked = export("seismic", vectors, dense, tmp_path)
    index = seismic.SeismicIndex.build(str(tmp_path / "documents.jsonl"), n_postings=N_DOCS, doc_cut=99, num_threads=1)
    for query, scores in zip(asked, dense[1] @ dense[0].T, strict=True):
        names, weights = np.array(list(query["vector"])), np.array(list(query["vector"].values()), np.float32)
        hits = index.search(query["id"], names.astype(seismic.get_seismic_string()), weights, 1, 99, 0.7)
        assert hits[0][2] == f"d{scores.argmax()}" and hits[0][1] == pytest.approx(scores.max(), rel=0.02)


def test_qdrant_itself_takes_the_requests(vectors, dense, tmp_path, monkeypatch):
    client_library = pytest.importorskip("qdrant_client", reason="pip install qdrant-client")
    monkeypatch.setattr("splade.interop.qdrant.AT_ONCE", 15)
    asked, models = export("qdrant", vectors, dense, tmp_path), client_library.models
    client = client_library.QdrantClient(":memory:")
    made = json.loads((tmp_path / "collection.json").read_text())
    kinds = {name: models.SparseVectorParams(**about) for name, about in made["sparse_vectors"].items()}
    client.create_collection("toy", vectors_config=made["vectors"], sparse_vectors_config=kinds)
    parts = sorted(tmp_path.glob("points.*.json"))
    assert len(parts) == 3
    for part in parts:
        client.upsert("toy", [models.PointStruct(**point) for point in json.loads(part.read_text())["points"]])
    for query, scores in zip(asked, dense[1] @ dense[0].T, strict=True):
        body = query["body"] | {"query": models.SparseVector(**query["body"]["query"])}
        hits = client.query_points("toy", **body).points
        order = np.argsort(-scores, kind="stable")[: len(hits)]
        assert [hit.payload["doc_id"] for hit in hits] == [f"d{i}" for i in order]
        assert [hit.score for hit in hits] == pytest.approx(scores[order].tolist(), rel=1e-5)


def test_opensearch_bulk_requests_and_searches(vectors, dense, tmp_path, monkeypatch):
    """No server runs here: the bodies are read as its documentation describes them."""
    monkeypatch.setattr("splade.interop.opensearch.AT_ONCE", 15)
    asked = export("opensearch", vectors, dense, tmp_path)
    assert json.loads((tmp_path / "index.json").read_text())["mappings"]["properties"]["vector"] == {
        "type": "rank_features"
    }
    parts = sorted(tmp_path.glob("bulk.*.ndjson"))
    lines = [json.loads(line) for part in parts for line in part.read_text("utf-8").splitlines()]
    actions, entries = lines[::2], lines[1::2]
    assert len(parts) == 3 and [action["index"]["_id"] for action in actions] == [f"d{i}" for i in range(N_DOCS)]
    assert "vector" not in entries[-1] and all(
        "." not in token for entry in entries for token in entry.get("vector", ())
    )
    for query, scores in zip(asked, dense[1] @ dense[0].T, strict=True):
        bag = query["body"]["query"]["neural_sparse"]["vector"]["query_tokens"]
        found = [
            sum(weight * entry.get("vector", {}).get(token, 0) for token, weight in bag.items()) for entry in entries
        ]
        assert found == pytest.approx(scores.tolist(), rel=1e-5)
