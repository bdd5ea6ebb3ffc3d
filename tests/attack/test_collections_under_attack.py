"""Content decides: edited collections, damaged caches, files that change under the reader."""

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from written_files import write_tsv

from splade.datasets import teacher_scores
from splade.datasets.collections import open_collection
from splade.datasets.teacher_scores import open_scores
from splade.datasets.text_collection import FileCollection, PairCollection
from splade.errors import DataError
from splade.storage import cache, line_index
from splade.storage.cache import file_digest
from splade.storage.line_index import LineSource

ROWS = [(f"d{i}", f"text {i:04}") for i in range(200)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's cache folder out of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "splade"


@pytest.fixture
def always_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (line_index, teacher_scores):
        monkeypatch.setattr(module, "CACHE_FROM_BYTES", 0)


@pytest.fixture
def always_remember(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember the digests of small files, and of those that were written just now."""
    monkeypatch.setattr(cache, "REMEMBER_FROM_BYTES", 0)
    monkeypatch.setattr(cache, "_SETTLED_NS", -(10**18))


def edit(path: Path, place: int, byte: bytes = b"#") -> None:
    """Overwrite one byte in place, and set the time of modification back to what it was."""
    before = path.stat()
    with open(path, "rb+") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        file.write(byte)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("place", [20, 1_200_000, 2_500_000, 3_000_000, -1_100_000, -1_000_000, -2])
def test_a_byte_changed_anywhere_is_another_collection(tmp_path: Path, place: int, always_remember: None) -> None:
    write_tsv(tmp_path / "raw.tsv", [(f"d{i}", "x" * 1000) for i in range(4000)])
    before = open_collection(tmp_path).digest()
    assert open_collection(tmp_path).digest() == before
    edit(tmp_path / "raw.tsv", place)
    assert open_collection(tmp_path).digest() != before


def test_every_part_of_a_collection_counts(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for number in range(3):
        line = json.dumps({"_id": f"d{number}", "text": "t"})
        (tmp_path / "corpus" / f"corpus-{number}.jsonl").write_text(line + "\n")
    before = open_collection(tmp_path).digest()
    edit(tmp_path / "corpus" / "corpus-1.jsonl", -4)
    assert open_collection(tmp_path).digest() != before


def test_pairs_are_told_apart_by_every_text() -> None:
    digests = [PairCollection(pairs).digest() for pairs in (ROWS, ROWS[:-1], [*ROWS[:-1], ("d199", "other")])]
    assert len(set(digests)) == 3 and PairCollection(ROWS).digest() == digests[0]


def test_a_digest_is_computed_once_until_the_file_is_touched(
    tmp_path: Path, own_cache: Path, always_remember: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "raw.tsv"
    path.write_text("d1\tx\n")
    digest = file_digest(path)
    (memo,) = own_cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_read_digest", None)
        assert file_digest(path) == digest
    whole = memo.read_bytes()
    for place in range(0, len(whole), 7):  # a damaged memory is none
        memo.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert file_digest(path) == digest
    for touch in (lambda: path.chmod(0o600), lambda: edit(path, 3), lambda: os.utime(path)):
        touch()
        with monkeypatch.context() as patch, pytest.raises(TypeError):
            patch.setattr(cache, "_read_digest", None)
            file_digest(path)
        file_digest(path)


def test_a_file_written_just_now_is_not_remembered(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "REMEMBER_FROM_BYTES", 0)
    path = tmp_path / "raw.tsv"
    path.write_text("d1\tx\n")
    monkeypatch.setattr(cache.time, "time_ns", lambda: path.stat().st_ctime_ns + 10**9)
    file_digest(path)
    assert not own_cache.exists()
    monkeypatch.setattr(cache.time, "time_ns", lambda: path.stat().st_ctime_ns + 10**10)
    file_digest(path)
    assert len(list(own_cache.iterdir())) == 1


def test_a_file_that_changes_while_its_digest_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "raw.tsv"
    path.write_text("d1\tx\n")
    read = cache._read_digest

    def read_and_change(*arguments: Any) -> str:
        digest = read(*arguments)
        edit(path, 3)
        return digest

    monkeypatch.setattr(cache, "_read_digest", read_and_change)
    with pytest.raises(DataError, match="changed while it was read"):
        file_digest(path)


@pytest.mark.parametrize("name", ["raw.tsv", "raw.tsv.gz"])
def test_a_stale_line_index_is_built_again(tmp_path: Path, name: str, always_cache: None) -> None:
    path = tmp_path / name
    write_tsv(path, ROWS)
    assert open_collection(path).text("d7") == "text 0007"
    before = path.stat()
    content = b"".join(f"e{i}\ttext {i:04}\n".encode() for i in range(200))
    path.write_bytes(gzip.compress(content, 6, mtime=0) if name.endswith("gz") else content)
    with open(path, "ab") as file:
        file.truncate(before.st_size) if path.stat().st_size < before.st_size else None
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "d7" not in open_collection(path) and open_collection(path).text("e7") == "text 0007"


def test_stale_teacher_scores_are_read_again(tmp_path: Path, always_cache: None) -> None:
    path = tmp_path / "scores.json"
    path.write_text('{"q": {"d1": 1, "d2": 2, "d3": 3}}')
    assert open_scores(path)["q"][1].tolist() == [1, 2, 3]
    edit(path, path.read_text().index("2,"), b"9")
    assert open_scores(path)["q"][1].tolist() == [1, 9, 3]


def flips(path: Path, step: int) -> Iterator[int]:
    """Flip a bit of every `step`-th byte in turn, times set back; restore the file at the end."""
    whole = path.read_bytes()
    for place in range(0, len(whole), step):
        path.write_bytes(whole)
        edit(path, place, bytes([whole[place] ^ 1]))
        yield place
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.tsv", ".splade-lines"), ("a.gz", ".splade-lines"), ("a.gz", ".splade-text")]
)
def test_a_flipped_byte_of_a_cache_never_gives_another_text(
    tmp_path: Path, name: str, suffix: str, always_cache: None
) -> None:
    write_tsv(tmp_path / name, ROWS)
    len(open_collection(tmp_path / name))
    for _ in flips(tmp_path / (name + suffix), 211):
        collection = open_collection(tmp_path / name)
        assert [collection[row] for row in range(0, 200, 13)] == ROWS[::13]
        assert collection.text("d150") == "text 0150"


def test_a_flipped_byte_of_cached_scores_never_gives_another_score(tmp_path: Path, always_cache: None) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({f"q{i}": {f"d{j}": i + j / 8 for j in range(9)} for i in range(9)}))
    expected = {query: open_scores(path)[query][1].tolist() for query in open_scores(path).query_ids}
    for _ in flips(tmp_path / "scores.json.splade-scores", 97):
        teacher = open_scores(path)
        assert {query: teacher[query][1].tolist() for query in teacher.query_ids} == expected


def append(path: Path) -> None:
    with open(path, "a") as file:
        file.write("late\tline\n")


def test_a_collection_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "raw.tsv"
    write_tsv(path, ROWS)
    texts = iter(open_collection(path))
    next(texts)
    append(path)
    with pytest.raises(DataError, match="changed while it was read"):
        list(texts)


def test_a_collection_that_changes_while_its_lines_are_indexed(tmp_path: Path, always_cache: None) -> None:
    path = tmp_path / "raw.tsv"
    write_tsv(path, ROWS)

    def read_id(line: str, file: Path, number: int) -> str:
        if number == 100:
            edit(path, 3)  # what a look at size and time alone would not show
        return line.partition("\t")[0]

    with pytest.raises(DataError, match="changed while it was read"):
        line_index.LineIndex.open(LineSource.of_file(path), "tsv", read_id)
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw.tsv"]


def test_a_collection_that_changes_while_it_is_in_use(tmp_path: Path, always_cache: None) -> None:
    path = tmp_path / "raw.tsv"
    write_tsv(path, ROWS)
    collection = open_collection(path)
    assert collection[3] == ROWS[3]
    append(path)
    with pytest.raises(DataError, match="changed while it was in use"):
        collection[3]


def test_either_sign_of_a_change_is_enough(tmp_path: Path, always_cache: None) -> None:
    for name, same_size in (("a.tsv", True), ("b.tsv", False)):
        path = tmp_path / name
        write_tsv(path, ROWS)
        collection, before = open_collection(path), path.stat()
        assert collection[3] == ROWS[3]
        if same_size:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        else:
            append(path)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(DataError, match="changed while it was in use"):
            collection[3]


def test_rights_and_names_of_a_file_in_use_may_change(tmp_path: Path, always_cache: None) -> None:
    write_tsv(tmp_path / "raw.tsv", ROWS)
    collection = open_collection(tmp_path / "raw.tsv")
    assert collection[3] == ROWS[3]
    (tmp_path / "raw.tsv").chmod(0o400)
    os.link(tmp_path / "raw.tsv", tmp_path / "other.tsv")
    assert collection[4] == ROWS[4]


def test_without_a_place_for_caches_everything_is_read_all_the_same(
    tmp_path: Path, always_cache: None, always_remember: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    write_tsv(tmp_path / "raw.tsv", ROWS)
    for _ in range(2):
        assert open_collection(tmp_path).text("d3") == "text 0003"
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw.tsv"]


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert str(cache.user_cache()) == "/dev/null/splade"


@pytest.mark.parametrize("make_name", [lambda: "n" * 240 + ".tsv", lambda: "é" * 120 + ".tsv"])
def test_names_near_the_limit_of_the_file_system(
    tmp_path: Path, own_cache: Path, make_name: Callable[[], str], always_cache: None
) -> None:
    write_tsv(tmp_path / "raw.tsv", ROWS)
    path = (tmp_path / "raw.tsv").rename(tmp_path / make_name())
    for _ in range(2):
        assert open_collection(path).text("d3") == "text 0003"
    assert [entry.name for entry in tmp_path.iterdir() if entry != own_cache.parent] == [path.name]
    assert isinstance(open_collection(path), FileCollection)
