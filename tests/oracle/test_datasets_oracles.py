"""The same files through other libraries' readers give the same data."""

import json
import random

import pytest

from splade.datasets.beir import beir_dataset
from splade.datasets.collections import open_collection, open_queries
from splade.datasets.qrels import read_qrels
from splade.datasets.runs import read_run, write_run_trec


@pytest.fixture
def folder(tmp_path):
    random.seed(7)
    words = ["alpha", "béta", "γ", "\u2028", "日本", "x\u0085y", '"quoted"', "back\\slash", "\ttab"]

    def text() -> str:
        return " ".join(random.choices(words, k=8))

    documents = [{"_id": f"d{i}", "title": text() if i % 3 else "", "text": text()} for i in range(60)]
    queries = [{"_id": f"q{i}", "text": text(), "metadata": {}} for i in range(20)]
    for name, records in (("corpus", documents), ("queries", queries)):
        lines = (json.dumps(record, ensure_ascii=bool(i % 2)) + "\n" for i, record in enumerate(records))
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    rows = [f"q{q}\td{d}\t{random.randrange(3)}\n" for q in range(0, 20, 2) for d in random.sample(range(60), 5)]
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return tmp_path


def test_beir_folder_as_beir_reads_it(folder):
    loader = pytest.importorskip("beir.datasets.data_loader")
    corpus, queries, qrels = loader.GenericDataLoader(str(folder)).load(split="test")
    dataset = beir_dataset(folder)
    assert dataset.qrels == qrels
    assert dataset.queries == queries
    texts = {doc_id: (doc["title"] + " " + doc["text"]).strip() for doc_id, doc in corpus.items()}
    assert {doc_id: text.strip() for doc_id, text in open_collection(folder)} == texts
    assert len(open_queries(folder)) == 20


def test_qrels_and_runs_as_ir_measures_reads_them(folder):
    ir_measures = pytest.importorskip("ir_measures")
    qrels = read_qrels(folder)
    (folder / "qrels.trec").write_text("".join(f"{q} 0 {d} {r}\n" for q in qrels for d, r in qrels[q].items()))
    theirs: dict = {}
    for judgement in ir_measures.read_trec_qrels(str(folder / "qrels.trec")):
        theirs.setdefault(judgement.query_id, {})[judgement.doc_id] = judgement.relevance
    assert read_qrels(folder / "qrels.trec") == theirs == qrels

    run = {f"q{q}": {f"d{d}": random.gauss(0, 1) for d in range(30)} for q in range(5)}
    write_run_trec(folder / "run.trec", run, tag="x")
    retrieved: dict = {}
    for scored in ir_measures.read_trec_run(str(folder / "run.trec")):
        retrieved.setdefault(scored.query_id, {})[scored.doc_id] = scored.score
    assert read_run(folder / "run.trec") == retrieved == run
