"""PyTerrier pipelines of our transformers give what the front door gives."""

import pytest

import splade
from splade.errors import DataError

pt = pytest.importorskip("pyterrier", reason="python-terrier is not installed")
pd = pytest.importorskip("pandas")
from splade.interop.pyterrier_transformers import (  # noqa: E402
    DocumentEncoder,
    QueryEncoder,
    SpladeIndexer,
    SpladeScorer,
    SpladeSearch,
)

DOCUMENTS = [
    {"docno": "d1", "text": "bees make honey"},
    {"docno": "d2", "text": "rain falls on the hills"},
    {"docno": "d3", "text": "honey and rain"},
]
QUERIES = [("q1", "honey of bees"), ("q2", "rain"), ("q3", "honey of bees")]


@pytest.fixture(scope="module")
def model(tiny_model):
    return splade.load(str(tiny_model()))


@pytest.fixture(scope="module")
def queries():
    return pd.DataFrame(QUERIES, columns=["qid", "query"], index=[7, 3, 9])


@pytest.fixture(scope="module")
def expected(model, tmp_path_factory):
    pairs = [(row["docno"], row["text"]) for row in DOCUMENTS]
    index = splade.Index.build(tmp_path_factory.mktemp("index") / "front", model, pairs)
    return dict(splade.Retriever(model, index).retrieve(dict(QUERIES), top_k=2))


def as_run(results):
    run = {}
    for row in results.sort_values(["qid", "rank"]).itertuples():
        assert row.rank == len(run.setdefault(row.qid, {}))
        run[row.qid][row.docno] = row.score
    return run


def test_index_and_search(model, queries, expected, tmp_path):
    search = SpladeIndexer(tmp_path / "index", model).index(iter(DOCUMENTS))
    search.num_results = 2
    assert as_run(search(queries)) == expected
    assert as_run((QueryEncoder(model) >> SpladeSearch(tmp_path / "index", model) % 2)(queries)) == expected
    assert list(search(queries).columns) == ["qid", "query", "docno", "score", "rank"]
    assert len(search(queries.iloc[:0])) == 0


def test_vectors_are_indexed_as_they_are(model, queries, expected, tmp_path):
    pipeline = DocumentEncoder(model) >> SpladeIndexer(tmp_path / "index", model)
    search = pipeline.index(iter(DOCUMENTS))
    assert {query: list(found) for query, found in as_run((search % 2)(queries)).items()} == {
        query: list(found) for query, found in expected.items()
    }
    query = QueryEncoder(model)(queries.iloc[:1])["query_toks"].iloc[0]
    (first, one), (second, two) = list(query.items())[:2]
    heavier = [{"docno": "d9", "toks": {second: 4.0, first: 2.0}}]
    found = SpladeIndexer(tmp_path / "index", model, overwrite=True).index(heavier)(queries.iloc[:1])
    assert as_run(found)["q1"] == {"d9": pytest.approx(2 * one + 4 * two, rel=1e-5)}
    with pytest.raises(DataError, match="'zzz' is not in the model's vocabulary"):
        SpladeIndexer(tmp_path / "other", model).index([{"docno": "d9", "toks": {"zzz": 1.0}}])
    with pytest.raises(DataError, match="no documents"):
        SpladeIndexer(tmp_path / "other", model).index([])


def test_scorer_ranks_what_another_engine_has_found(model, queries, expected):
    found = queries.merge(pd.DataFrame(DOCUMENTS), how="cross").assign(score=0.0, rank=0)
    scored = as_run(SpladeScorer(model)(found))
    assert {query: list(ranking)[:2] for query, ranking in scored.items()} == {q: list(r) for q, r in expected.items()}
    for query, ranking in expected.items():
        assert {doc: scored[query][doc] for doc in ranking} == pytest.approx(ranking, rel=1e-5)


def test_a_frame_without_the_column_is_refused(model, queries):
    with pytest.raises(Exception, match="query"):
        QueryEncoder(model)(queries.drop(columns="query"))
