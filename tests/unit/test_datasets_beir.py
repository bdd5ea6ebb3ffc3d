"""BEIR folders and their download, against a local server."""

import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from splade.datasets.beir import CQADUPSTACK_FORUMS, available_splits, beir_dataset, find_or_download
from splade.errors import DataError

FILES = {
    "corpus.jsonl": '{"_id": "d1", "title": "T", "text": "body"}\n',
    "queries.jsonl": '{"_id": "q1", "text": "one"}\n{"_id": "q2", "text": "two"}\n',
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq2\td1\t1\n",
    "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
}


def write_files(folder, files=FILES):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def zipped(files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def server():
    """Serve `answers`: path to (status, headers, body); the paths that were asked for are in `asked`."""

    class Handler(BaseHTTPRequestHandler):
        answers: dict = {}
        asked: list = []

        def do_GET(self):
            self.asked.append(self.path)
            status, headers, body = self.answers.get(self.path, (404, {}, b"<html>not here</html>"))
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    Handler.answers, Handler.asked = {}, []
    running = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{running.server_port}/{{name}}.zip"
    yield Handler
    running.shutdown()
    running.server_close()


def test_split_of_a_folder(tmp_path):
    dataset = beir_dataset(write_files(tmp_path))
    assert available_splits(tmp_path) == ["test", "train"]
    assert dataset.qrels == {"q2": {"d1": 1}}
    assert dataset.queries == {"q2": "two"}
    assert list(dataset.corpus) == [("d1", "T body")]
    assert beir_dataset(tmp_path, "train").queries == {"q1": "one"}


def test_missing_split_lists_those_that_exist(tmp_path):
    with pytest.raises(DataError, match="'dev'; splits: test, train"):
        beir_dataset(write_files(tmp_path), "dev")


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl"])
def test_missing_files_are_named(tmp_path, missing):
    write_files(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=missing):
        beir_dataset(tmp_path)


def test_folder_without_judgements(tmp_path):
    with pytest.raises(DataError, match="splits: none"):
        beir_dataset(tmp_path)


def test_judged_query_without_text(tmp_path):
    files = FILES | {"qrels/test.tsv": "query-id\tcorpus-id\tscore\nq7\td1\t1\n"}
    with pytest.raises(DataError, match="query 'q7' is judged.*has no text"):
        _ = beir_dataset(write_files(tmp_path, files)).queries


def test_hugging_face_layout(tmp_path):
    record = {"query-id": "q2", "corpus-id": "d1", "score": 1}
    files = {
        "corpus/corpus-00000-of-00001.jsonl": FILES["corpus.jsonl"],
        "queries/queries.jsonl": FILES["queries.jsonl"],
        "qrels/test-00000-of-00001.jsonl": json.dumps(record) + "\n",
    }
    dataset = beir_dataset(write_files(tmp_path, files))
    assert available_splits(tmp_path) == ["test"]
    assert dataset.queries == {"q2": "two"} and list(dataset.corpus) == [("d1", "T body")]


def test_folder_that_is_there_is_used_as_is(tmp_path, server):
    write_files(tmp_path / "tiny")
    assert find_or_download("tiny", tmp_path, server.url) == tmp_path / "tiny"
    assert server.asked == []


def test_download(tmp_path, server):
    server.answers["/tiny.zip"] = (200, {}, zipped({f"tiny/{name}": content for name, content in FILES.items()}))
    folder = find_or_download("tiny", tmp_path / "new" / "beir", server.url)
    assert beir_dataset(folder).queries == {"q2": "two"}
    assert [entry.name for entry in folder.parent.iterdir()] == ["tiny"]


def test_sub_forum_comes_with_its_archive(tmp_path, server):
    files = {f"cqadupstack/{forum}/{name}": FILES[name] for forum in CQADUPSTACK_FORUMS for name in FILES}
    server.answers["/cqadupstack.zip"] = (200, {}, zipped(files))
    for forum in CQADUPSTACK_FORUMS:
        assert (find_or_download(f"cqadupstack/{forum}", tmp_path, server.url) / "corpus.jsonl").is_file()
    assert set(server.asked) == {"/cqadupstack.zip"} and len(CQADUPSTACK_FORUMS) == 12
    with pytest.raises(DataError, match="cooking.*no such folder.*holds android/"):
        find_or_download("cqadupstack/cooking", tmp_path, server.url)


GOOD = zipped({"tiny/corpus.jsonl": "x" * 5000})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {}, b"<html>"), "download failed.*404"),
        ((500, {}, GOOD), "download failed.*500"),
        ((200, {}, b"<html>maintenance</html>"), "not a whole zip file"),
        ((200, {}, GOOD[:-50]), "not a whole zip file"),
        ((200, {"Content-Length": str(len(GOOD) + 10)}, GOOD), "download failed"),
        ((200, {}, GOOD.replace(b"xxxx", b"yyyy", 1)), "not a whole zip file.*'tiny/corpus.jsonl'"),
        ((200, {}, zipped({"tiny/a": "", "../evil": "x"})), r"outside its folder: '\.\./evil'"),
        ((200, {}, zipped({"tiny/a": "", "tiny/../../evil": "x"})), "outside its folder"),
        ((200, {}, zipped({"tiny/a": "", "/evil": "x"})), "outside its folder: '/evil'"),
        ((200, {}, zipped({"other/a": ""})), "no folder 'tiny'; it holds 'other/a'"),
    ],
)
def test_failed_downloads_leave_nothing_behind(tmp_path, server, answer, message):
    server.answers["/tiny.zip"] = answer
    with pytest.raises(DataError, match=message):
        find_or_download("tiny", tmp_path / "beir", server.url)
    assert list((tmp_path / "beir").iterdir()) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["beir"]


def test_unreachable_server(tmp_path):
    with pytest.raises(DataError, match="download failed"):
        find_or_download("tiny", tmp_path, "http://127.0.0.1:9/{name}.zip")


def test_a_misspelt_folder_names_the_near_one_and_asks_no_server(tmp_path, monkeypatch):
    monkeypatch.setattr("splade.datasets.beir._fetch", lambda *_: pytest.fail("asked a server"))
    (tmp_path / "my-laws").mkdir()
    for wrong, meant in (("my-law", "my-laws"), ("scifacts", "scifact")):
        with pytest.raises(DataError, match=f"did you mean '{meant}'.*holds my-laws"):
            find_or_download(wrong, tmp_path)
    with pytest.raises(DataError, match="holds no data set"):
        find_or_download("nfcorpu", tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir()] == ["my-laws"]


@pytest.mark.parametrize(("name", "near"), [("fever", "climate-fever"), ("something-else", "my-laws")])
def test_public_names_and_names_far_from_all_are_fetched(tmp_path, monkeypatch, name, near):
    asked = []
    monkeypatch.setattr("splade.datasets.beir._fetch", lambda url, scratch, name: asked.append(url) or scratch / name)
    monkeypatch.setattr("splade.datasets.beir._check_content", lambda *_: _stop())
    (tmp_path / near).mkdir()
    with pytest.raises(DataError, match="stopped"):
        find_or_download(name, tmp_path)
    assert asked == [f"https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets/{name}.zip"]


def _stop():
    raise DataError("stopped")
