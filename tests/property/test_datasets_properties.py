"""What holds for any data: writing and reading is the identity, random access equals reading in order."""

import json
import string
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from written_files import write_tsv

from splade.datasets import nested_json
from splade.datasets import teacher_scores as scores
from splade.datasets.collections import open_collection
from splade.datasets.runs import in_rank_order, read_run, write_run_json, write_run_trec
from splade.datasets.teacher_scores import open_scores
from splade.storage import line_index
from splade.storage.line_index import LineIndex, LineSource

# Everything but what separates lines and columns; a text cannot end with CR, which would belong to a CRLF.
characters = st.characters(codec="utf-8", exclude_characters="\n\t")
texts = st.text(characters | st.sampled_from("\u2028\u2029\x85\x0b\x0c\x1c\r\ufeff")).filter(lambda t: t[-1:] != "\r")
ids = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"], exclude_characters="\ufeff"), min_size=1
).filter(lambda i: not i.startswith("{"))
plain_ids = st.text(string.ascii_letters + string.digits + '_-"\\}{é日', min_size=1).filter(
    lambda i: not i.startswith('{"')
)
finite = st.floats(-3e38, 3e38, allow_nan=False)


@given(st.dictionaries(ids, texts, min_size=1), st.booleans(), st.booleans())
def test_written_collection_is_read_back(rows, compress, cached):
    with tempfile.TemporaryDirectory() as folder, _cache_from(0 if cached else 1 << 20):
        path = Path(folder) / ("raw.tsv.gz" if compress else "raw.tsv")
        write_tsv(path, rows.items())
        for _ in range(2):
            collection = open_collection(path)
            assert list(collection) == list(rows.items())
            assert [collection[row] for row in range(len(collection))] == list(rows.items())
            assert {text_id: collection.text(text_id) for text_id in rows} == rows


@given(
    st.lists(texts.filter(bool) | st.just(""), min_size=1),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
)
def test_offsets_point_at_the_lines_that_reading_in_order_gives(lines, line_end, bom, last_line_ends):
    content = line_end.join(lines) + (line_end if last_line_ends else "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines.txt"
        path.write_bytes(("\ufeff" if bom else "").encode() + content.encode())
        source = LineSource.of_file(path)
        in_order = [line for _, _, line in source]
        for cache_from in (0, 0, 1 << 20):
            with _cache_from(cache_from):
                index = LineIndex.open(source, "lines", lambda line, file, number: None)
                assert [index[row] for row in range(len(index))] == in_order


@given(st.dictionaries(plain_ids, st.dictionaries(plain_ids, finite, min_size=1), min_size=1))
def test_json_and_trec_runs_give_the_same_ranking(run):
    with tempfile.TemporaryDirectory() as folder:
        write_run_json(Path(folder) / "run.json", run)
        write_run_trec(Path(folder) / "run.trec", run, tag="x")
        from_json, from_trec = read_run(Path(folder) / "run.json"), read_run(Path(folder) / "run.trec")
    assert from_json == from_trec == run
    for query_id, documents in run.items():
        expected = [doc_id for doc_id, _ in in_rank_order(list(documents.items()))]
        assert list(from_json[query_id]) == list(from_trec[query_id]) == expected


@given(
    st.dictionaries(ids, st.dictionaries(ids, st.integers(-(2**40), 2**40) | finite)),
    st.integers(1, 50),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_nested_json_is_what_the_standard_library_reads(value, piece, ascii_only, indent):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        path.write_text(json.dumps(value, ensure_ascii=ascii_only, indent=indent), encoding="utf-8")
        before, nested_json.PIECE = nested_json.PIECE, piece
        try:
            assert {outer: dict(pairs) for outer, pairs in nested_json.iterate_nested(path)} == value
        finally:
            nested_json.PIECE = before


@given(
    st.dictionaries(ids, st.dictionaries(ids, st.floats(width=32, allow_nan=False, allow_infinity=False)), min_size=1)
)
def test_teacher_scores_are_read_back(value):
    if not any(value.values()):
        value[next(iter(value))] = {"d": 1.0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.json"
        path.write_text(json.dumps(value))
        for cache_from in (0, 0, 1 << 20):
            before, scores.CACHE_FROM_BYTES = scores.CACHE_FROM_BYTES, cache_from
            try:
                teacher = open_scores(path)
            finally:
                scores.CACHE_FROM_BYTES = before
            read = {q: dict(zip(teacher[q][0], teacher[q][1].tolist(), strict=True)) for q in teacher.query_ids}
            assert read == value


class _cache_from:
    """Set the size from which on indexes are cached, for the length of a block."""

    def __init__(self, size: int):
        self._size = size

    def __enter__(self):
        self._before, line_index.CACHE_FROM_BYTES = line_index.CACHE_FROM_BYTES, self._size

    def __exit__(self, *error):
        line_index.CACHE_FROM_BYTES = self._before
