"""Judgements and runs: formats told apart by content, one meaning whatever the format, faults with their place."""

import gzip
import json

import numpy as np
import pytest

from splade.datasets import nested_json
from splade.datasets.nested_json import iterate_nested
from splade.datasets.qrels import read_qrels
from splade.datasets.runs import read_run, write_run_json, write_run_trec
from splade.errors import DataError

QRELS = {"q1": {"d1": 1, "d2": 0}, "q2": {"d3": 2}}
QRELS_FILES = {
    "qrels.json": json.dumps(QRELS),
    "indented.json": json.dumps(QRELS, indent=2),
    "bom.json": "\ufeff" + json.dumps(QRELS),
    "floats.json": '{"q1": {"d1": 1.0, "d2": 0.0}, "q2": {"d3": 2.0}}',
    "qrels.trec": "q1 0 d1 1\r\nq1 0 d2 0\r\nq2 0 d3 2\r\n",
    "qrels.tab": "q1\t0\td1\t1\nq1\t0\td2\t0\n\nq2\t0\td3\t2\n",
    "test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td3\t2\n",
    "headless.tsv": "q1\td1\t1\nq1\td2\t0\nq2\td3\t2\n",
    "test.jsonl": "".join(
        json.dumps({"query-id": q, "corpus-id": d, "score": s}) + "\n" for q in QRELS for d, s in QRELS[q].items()
    ),
}


@pytest.mark.parametrize("name", QRELS_FILES)
@pytest.mark.parametrize("compress", [False, True])
def test_every_form_of_qrels_gives_the_same(tmp_path, name, compress):
    path = tmp_path / name
    content = QRELS_FILES[name].encode()
    path.write_bytes(gzip.compress(content) if compress else content)
    assert read_qrels(path) == QRELS


def test_qrels_of_a_beir_folder(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text(QRELS_FILES["test.tsv"])
    (tmp_path / "qrels" / "train.jsonl").write_text('{"query-id": "a", "corpus-id": "b", "score": 1}\n')
    assert read_qrels(tmp_path) == QRELS
    assert read_qrels(tmp_path / "qrels", split="train") == {"a": {"b": 1}}
    with pytest.raises(DataError, match="'dev'.*holds test.tsv, train.jsonl"):
        read_qrels(tmp_path, split="dev")


def test_qrels_from_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"query-id": ["q1", "q1", "q2"], "corpus-id": ["d1", "d2", "d3"], "score": [1, 0, 2]})
    (tmp_path / "qrels").mkdir()
    pq.write_table(table, tmp_path / "qrels" / "test-00000-of-00001.parquet")
    assert read_qrels(tmp_path) == QRELS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("{}", "no judgements"),
        ("query-id\tcorpus-id\tscore\n", "no judgements"),
        ("q1 0 d1 1\nq1 0 d2\n", "line 2: 3 columns"),
        ("q1 0 d1 1\nq1 0 d1 2\n", "line 2: document 'd1' is judged twice"),
        ("q1 0 d1 relevant\n", "line 1: the relevance must be a whole number, got 'relevant'"),
        ("q1 0 d1 0.5\n", "line 1: the relevance must be a whole number"),
        ("q1 Q0 d1 1 3.5 tag\n", "six columns are a run"),
        ("q1\t0\td1 \t1\n", "line 1: whitespace around the id 'd1 '"),
        ('{"q1": {"d1": 1}', "cut short"),
        ('{"q1": {"d1": 1}, "q2": ["d3"]}', "'q2': expected an object"),
        ('{"q1": {"d1": "1"}}', "'q1': 'd1': expected a finite number, got '1'"),
        ('{"q1": {"d1": true}}', "expected a finite number, got True"),
        ('{"q1": {" d1": 1}}', "'q1': whitespace around the id ' d1'"),
        ('{"q1": {"d1": 1, "d1": 1}}', "'q1': the id 'd1' occurs twice"),
        ('{"q1": {"d1": 1}} {"q2": {}}', "something follows"),
        ('{"query-id": "q1", "corpus": "d1", "score": 1}\n', "line 1: expected the keys"),
    ],
)
def test_wrong_qrels(tmp_path, content, message):
    path = tmp_path / "qrels"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_qrels(path)


RUN = {"q1": {"d3": 2.5, "d1": 2.5, "d2": 0.1 + 0.2}, "q2": {"d9": -1e-30}}


def test_json_and_trec_give_the_same_run_in_rank_order(tmp_path):
    unordered = {"q1": {"d2": 0.1 + 0.2, "d3": 2.5, "d1": 2.5}, "q2": {"d9": -1e-30}}
    write_run_json(tmp_path / "run.json", unordered)
    write_run_trec(tmp_path / "run.trec", iter(unordered.items()), tag="x")
    for name in ("run.json", "run.trec"):
        run = read_run(tmp_path / name)
        assert run == RUN
        assert [list(scores) for scores in run.values()] == [["d3", "d1", "d2"], ["d9"]]
    assert json.loads((tmp_path / "run.json").read_text()) == RUN


def test_numpy_scores_are_written_as_plain_numbers(tmp_path):
    run = {"q": {"d": np.float32(0.1)}}
    write_run_json(tmp_path / "run.json", run)
    write_run_trec(tmp_path / "run.trec", run, tag="x")
    assert read_run(tmp_path / "run.json") == read_run(tmp_path / "run.trec") == {"q": {"d": float(np.float32(0.1))}}


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_not_written(tmp_path, score):
    for write in (write_run_json, lambda path, run: write_run_trec(path, run, tag="x")):
        with pytest.raises(DataError, match="query 'q', document 'd'"):
            write(tmp_path / "run", {"q": {"d": score}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("query_id", "doc_id", "tag"), [("q 1", "d", "t"), ("q", "d\u2003", "t"), ("q", "d", "")])
def test_columns_of_a_trec_run_hold_no_blanks(tmp_path, query_id, doc_id, tag):
    with pytest.raises(DataError, match="cannot stand in a TREC run"):
        write_run_trec(tmp_path / "run", {query_id: {doc_id: 1.0}}, tag=tag)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the run is empty"),
        ("{}", "the run is empty"),
        ("q1 0 d1 1\n", "four columns are qrels"),
        ("q1 Q0 d1 1 3.5 x\nq1 Q0 d1 2 3.4 x\n", "line 2: document 'd1' occurs twice"),
        ("q1 Q0 d1 1 3.5 x\nq2 Q0 d1 1 3 x\nq1 Q0 d2 2 3.4 x\n", "line 3: query 'q1' was already finished"),
        ("q1 Q0 d1 1 high x\n", "line 1: the score must be a finite number, got 'high'"),
        ("q1 Q0 d1 1 nan x\n", "line 1: the score must be a finite number, got 'nan'"),
        ('{"q1": {"d1": NaN}}', "finite number, got nan"),
        ('{"q1": {"d1": 1}, "q1": {"d2": 1}}', "'q1' occurs twice"),
    ],
)
def test_wrong_runs(tmp_path, content, message):
    path = tmp_path / "run"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_run(path)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64])
def test_nested_json_does_not_depend_on_where_pieces_end(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(nested_json, "PIECE", piece)
    value = {"é€x": {'}"{': -1.5e-3, "b\\": 12345}, "empty": {}, "日本": {"x": 0}}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        path = tmp_path / "x.json"
        path.write_text(text, encoding="utf-8")
        assert {key: dict(pairs) for key, pairs in iterate_nested(path)} == value


@pytest.mark.parametrize("piece", [3, 1 << 20])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"q1": {"d1": 1}, "q2": {"d1" 2}, "q3": {}}', "character 31.*':' delimiter.*there is '2}"),
        ('{"q1": {"d1": 1}, "q2: {}}', "Unterminated string"),
        ('{"q1" {"d1": 1}}', "character 7: expected ':'"),
        ('["q1"]', "expected '{'"),
        ("{1: {}}", "expected a key in quotes|not JSON"),
        ('{"q1": {"d1": {"x": 1}}}', "expected a finite number, got an object"),
        ('{"q1": ' + "[" * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_faults_in_nested_json(tmp_path, monkeypatch, piece, text, message):
    monkeypatch.setattr(nested_json, "PIECE", piece)
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(iterate_nested(path))


def test_nested_json_that_is_not_utf8(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'{"q\xe9": {}}')
    with pytest.raises(DataError, match="byte 4 is not UTF-8"):
        list(iterate_nested(path))
