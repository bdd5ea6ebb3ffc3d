"""The server: right answers to many at once, and a clear answer to whatever else comes."""

import http.client
import json
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
import uvicorn

import splade
from splade.errors import ConfigError
from splade.inverted_index.layout import INDEX_FILE
from splade.server import app as app_module
from splade.server.app import Server, make_app
from splade.server.requests import Limits
from splade.server.service import SearchService
from splade.tasks.serve import _listen, is_loopback

WORDS = "the sky is blue because air scatters short waves more than long ones and cats see it at night".split()
TEXTS = {f"d{i}": " ".join(WORDS[i % 7 :: 1 + i % 5]) + f" {WORDS[i % len(WORDS)]}" for i in range(60)}
TEXTS["<b>x</b>"] = "<script>alert(1)</script> sky\x00\x1b[31m blue"
QUERIES = ["why is the sky blue", "cats at night", "long waves", "air", "the"]


class Texts:
    def get(self, doc_id):
        return TEXTS.get(doc_id)


@pytest.fixture(scope="module")
def model(tiny_model_of_words):
    return splade.load(tiny_model_of_words)


@pytest.fixture(scope="module")
def tiny_model_of_words(tmp_path_factory, request):
    return str(request.getfixturevalue("tiny_model")())


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "index"
    splade.Index.build(folder, model, TEXTS.items())
    return folder


class Running:
    """A server in a thread of this process."""

    def __init__(self, server, loopback=True):
        self.state = server
        config = uvicorn.Config(make_app(server, loopback), log_level="critical", http="h11", ws="none")
        self.server = uvicorn.Server(config)
        self.socket = _listen("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def ask(self, method, path, body=None, headers=None):
        """Return status and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            found = response.read()
            if response.getheader("Content-Type", "").startswith("application/json"):
                found = json.loads(found)
            return response.status, found
        finally:
            connection.close()

    def post(self, path, **fields):
        return self.ask("POST", path, json.dumps(fields))

    def stop(self):
        self.server.should_exit = True
        self.thread.join(20)
        self.socket.close()
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def running(model, folder):
    started = Running(
        Server(
            {"index": SearchService(model, folder, lambda _: Texts())}, limits=Limits(characters=500, texts=4, top_k=50)
        )
    )
    yield started
    started.stop()


def offline(model, folder, query, top_k=10):
    return splade.Retriever(model, splade.Index.open(folder, model)).search(query, top_k)


def test_a_search_is_what_the_retriever_finds_with_terms_that_add_up(running, model, folder):
    for query in QUERIES:
        status, found = running.post("/search", query=query, explain=True)
        expected = offline(model, folder, query)
        assert status == 200 and found["documents"] == len(TEXTS) and found["exact"]
        assert [hit["doc_id"] for hit in found["hits"]] == [hit.doc_id for hit in expected]
        for hit, right in zip(found["hits"], expected, strict=True):
            assert hit["score"] == pytest.approx(right.score, rel=1e-5)
            assert sum(term["score"] for term in hit["terms"]) == pytest.approx(hit["score"], rel=1e-4)
            assert hit["text"] == TEXTS[hit["doc_id"]]
        weights = [word["weight"] for word in found["expansion"]]
        assert weights == sorted(weights, reverse=True) and found["postings"] > 0


def test_a_score_is_explained_by_the_tokens_behind_its_terms(running):
    _, found = running.post("/search", query="why is the sky blue", top_k=2)
    hit = found["hits"][1]
    status, told = running.post("/explain", query="why is the sky blue", doc_id=hit["doc_id"])
    assert status == 200 and told["agrees"] and told["score"] == pytest.approx(hit["score"], rel=1e-4)
    assert sum(part["share"] for part in told["terms"]) == pytest.approx(1)
    assert all(part["query_from"]["position"] >= 0 and part["doc_from"]["token"] for part in told["terms"])
    assert running.post("/explain", query="air", text="air")[0] == 200
    for wrong in ({}, {"doc_id": "x", "text": "y"}, {"doc_id": "none"}, {"text": 1}, {"text": "a", "more": 1}):
        status, answer = running.post("/explain", query="air", **wrong)
        assert status == 400 and answer["error"]


def test_marks_are_words_of_the_text(running, monkeypatch):
    every = "splade.server.service.matching_tokens"  # of a random model, few terms matter much
    monkeypatch.setattr(every, lambda explanation: {part.token for part in explanation.contributions})
    _, found = running.post("/search", query="why is the sky blue", explain=True)
    marks = [(hit["text"], mark) for hit in found["hits"] for mark in hit["marks"]]
    assert marks
    for text, mark in marks:
        assert text[mark["start"] : mark["stop"]].isalnum()


def test_an_address_asks_the_same(running):
    status, found = running.ask("GET", "/search?" + urlencode({"q": "cats at night", "k": 3, "effort": 1}))
    assert status == 200 and len(found["hits"]) == 3
    assert found["hits"] == running.post("/search", query="cats at night", top_k=3)[1]["hits"]


def test_terms_are_left_out_and_weighted(running, model):
    plain = running.post("/search", query="cats at night", explain=True)[1]
    token = plain["expansion"][0]["token"]
    without = running.post("/search", query="cats at night", explain=True, factors={token: 0})[1]
    assert all(term["token"] != token for hit in without["hits"] for term in hit["terms"])
    assert without["expansion"][0]["factor"] == 0 and without["postings"] < plain["postings"]
    doubled = running.post("/search", query="cats at night", factors={w["token"]: 2 for w in plain["expansion"]})[1]
    expected = {hit["doc_id"]: 2 * hit["score"] for hit in plain["hits"]}
    assert {hit["doc_id"]: hit["score"] for hit in doubled["hits"]} == pytest.approx(expected, rel=1e-5)
    nothing = running.post(
        "/search", query="air", factors={w["token"]: 0 for w in running.post("/search", query="air")[1]["expansion"]}
    )
    assert nothing[0] == 200 and nothing[1]["hits"] == []


def test_texts_are_encoded_as_the_model_does(running, model):
    texts = ["a cat", "the blue sky", ""]
    for side, encode in (("document", model.encode_documents), ("query", model.encode_queries)):
        expected = encode(texts)
        status, rows = running.post("/embed_sparse", inputs=texts, prompt_name=side)
        assert status == 200 and [[entry["index"] for entry in row] for row in rows] == [
            row[0].tolist() for row in expected
        ]
        values = [entry["value"] for row in rows for entry in row]
        assert values == pytest.approx(expected.weights.tolist(), rel=1e-5)
        _, bags = running.post("/encode", inputs=texts, side=side)
        assert [len(bag) for bag in bags] == [len(row) for row in rows]
    assert running.post("/embed_sparse", inputs="a cat")[1] == running.post("/embed_sparse", inputs=["a cat"])[1]


def test_many_at_once_get_what_each_asked_for(running, model, folder):
    expected = {query: [hit.doc_id for hit in offline(model, folder, query, 5)] for query in QUERIES}
    before = running.state.served["index"].searches.n_batches, running.state.served["index"].searches.n_items
    with ThreadPoolExecutor(16) as pool:
        asked = QUERIES * 20
        answers = list(pool.map(lambda query: running.post("/search", query=query, top_k=5), asked))
    for query, (status, found) in zip(asked, answers, strict=True):
        assert status == 200 and found["query"] == query
        assert [hit["doc_id"] for hit in found["hits"]] == expected[query]
    batches, texts = (
        running.state.served["index"].searches.n_batches - before[0],
        running.state.served["index"].searches.n_items - before[1],
    )
    assert texts == len(asked) and batches < texts


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[1]", 400, "object"),
        (b"{}", 400, "query: must be a string"),
        (b'{"query": "  "}', 400, "blank"),
        (b'{"query": 5}', 400, "query"),
        (b'{"query": "\\ud800"}', 400, "half a character"),
        (json.dumps({"query": "x" * 501}).encode(), 400, "501 characters; at most 500"),
        (json.dumps({"query": "x" * 1_000_001}).encode(), 413, "larger than"),
        (b'{"query": "a", "top_k": 0}', 400, "top_k: must be an integer from 1 to 50"),
        (b'{"query": "a", "top_k": 51}', 400, "top_k"),
        (b'{"query": "a", "top_k": true}', 400, "top_k"),
        (b'{"query": "a", "top_k": 1e99}', 400, "top_k"),
        (b'{"query": "a", "effort": NaN}', 400, "effort"),
        (b'{"query": "a", "effort": 0}', 400, "effort"),
        (b'{"query": "a", "factors": {"x": -1}}', 400, "factors"),
        (b'{"query": "a", "factors": {"x": Infinity}}', 400, "factors"),
        (b'{"query": "a", "factors": {"no such token": 1}}', 400, "no term"),
        (b'{"query": "a", "factors": []}', 400, "factors"),
        (b'{"query": "a", "explain": 1}', 400, "explain"),
        (b'{"query": "a", "topk": 1}', 400, "no such field"),
    ],
)
def test_what_is_asked_wrongly_is_told(running, body, status, reason):
    found = running.ask("POST", "/search", body)
    assert found[0] == status and reason in found[1]["error"]
    assert running.post("/search", query="air")[0] == 200


@pytest.mark.parametrize("inputs", [None, 5, [], ["a", 1], ["a"] * 5, "x" * 501])
def test_what_cannot_be_encoded_is_told(running, inputs):
    status, found = running.post("/embed_sparse", inputs=inputs)
    assert status == 400 and found["error"].startswith("inputs: ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", "/page.js/../../app.py", 404),
        ("DELETE", "/search", 405),
        ("GET", "/search?q=a&k=nonsense", 400),
        ("GET", "/search?q=a&k=" + "9" * 5000, 400),
        ("GET", "/search", 400),
        ("GET", "/search?q=%00%1b%5B31m", 200),
    ],
)
def test_addresses_lead_nowhere_else(running, method, path, status):
    assert running.ask(method, path)[0] == status


def test_texts_of_documents_and_queries_are_never_markup(running):
    status, page = running.ask("GET", "/")
    assert status == 200 and b"<script src=" in page and b"http" not in page.replace(b"http-equiv", b"")
    _, script = running.ask("GET", "/page.js")
    assert b"innerHTML" not in script and b"insertAdjacentHTML" not in script and b"document.write" not in script
    connection = http.client.HTTPConnection("127.0.0.1", running.port)
    connection.request("GET", "/")
    policy = connection.getresponse().getheader("Content-Security-Policy")
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy


def test_a_page_of_another_site_cannot_ask(running):
    assert running.ask("GET", "/search?q=a", headers={"Host": "attacker.example"})[0] == 400


def malformed(number):
    """Return a request that cannot be answered, another one for every number."""
    rng = np.random.default_rng(number)
    path = ["/search", "/explain", "/encode", "/embed_sparse"][number % 4]
    good = json.dumps({"query": "air", "more": number} if number % 4 < 2 else {"inputs": number}).encode()
    bodies = [
        good,
        good[: rng.integers(0, len(good))],
        rng.bytes(rng.integers(1, 200)),
        json.dumps({"query": [number], "inputs": {"a": number}, "doc_id": None}).encode(),
        b"[" * (number + 1),
    ]
    body = bodies[number % 5]
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    lines = [
        head + body,
        head.replace(b"HTTP/1.1", b"HTTP/%d" % (number + 2)) + body,
        b"".join([b"POST /", rng.bytes(20).replace(b"\n", b""), b" HTTP/1.1\r\nHost: localhost\r\n\r\n"]),
        head.replace(b"Content-Length: ", b"Content-Length: -") + body,
        head.replace(b"Host: localhost", b"Host: elsewhere") + body,
        f"GET /search?q={'%FF' * 5}&k={number}x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(),
        f"GET /{'../' * (number % 9 + 1)}etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(),
    ]
    return lines[number % 7]


def test_2000_malformed_requests_do_no_harm(running):
    def status(number):
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
            connection.sendall(malformed(number))
            return int(connection.makefile("rb").readline().split()[1])

    with ThreadPoolExecutor(8) as pool:
        found = Counter(pool.map(status, range(2000)))
    assert sum(found.values()) == 2000 and all(400 <= code < 500 for code in found), found
    with socket.create_connection(("127.0.0.1", running.port)) as half_open:
        half_open.sendall(b"GET /se")
        assert running.post("/search", query="air")[0] == 200


def test_a_body_that_does_not_come_is_not_waited_for(running, monkeypatch):
    monkeypatch.setattr(app_module, "BODY_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", running.port)) as slow:
        slow.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        assert slow.recv(100).startswith(b"HTTP/1.1 408")


def test_health_metrics_and_the_description(running):
    status, health = running.ask("GET", "/health")
    assert status == 200 and (health["status"], health["documents"]) == ("ok", len(TEXTS))
    assert b'splade_requests_total{path="/health",status="200"}' in running.ask("GET", "/metrics")[1]
    description = running.ask("GET", "/openapi.json")[1]
    assert set(description["paths"]) == {"/search", "/explain", "/encode", "/embed_sparse", "/health", "/metrics"}
    fields = description["paths"]["/search"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert fields["properties"]["top_k"]["maximum"] == 50


def test_a_token_is_wanted_where_others_can_reach_it(model, folder):
    guarded = Running(Server({"index": SearchService(model, folder)}, token="s3cret"), loopback=False)
    try:
        assert guarded.ask("GET", "/")[0] == guarded.ask("GET", "/health")[0] == 200
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "s3cret"},
            {"Authorization": "Bearer é"},
        ):
            headers = {name: value.encode("latin-1") for name, value in headers.items()}
            assert guarded.ask("GET", "/search?q=a", headers=headers)[0] == 401
        status, found = guarded.ask("GET", "/search?q=air", headers={"Authorization": "Bearer s3cret"})
        assert status == 200 and "text" not in found["hits"][0]
    finally:
        guarded.stop()


def test_too_often_and_too_many(model, folder):
    limited = Running(Server({"index": SearchService(model, folder)}, per_second=0.3))
    try:
        assert [limited.ask("GET", "/search?q=a")[0] for _ in range(5)] == [200, 200, 200, 429, 429]
        limited.state.per_second, limited.state.at_once = 0, 0
        assert limited.ask("GET", "/search?q=a")[0] == 503
        assert limited.ask("GET", "/health")[0] == 200
    finally:
        limited.stop()


def test_an_index_that_is_built_again_is_taken_and_a_damaged_one_is_not(model, tmp_path):
    folder = tmp_path / "index"
    splade.Index.build(folder, model, list(TEXTS.items())[:20])
    service = SearchService(model, folder)
    assert service.reload() is False
    splade.Index.open(folder, model).delete(["d1", "d2"])
    assert service.reload() is True and service.health()["documents"] == 18
    whole = (folder / INDEX_FILE).read_bytes()
    (folder / "damaged").write_bytes(whole[: len(whole) // 2])
    (folder / "damaged").replace(folder / INDEX_FILE)
    assert service.reload() is False
    assert service.health()["status"] == "degraded" and "opened before" in service.health()["problem"]
    assert service.health()["documents"] == 18
    (folder / INDEX_FILE).unlink()
    assert service.reload() is False and "No such file" in service.health()["problem"]
    (folder / "again").write_bytes(whole)
    (folder / "again").replace(folder / INDEX_FILE)
    assert service.reload() is True and service.health()["status"] == "ok"


def test_one_text_at_fault_spoils_no_other(running):
    with ThreadPoolExecutor(8) as pool:
        bodies = [json.dumps({"query": "air" if i % 2 else "\ud800"}) for i in range(16)]
        found = list(pool.map(lambda body: running.ask("POST", "/search", body)[0], bodies))
    assert found == [400, 200] * 8


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_which_addresses_are_of_this_machine_alone(host, expected):
    assert is_loopback(host) is expected


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(running):
    with pytest.raises(ConfigError, match=rf"serve.port={running.port}.*serve.port=0"):
        _listen("127.0.0.1", running.port)
    with pytest.raises(ConfigError, match="serve.host=no.such.host.invalid"):
        _listen("no.such.host.invalid", 0)


def test_an_answer_does_not_wait_for_its_head_to_be_acknowledged():
    with _listen("127.0.0.1", 0) as listening:
        listening.listen()
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.proto == socket.IPPROTO_TCP  # for which asyncio sets TCP_NODELAY


def test_the_page_lies_in_the_package():
    assert {path.name for path in Path(app_module.STATIC).iterdir()} == {"page.html", "page.js", "page.css"}
