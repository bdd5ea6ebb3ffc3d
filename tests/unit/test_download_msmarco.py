"""The MS MARCO download, against a server on this machine that has small files of the same names."""

import gzip
import hashlib
import importlib
import io
import json
import pickle
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from splade.config import compose_experiment
from splade.datasets.collections import open_collection, open_queries
from splade.datasets.qrels import read_qrels
from splade.errors import DataError
from splade.training.data import load_full_ranking, open_training_set


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return importlib.import_module("splade.datasets.msmarco")


class Server:
    """Serves `files` with ranges; `cut` makes the next answers for a file end early."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, list[int]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.ranges = True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                server.answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/mirror"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.removeprefix("/mirror/")
        asked = handler.headers.get("Range")
        self.requests.append((name, asked))
        content = self.files.get(name)
        if content is None:
            handler.send_error(404)
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if handler.headers.get("If-Range", tag) != tag:
            start = 0
        if start and start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = content[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", tag)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        cuts = self.cut.get(name)
        handler.wfile.write(body[: cuts.pop(0)] if cuts else body)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    running.files = mirror_files()
    yield running
    running.close()


def archive(members: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as opened:
        for name, text in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            opened.addfile(entry, io.BytesIO(text.encode()))
    return stream.getvalue()


def mirror_files() -> dict[str, bytes]:
    """Files of the same names and formats as the real ones: 200 passages, 20 queries of each kind."""
    passages = "".join(f"{i}\tpassage number {i} about é {i % 7}\n" for i in range(200))
    queries = {kind: "".join(f"{base + i}\tquery {kind} {i}\n" for i in range(20)) for kind, base in BASES.items()}
    qrels = {
        kind: "".join(f"{base + i}\t0\t{(base + i) % 200}\t1\n" for i in range(20)) for kind, base in BASES.items()
    }
    scores = {BASES["train"] + i: {j: float(j) for j in range(200)} for i in range(20)}
    base = BASES["train"]
    vienna = "".join(f"{2.5 + i}\t{1.5}\t{base + i}\t{(base + i) % 200}\t{i}\n" for i in range(20))
    trec = "".join(f"{BASES['trec'] + i} Q0 {i} {i % 4}\n" for i in range(20))
    members = {
        "collection.tsv": passages,
        "queries.train.tsv": queries["train"],
        "queries.dev.tsv": queries["small"] + queries["dev"],
        "queries.dev.small.tsv": queries["small"],
        "qrels.train.tsv": qrels["train"],
        "qrels.dev.small.tsv": qrels["small"],
        "queries.eval.tsv": "1\tnever needed\n",
    }
    return {
        "collectionandqueries.tar.gz": archive(members),
        "qrels.dev.tsv": (qrels["small"] + qrels["dev"]).encode(),
        "triples.train.small.tar.gz": archive({"triples.train.small.tsv": "q\tp\tn\nq2\tp2\tn2\n"}),
        "msmarco-test2019-queries.tsv.gz": gzip.compress(queries["trec"].encode()),
        "msmarco-test2020-queries.tsv.gz": gzip.compress(queries["trec"].encode()),
        "2019qrels-pass.txt": trec.encode(),
        "2020qrels-pass.txt": trec.encode(),
        "cross-encoder-ms-marco-MiniLM-L-6-v2-scores.pkl.gz": gzip.compress(pickle.dumps(scores)),
        "bert_cat_ensemble_msmarcopassage_train_scores_ids.tsv": vienna.encode(),
    }


BASES = {"train": 1000, "small": 2000, "dev": 3000, "trec": 4000}


def layout_of(script: ModuleType, server: Server, folder: Path) -> Any:
    """Return a layout that fetches from the server and knows the MD5 of its files (where the real table has one)."""
    sources = {
        name: replace(source, md5=hashlib.md5(server.files[source.file]).hexdigest() if source.md5 else None)
        for name, source in script.SOURCES.items()
    }
    downloads = script.Downloads(folder / "downloads", sources, server.url, wait_seconds=0.0)
    return script.Layout(folder, downloads, validation_queries=5, validation_passages=50)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_everything_that_the_configurations_name_is_made(
    script: ModuleType, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    script.arrange(layout_of(script, server, tmp_path / "msmarco"), list(script.PARTS))
    monkeypatch.setenv("SPLADE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = compose_experiment("config_splade++_cocondenser_ensembledistil").data
    assert len(open_collection(str(data.COLLECTION_PATH))) == 200
    for queries, qrels in zip([data.Q_COLLECTION_PATH[i] for i in (0, 1, 1, 2, 2)], data.EVAL_QREL_PATH, strict=True):
        assert set(dict(open_queries(queries))) == set(read_qrels(str(qrels)))
    assert read_qrels(str(data.EVAL_QREL_PATH[1]))["4003"] == {"3": 3}
    assert [read_qrels(str(data.EVAL_QREL_PATH[2]))[f"400{grade}"][str(grade)] for grade in range(4)] == [0, 0, 1, 1]
    assert len(open_queries(str(data.flops_queries))) == 40
    ranking = load_full_ranking(data.VALIDATION_FULL_RANKING, ["MRR@10"])
    assert ranking is not None and len(ranking.dataset.queries) == 5
    assert all(query_id.startswith("30") for query_id in ranking.dataset.queries), "dev small has no part in validation"
    assert ranking.dataset.corpus is not None and 50 <= len(ranking.dataset.corpus) <= 55
    for name in ("config_splade++_max", "config_splade++_msedistil", "config_splade++_ensembledistil"):
        assert len(open_training_set(compose_experiment(name))) in (2, 20)
    vienna = open_training_set(compose_experiment("config_splade++_msedistil")).example(3)
    assert (vienna.query, vienna.positive) == ("query train 3", "passage number 3 about é 3")
    assert (vienna.positive_score, vienna.negative_scores) == (5.5, [1.5])


def test_a_second_run_fetches_and_changes_nothing(script: ModuleType, server: Server, tmp_path: Path):
    script.arrange(layout_of(script, server, tmp_path), ["base"])
    before, asked = contents(tmp_path), len(server.requests)
    script.arrange(layout_of(script, server, tmp_path), ["base"])
    assert contents(tmp_path) == before
    assert len(server.requests) == asked


def test_what_an_earlier_version_made_is_moved_to_its_place(script: ModuleType, server: Server, tmp_path: Path):
    parts = ["base", "hard_negatives", "distil_mse"]
    script.arrange(layout_of(script, server, tmp_path), parts)
    made, asked = contents(tmp_path), len(server.requests)
    for former, now in script.FORMER_NAMES.items():
        (tmp_path / former).parent.mkdir(exist_ok=True)
        (tmp_path / now).rename(tmp_path / former)
    script.arrange(layout_of(script, server, tmp_path), parts)
    assert contents(tmp_path) == made and len(server.requests) == asked


def test_the_validation_set_is_the_same_every_time(script: ModuleType, server: Server, tmp_path: Path):
    for name in ("one", "two"):
        script.arrange(layout_of(script, server, tmp_path / name), ["base"])
    files = [name for name in contents(tmp_path / "one") if name.startswith("val_retrieval/")]
    assert len(files) == 3
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_a_broken_transfer_goes_on_where_it_stopped(
    script: ModuleType, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.modules["splade.datasets.msmarco_downloads"], "CHUNK_BYTES", 100)
    name = "collectionandqueries.tar.gz"
    server.cut[name] = [300, 200]
    path = layout_of(script, server, tmp_path).downloads.get("collection")
    assert path.read_bytes() == server.files[name]
    assert [asked for _, asked in server.requests] == [None, "bytes=300-", "bytes=500-"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == [name]


def test_a_killed_run_goes_on_where_it_stopped(script: ModuleType, server: Server, tmp_path: Path):
    name = "qrels.dev.tsv"
    part = tmp_path / "downloads" / f"{name}.part"
    part.parent.mkdir()
    part.write_bytes(server.files[name][:100])
    assert layout_of(script, server, tmp_path).downloads.get("dev_qrels").read_bytes() == server.files[name]
    assert server.requests == [(name, "bytes=100-")]


def test_a_complete_part_is_not_fetched_again(script: ModuleType, server: Server, tmp_path: Path):
    name = "qrels.dev.tsv"
    part = tmp_path / "downloads" / f"{name}.part"
    part.parent.mkdir()
    part.write_bytes(server.files[name])
    assert layout_of(script, server, tmp_path).downloads.get("dev_qrels").read_bytes() == server.files[name]


@pytest.mark.parametrize("with_ranges", [True, False])
def test_a_file_that_changed_in_between_is_fetched_from_the_beginning(
    script: ModuleType, server: Server, tmp_path: Path, with_ranges: bool
):
    name = "cross-encoder-ms-marco-MiniLM-L-6-v2-scores.pkl.gz"
    part = tmp_path / "downloads" / f"{name}.part"
    part.parent.mkdir()
    part.write_bytes(b"beginning of an older file")
    part.with_name(part.name + ".tag").write_text('"older"')
    server.ranges = with_ranges
    assert layout_of(script, server, tmp_path).downloads.get("hard_negatives").read_bytes() == server.files[name]


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(script: ModuleType, server: Server, tmp_path: Path):
    layout = layout_of(script, server, tmp_path)
    server.files["qrels.dev.tsv"] += b"one byte more"
    with pytest.raises(DataError, match=r"qrels\.dev\.tsv.*checksum"):
        layout.downloads.get("dev_qrels")
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_file_without_a_known_checksum_is_compared_with_its_first_download(
    script: ModuleType, server: Server, tmp_path: Path
):
    path = layout_of(script, server, tmp_path).downloads.get("hard_negatives")
    recorded = json.loads((tmp_path / "downloads" / "checksums.json").read_text())
    assert recorded == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="checksum"):
        layout_of(script, server, tmp_path).downloads.get("hard_negatives")


def test_what_a_killed_process_left_is_removed(script: ModuleType, server: Server, tmp_path: Path):
    leftover = tmp_path / "full_collection" / ".raw.tsv.12345.part"
    leftover.parent.mkdir()
    leftover.write_text("0\tpass")
    script.arrange(layout_of(script, server, tmp_path), ["base"])
    assert not leftover.exists()
    assert not [name for name in contents(tmp_path) if name.endswith((".part", ".tag"))]


def test_missing_file_on_the_server(script: ModuleType, server: Server, tmp_path: Path):
    layout = layout_of(script, server, tmp_path)
    del server.files["qrels.dev.tsv"]
    with pytest.raises(DataError, match=r"/mirror/qrels\.dev\.tsv: the download failed \(404"):
        layout.downloads.get("dev_qrels")
    assert len(server.requests) == 1, "a missing file is not asked for again"


def test_archive_without_the_member(script: ModuleType, server: Server, tmp_path: Path):
    server.files["triples.train.small.tar.gz"] = archive({"something.else": "x"})
    with pytest.raises(DataError, match=r"there is no triples\.train\.small\.tsv in it"):
        layout_of(script, server, tmp_path).triplets()


def test_damaged_archive(script: ModuleType, server: Server, tmp_path: Path):
    server.files["triples.train.small.tar.gz"] = server.files["triples.train.small.tar.gz"][:60]
    with pytest.raises(DataError, match="not a whole"):
        layout_of(script, server, tmp_path).triplets()
    assert not (tmp_path / "triplets" / "raw.tsv").exists()


def test_command_line(script: ModuleType, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    mirror = ["--folder", str(tmp_path), "--base-url", server.url]
    assert script.main(mirror) == 1, "the small files do not have the published checksums"
    assert "checksum" in capsys.readouterr().err
    assert script.main([*mirror, "hard_negatives"]) == 0
    assert "complete in" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        script.main(["hard_negative"])
    assert "did you mean 'hard_negatives'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["vienna_triplets"])
    assert "is called 'distil_mse' now" in capsys.readouterr().err


def test_no_space_on_the_disk(script: ModuleType, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(script.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(DataError, match="choose another disk"):
        layout_of(script, server, tmp_path).downloads.get("collection")
