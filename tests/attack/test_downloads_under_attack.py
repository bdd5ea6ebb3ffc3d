"""Downloads from servers and archives that stall, lie, clash or explode: nothing is left, the reason is said."""

import io
import itertools
import stat
import struct
import tarfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from splade.datasets import msmarco, msmarco_downloads
from splade.datasets.beir import find_or_download, open_beir
from splade.errors import BusyError, DataError, SpladeError
from splade.storage import archives, download
from splade.storage.archives import unzip
from splade.storage.locks import FolderLock

FILES = {
    "corpus.jsonl": '{"_id": "d1", "title": "T", "text": "body"}\n',
    "queries.jsonl": '{"_id": "q1", "text": "one"}\n',
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
}


def zipped(files: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names given twice
        for name, content in files.items():
            archive.writestr(name.rstrip("\0"), content)
    return buffer.getvalue()


def members(**changed: str | bytes | None) -> dict[str, str | bytes]:
    files: dict[str, Any] = {f"tiny/{name}": content for name, content in FILES.items()} | changed
    return {name: content for name, content in files.items() if content is not None}


GOOD = zipped(members())


class Server:
    """Answers with status, headers and the pieces of a body; `asked` holds the paths."""

    def __init__(self) -> None:
        self.answer: tuple[int, dict[str, str], list[bytes]] = (200, {}, [GOOD])
        self.asked: list[str] = []
        self.ranges: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                server.asked.append(self.path)
                server.ranges.append(self.headers.get("Range"))
                status, headers, pieces = server.answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for piece in pieces:
                        self.wfile.write(piece)
                except OSError:
                    pass  # the other side has had enough

            def log_message(self, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/{{name}}.zip"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def refused(server: Server, place: Path, message: str, split: str = "test") -> None:
    """Check that the download fails with a message, and that nothing is left."""
    with pytest.raises(DataError, match=message) as caught:
        open_beir("tiny", place, split, server.url)
    assert len(str(caught.value)) < 600
    assert list(place.iterdir()) == []


def as_encrypted(archive: bytes) -> bytes:
    """Set the flag of encryption everywhere."""
    data = bytearray(archive)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(mark)
        while place >= 0:
            data[place + offset] |= 1
            place = data.find(mark, place + 4)
    return bytes(data)


def with_method(archive: bytes, method: int) -> bytes:
    data = bytearray(archive)
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = data.find(mark)
        while place >= 0:
            data[place + offset : place + offset + 2] = struct.pack("<H", method)
            place = data.find(mark, place + 4)
    return bytes(data)


def with_mode(mode: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members().items():
            archive.writestr(name, content)
        link = zipfile.ZipInfo("tiny/link")
        link.external_attr = (mode | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def twice(name: str) -> bytes:
    buffer = io.BytesIO(GOOD)
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(name, '{"_id": "d2", "text": "other"}\n')
    return buffer.getvalue()


ARCHIVES: dict[str, tuple[bytes, str]] = {
    "encrypted": (as_encrypted(GOOD), "encrypted; unpack it yourself"),
    "an unknown method": (with_method(GOOD, 97), "unknown method"),
    "deflate64": (with_method(GOOD, 9), "unknown method"),
    "no deflate stream": (with_method(zipped(members(), zipfile.ZIP_STORED), 8), "not a whole zip file"),
    "no lzma stream": (with_method(zipped(members(), zipfile.ZIP_STORED), 14), "not a whole zip file"),
    "no bzip2 stream": (with_method(zipped(members(), zipfile.ZIP_STORED), 12), "not a whole zip file"),
    "half of it": (GOOD[: len(GOOD) // 2], "not a whole zip file"),
    "an end without a beginning": (GOOD[100:], "not a whole zip file"),
    "a directory that lies": (GOOD.replace(b"PK\x03\x04", b"PK\x03\x05", 1), "not a whole zip file"),
    "empty": (b"", "not a whole zip file"),
    "zeros": (bytes(1 << 20), "not a whole zip file"),
    "an archive of nothing": (zipped({}), "no folder 'tiny'"),
    "a file in place of the folder": (zipped({"tiny": "x"}), "no folder 'tiny'"),
    "a member twice": (twice("tiny/corpus.jsonl"), "take the same place"),
    "a member in capitals": (twice("tiny/CORPUS.jsonl"), "take the same place"),
    "a file that is a folder": (twice("tiny/qrels"), "take the same place"),
    "a folder that is a file": (twice("tiny/corpus.jsonl/x"), "take the same place"),
    "a folder entry that is a file": (twice("tiny/corpus.jsonl/"), "take the same place"),
    "parents": (twice("tiny/../../x"), "outside its folder"),
    "an absolute name": (twice("/tmp/x"), "outside its folder"),
    "a drive": (twice("C:/x"), "outside its folder"),
    "backslashes": (twice("tiny\\x"), "impossible name"),
    "backslashes that lead out": (twice("tiny\\..\\..\\x"), "outside its folder"),
    "a control character": (twice("tiny/a\x1bb"), "impossible name"),
    "a name of 300 bytes": (twice("tiny/" + "x" * 300), "impossible name"),
    "a link": (with_mode(stat.S_IFLNK), "is a link or device"),
    "a pipe": (with_mode(stat.S_IFIFO), "is a link or device"),
    "a bomb": (zipped(members() | {"tiny/big": bytes(60_000_000)}), "would unpack to 6"),
    "many small bombs": (zipped(members() | {f"tiny/{i}": bytes(6_000_000) for i in range(10)}), "would unpack to 6"),
    "a damaged byte": (GOOD[:60] + bytes([GOOD[60] ^ 1]) + GOOD[61:], "not a whole zip file|cannot be used"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_are_refused(server: Server, tmp_path: Path, name: str) -> None:
    content, message = ARCHIVES[name]
    server.answer = (200, {"Content-Length": str(len(content))}, [content])
    refused(server, tmp_path, message)
    server.answer = (200, {}, [GOOD])  # and the same command gets it as soon as the server has it
    assert len(open_beir("tiny", tmp_path, "test", server.url)[0].documents) == 1


CONTENTS: dict[str, tuple[dict[str, str | bytes | None], str]] = {
    "no corpus": ({"tiny/corpus.jsonl": None}, "corpus.jsonl"),
    "no queries": ({"tiny/queries.jsonl": None}, "queries.jsonl"),
    "no qrels": ({"tiny/qrels/test.tsv": None}, "splits: none"),
    "an empty corpus": ({"tiny/corpus.jsonl": ""}, "the collection is empty"),
    "an empty queries file": ({"tiny/queries.jsonl": ""}, "empty"),
    "no JSON": ({"tiny/corpus.jsonl": "<html>\n"}, "line 1"),
    "a document twice": ({"tiny/corpus.jsonl": FILES["corpus.jsonl"] * 2}, "occurs twice"),
    "a document without an id": ({"tiny/corpus.jsonl": '{"text": "x"}\n'}, "no '_id'"),
    "no UTF-8": ({"tiny/corpus.jsonl": b'{"_id": "d", "text": "\xff"}\n'}, "not UTF-8"),
    "a judged query that is missing": ({"tiny/qrels/test.tsv": "query-id\tcorpus-id\tscore\nq9\td1\t1\n"}, "q9"),
    "a grade that cannot be": ({"tiny/qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1e30\n"}, "whole number"),
    "no judgements": ({"tiny/qrels/test.tsv": "query-id\tcorpus-id\tscore\n"}, "no judgements"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_no_data_set_is_not_left_in_place(server: Server, tmp_path: Path, name: str) -> None:
    changed, message = CONTENTS[name]
    server.answer = (200, {}, [zipped(members(**changed))])  # type: ignore[arg-type]
    refused(server, tmp_path, f"cannot be used and is not kept: .*{message}")


def test_a_split_that_does_not_exist_is_no_fault_of_the_data_set(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'dev'; splits: test"):
        open_beir("tiny", tmp_path, "dev", server.url)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("status", "headers", "pieces", "message"),
    [
        (200, {"Content-Type": "text/html; charset=utf-8"}, [GOOD], "error page or a log-in"),
        (200, {"Content-Encoding": "gzip"}, [GOOD], "error page or a log-in"),
        (200, {"Content-Length": str(len(GOOD) + 5)}, [GOOD], "download failed"),
        (200, {"Content-Length": str(len(GOOD) - 5)}, [GOOD], "not a whole zip file"),
        (200, {"Content-Length": str(10**18)}, [GOOD], "only .* GB are free"),
        (200, {"Content-Length": "9" * 30}, [GOOD], "download failed|cannot be used|not a whole"),
        (200, {"Transfer-Encoding": "chunked"}, [b"zz\r\n"], "download failed"),
        (200, {"Transfer-Encoding": "chunked"}, [b"5\r\nab"], "download failed|not a whole"),
        (302, {"Location": "/tiny.zip"}, [], "download failed"),
        (301, {"Location": "file:///etc/passwd"}, [], "download failed"),
        (401, {}, [], "download failed.*401"),
        (403, {}, [], "download failed.*403"),
        (404, {}, [b"<html>"], "download failed.*404"),
        (429, {}, [], "download failed.*429"),
        (503, {}, [GOOD], "download failed.*503"),
        (204, {}, [], "not a whole zip file"),
    ],
)
def test_answers_that_are_refused(
    server: Server, tmp_path: Path, status: int, headers: dict[str, str], pieces: list[bytes], message: str
) -> None:
    server.answer = (status, headers, pieces)
    refused(server, tmp_path, message)


def test_a_server_that_says_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def silent() -> Iterator[bytes]:
        yield GOOD[:50]
        release.wait(10)

    monkeypatch.setattr("splade.datasets.beir.TIMEOUT_SECONDS", 0.05)
    server.answer = (200, {"Content-Length": str(len(GOOD))}, silent())  # type: ignore[assignment]
    refused(server, tmp_path, "download failed.*timed out")
    release.set()


class Trickle:
    """An answer of one byte at a time."""

    url, headers = "http://x/tiny.zip", {"Content-Length": "100000000"}

    class raw:  # noqa: N801
        @staticmethod
        def read1(size: int, decode_content: bool) -> bytes:
            return b"P"


def test_a_server_that_trickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(0, 3)
    monkeypatch.setattr(download.time, "monotonic", lambda: next(seconds))
    with pytest.raises(requests.Timeout, match="only .* bytes arrived in 60 s"):
        download.receive(Trickle(), tmp_path / "x")  # type: ignore[arg-type]
    assert next(seconds) < 100


def test_a_server_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_LARGEST", 5000)
    answer = Trickle()
    answer.headers = {}
    with pytest.raises(DataError, match="no data set is as large"):
        download.receive(answer, tmp_path / "x")  # type: ignore[arg-type]


def test_an_answer_that_ends_early(tmp_path: Path) -> None:
    answer = Trickle()
    pieces = iter([b"PK", b"x", b""])
    answer.raw = type("Raw", (), {"read1": lambda *size, **decode: next(pieces)})  # type: ignore[misc]
    with pytest.raises(requests.ConnectionError, match="3 of 100000000 bytes arrived"):
        download.receive(answer, tmp_path / "x")  # type: ignore[arg-type]


def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(GOOD)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(DataError, match="make room"):
        unzip(archive, tmp_path / "out", "tiny")
    with pytest.raises(DataError, match="make room"):
        download.receive(Trickle(), tmp_path / "x")  # type: ignore[arg-type]


def test_only_the_folder_asked_for_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(members() | {"__MACOSX/tiny/x": "", "tinyer/x": "", "readme": ""}))
    unzip(tmp_path / "a.zip", tmp_path / "out", "tiny")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tiny"]
    assert (tmp_path / "out" / "tiny" / "qrels" / "test.tsv").read_text() == FILES["qrels/test.tsv"]


def test_what_a_killed_download_left_is_removed(server: Server, tmp_path: Path) -> None:
    left = tmp_path / ".tiny.download"
    (left / "tiny").mkdir(parents=True)
    (left / "tiny" / "corpus.jsonl").write_text("half")
    (left / "tiny" / "queries.jsonl.gz").write_text("half")
    (left / "tiny.zip").write_bytes(GOOD[:20])
    find_or_download("tiny", tmp_path, server.url)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {"corpus.jsonl", "queries.jsonl", "qrels"}


def test_two_downloads_of_the_same_data_set(server: Server, tmp_path: Path) -> None:
    found: list[BaseException] = []

    def other() -> None:
        try:
            find_or_download("tiny", tmp_path, server.url)
        except BaseException as error:
            found.append(error)

    with FolderLock(tmp_path / ".tiny.download"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(found) == 1 and isinstance(found[0], BusyError) and server.asked == []


@pytest.mark.parametrize("name", ["../x", "/etc", "a/../../x", "", ".", "..", "a b", "x\x00", "a/b/c", "~", "n" * 300])
def test_names_that_lead_elsewhere(server: Server, tmp_path: Path, name: str) -> None:
    with pytest.raises(SpladeError):
        open_beir(name, tmp_path / "beir", "test", server.url)
    assert server.asked == [] and not (tmp_path / "beir").exists()


# splade/datasets/msmarco_downloads.py


@pytest.fixture
def downloads(server: Server, tmp_path: Path) -> Callable[..., Any]:
    def make(md5: str | None = None) -> Any:
        source = msmarco_downloads.Source(server.url.replace("{name}", "file"), md5)
        return msmarco_downloads.Downloads(tmp_path / "downloads", {"file": source}, wait_seconds=0.0)

    return make


def test_a_beginning_of_nobody_knows_what_is_not_continued(server: Server, downloads: Callable[..., Any]) -> None:
    fetched = downloads()
    fetched.folder.mkdir()
    (fetched.folder / "file.zip.part").write_bytes(b"of another file")
    assert fetched.get("file").read_bytes() == GOOD
    assert server.ranges == [None]


@pytest.mark.parametrize("tag", ["\n", "a\nb", "\u20ac", "", "\x00"])
def test_a_damaged_tag(server: Server, downloads: Callable[..., Any], tag: str) -> None:
    fetched = downloads()
    fetched.folder.mkdir()
    (fetched.folder / "file.zip.part").write_bytes(GOOD[:10])
    (fetched.folder / "file.zip.part.tag").write_text(tag)
    assert fetched.get("file").read_bytes() == GOOD
    assert {path.name for path in fetched.folder.iterdir()} == {"file.zip", "checksums.json"}


def test_a_server_that_sends_another_part(server: Server, downloads: Callable[..., Any]) -> None:
    fetched = downloads()
    fetched.folder.mkdir()
    (fetched.folder / "file.zip.part").write_bytes(GOOD[:10])
    (fetched.folder / "file.zip.part.tag").write_text('"x"')
    server.answer = (206, {"Content-Range": "bytes 5-9/10"}, [GOOD[5:]])
    with pytest.raises(DataError, match="another part than was asked for"):
        fetched.get("file")
    assert not (fetched.folder / "file.zip").exists()


@pytest.mark.parametrize("content", ["[]", "{", "null", '{"file.zip": 7}', "\udcff"])
def test_a_damaged_list_of_checksums(server: Server, downloads: Callable[..., Any], content: str) -> None:
    fetched = downloads()
    fetched.folder.mkdir()
    (fetched.folder / "checksums.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError):
        fetched.get("file")


def test_an_error_page_is_no_file(server: Server, downloads: Callable[..., Any]) -> None:
    server.answer = (200, {"Content-Type": "text/html"}, [b"<html>log in</html>"])
    with pytest.raises(DataError, match="error page or a log-in"):
        downloads().get("file")


def test_members_of_a_tar_that_are_links_or_folders(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo("x/collection.tsv")
            entry.type, entry.linkname = kind, "/etc/passwd"
            opened.addfile(entry)
    fetched = type("Fetched", (), {"get": lambda self, name: archive, "folder": tmp_path})()
    layout = msmarco.Layout(tmp_path / "out", fetched)
    with pytest.raises(DataError, match="there is no collection.tsv in it"):
        layout._extract("collection", {"collection.tsv": tmp_path / "out" / "raw.tsv"})
    assert not (tmp_path / "out").exists()
