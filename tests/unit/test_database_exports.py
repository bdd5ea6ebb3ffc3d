"""Sending vectors to OpenSearch, Qdrant and Milvus: the latter two search them here.

OpenSearch itself is not run: a server on the loopback answers as its documentation says.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import splade
from splade.config import compose_experiment
from splade.errors import ConfigError
from splade.interop import milvus_rows, opensearch, qdrant
from splade.interop.upload import UPLOADS, upload_milvus, upload_opensearch, upload_qdrant
from splade.inverted_index import IndexBuilder, open_index
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.tasks.export import export as export_task
from splade.vectors import SparseVectors

TOKENS = ["cat", "a b", ".", "##s", "dog", "3.5", "unused", "zebra"]
N_DOCS = 23


@pytest.fixture(scope="module")
def dense():
    """Weights of documents, the last one empty, and of queries."""
    rng = np.random.default_rng(0)
    shape = (N_DOCS + 4, len(TOKENS))
    made = (rng.random(shape) * 4 * (rng.random(shape) < 0.6)).astype(np.float32)
    made[:, TOKENS.index("unused")] = 0
    made[N_DOCS - 1] = 0
    return made[:N_DOCS], made[N_DOCS:]


@pytest.fixture(scope="module")
def vectors(dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    builder = IndexBuilder(folder, len(TOKENS))
    builder.add([f"d{i}" for i in range(N_DOCS)], SparseVectors.from_dense(dense[0]))
    builder.finish()
    return IndexedVectors(open_index(folder))


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    for target in (milvus_rows, opensearch, qdrant):
        monkeypatch.setattr(target, "AT_ONCE", 10)


def export(target, folder, vectors, dense):
    written = target.export_documents(folder, vectors, TOKENS, 1.0)
    assert (written.n_vectors, written.empty) == (N_DOCS, (f"d{N_DOCS - 1}",))
    groups = [([f"q{i}" for i in range(len(dense[1]))], SparseVectors.from_dense(dense[1]))]
    target.export_queries(folder, "asked", groups, TOKENS, 1.0)
    return [json.loads(line) for line in (folder / "asked.jsonl").read_text("utf-8").splitlines()]


def best(dense, query, k=5):
    scores = dense[0] @ dense[1][query]
    return {f"d{i}": pytest.approx(scores[i], rel=1e-4) for i in np.argsort(-scores, kind="stable")[:k] if scores[i]}


def test_qdrant_itself_finds_the_best(vectors, dense, tmp_path):
    client_library = pytest.importorskip("qdrant_client", reason="pip install 'splade[qdrant]'")
    queries = export(qdrant, tmp_path / "files", vectors, dense)
    assert len(list((tmp_path / "files").glob("points.*.json"))) == 3
    for _ in range(2):  # the second time, what is there is replaced
        upload_qdrant(tmp_path / "files", str(tmp_path / "store"), "toy")
    client = client_library.QdrantClient(path=str(tmp_path / "store"))
    assert client.count("toy").count == N_DOCS
    for number, query in enumerate(queries):
        asked = client_library.models.SparseVector(**query["body"]["query"])
        hits = client.query_points("toy", query=asked, using=qdrant.VECTOR, limit=5).points
        assert {hit.payload["doc_id"]: hit.score for hit in hits} == best(dense, number)
    client.close()


def test_milvus_itself_finds_the_best(vectors, dense, tmp_path):
    library = pytest.importorskip("pymilvus", reason="pip install 'splade[milvus]'")
    pytest.importorskip("milvus_lite", reason="pip install 'splade[milvus]'")
    queries = export(milvus_rows, tmp_path / "files", vectors, dense)
    for _ in range(2):
        upload_milvus(tmp_path / "files", str(tmp_path / "milvus.db"), "toy")
    client = library.MilvusClient(str(tmp_path / "milvus.db"))
    for number, query in enumerate(queries):
        vector = {int(term): weight for term, weight in query["vector"].items()}
        (hits,) = client.search("toy", data=[vector], anns_field="vector", limit=5, output_fields=["doc_id"])
        assert {hit["entity"]["doc_id"]: hit["distance"] for hit in hits} == best(dense, number)
    client.close()


def test_the_task_sends_the_documents_and_refuses_to_send_files(tmp_path, tiny_model):
    library = pytest.importorskip("qdrant_client", reason="pip install 'splade[qdrant]'")
    model = splade.load(str(tiny_model()))
    splade.Index.build(tmp_path / "index", model, [("a", "bees make honey"), ("b", "rain falls")])
    (tmp_path / "queries.tsv").write_text("q\thoney\n")
    keys = ["target=qdrant", f"config.index_dir={tmp_path / 'index'}", f"config.out_dir={tmp_path / 'out'}"]
    keys += [f"data.Q_COLLECTION_PATH=[{tmp_path / 'queries.tsv'}]", "config.retrieval_name=[asked]"]
    keys += [f"export.uri={tmp_path / 'store'}", "export.collection=toy"]
    text = export_task(compose_experiment("own_data", keys)).summary()
    assert f"documents sent to 'toy' at {tmp_path / 'store'}" in text
    assert {path.name for path in (tmp_path / "out" / "qdrant").iterdir()} >= {"asked.jsonl", "points.00000.json"}
    client = library.QdrantClient(path=str(tmp_path / "store"))
    assert client.count("toy").count == 2
    client.close()
    with pytest.raises(ConfigError, match="pisa is files; documents can be sent to opensearch, qdrant, milvus"):
        export_task(compose_experiment("own_data", [*keys, "target=pisa"]))


class OpenSearchStub(BaseHTTPRequestHandler):
    """Answers the requests that an upload makes, and keeps the documents."""

    def do_HEAD(self):  # noqa: N802
        self.answer(200 if self.server.mapping else 404)

    def do_PUT(self):  # noqa: N802
        self.server.mapping = json.loads(self.body())
        self.answer(200, {"acknowledged": True})

    def do_POST(self):  # noqa: N802
        lines = [json.loads(line) for line in self.body().splitlines()]
        items, errors = [], False
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            item = {"_id": action["index"]["_id"], "status": 201}
            if item["_id"] == self.server.refuses:
                item |= {"status": 400, "error": {"type": "mapper_parsing_exception"}}
                errors = True
            self.server.documents[item["_id"]] = document
            items.append({"index": item})
        self.server.paths.append(self.path)
        self.answer(200, {"errors": errors, "items": items})

    def body(self):
        return self.rfile.read(int(self.headers["Content-Length"])).decode("utf-8")

    def answer(self, status, content=None):
        body = json.dumps(content).encode() if content is not None else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), OpenSearchStub)
    server.mapping, server.documents, server.paths, server.refuses = None, {}, [], None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


def test_opensearch_gets_the_vectors_under_names_without_dots(vectors, dense, server, tmp_path):
    pytest.importorskip("opensearchpy", reason="pip install 'splade[opensearch]'")
    queries = export(opensearch, tmp_path, vectors, dense)
    upload_opensearch(tmp_path, server.url, "toy")
    assert server.mapping == opensearch.MAPPING
    assert len(server.paths) == 3 and set(server.paths) == {"/toy/_bulk"} and len(server.documents) == N_DOCS
    for number, query in enumerate(queries):
        asked = query["body"]["query"]["neural_sparse"]["vector"]["query_tokens"]
        assert not any("." in name for name in asked)
        scores = {
            doc_id: sum(weight * document.get("vector", {}).get(name, 0) for name, weight in asked.items())
            for doc_id, document in server.documents.items()
        }
        expected = (dense[0] @ dense[1][number]).tolist()
        assert scores == pytest.approx({f"d{i}": score for i, score in enumerate(expected)}, rel=1e-4)
    server.refuses = "d3"
    with pytest.raises(ConfigError, match="document 'd3' is refused: .*mapper_parsing_exception"):
        upload_opensearch(tmp_path, server.url, "toy")


@pytest.mark.parametrize(
    ("name", "target", "library"), [("opensearch", opensearch, "opensearchpy"), ("qdrant", qdrant, "qdrant_client")]
)
def test_nobody_answers(name, target, library, vectors, dense, tmp_path):
    pytest.importorskip(library)
    export(target, tmp_path, vectors, dense)
    with pytest.raises(ConfigError, match="at http://127.0.0.1:9"):
        UPLOADS[name](tmp_path, "http://127.0.0.1:9", "toy")
