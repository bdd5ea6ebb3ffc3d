"""Files that users bring: what cannot be right is refused where it is read, with file and place."""

import gzip
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from splade.datasets.collections import open_collection, open_queries
from splade.datasets.dataset import Dataset
from splade.datasets.qrels import read_qrels
from splade.datasets.runs import read_run, write_run_json, write_run_trec
from splade.datasets.teacher_scores import open_scores
from splade.datasets.text_collection import PairCollection
from splade.datasets.triplets import ScoredTriplets, Triplets
from splade.errors import DataError, SpladeError
from splade.evaluation.beir_protocol import evaluate_beir
from splade.evaluation.metrics import evaluate_run
from splade.storage import text_files
from splade.storage.paths import resolve_path


@pytest.fixture
def given(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Write a file of the given content."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "given"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return path

    return write


Given = Callable[[str | bytes], Path]

IMPOSSIBLE_IDS = {
    "d 1": "whitespace inside the id 'd 1'",
    "d\u00a01": "whitespace inside",
    "d\u30001": "whitespace inside",
    "d\x851": "whitespace inside",
    "d\x0b1": "whitespace inside",
    "d\x1f1": "whitespace inside",
    "d\u20281": "whitespace inside",
    " d": "whitespace around",
    "d\u2003": "whitespace around",
    "": "the id is empty",
    " ": "the id is empty",
    "d\x00": "control character",
    "d\x1b[2J": "control character",
    "\x7f": "control character",
    "d\x9b31m": "control character",
    "d\ufeff1": "byte-order mark",
}


@pytest.mark.parametrize(("some_id", "message"), IMPOSSIBLE_IDS.items())
def test_impossible_ids_are_refused_when_they_are_read(given: Given, some_id: str, message: str) -> None:
    quoted = json.dumps(some_id)
    for content, read in [
        (f"ok\tx\n{some_id}\ty\n", lambda path: list(open_collection(path))),
        (f"ok\tx\n{some_id}\ty\n", lambda path: len(open_queries(path))),
        (f'{{"_id": {quoted}, "text": "x"}}\n', lambda path: list(open_collection(path))),
        (f'{{"q": {{{quoted}: 1}}}}', read_qrels),
        (f'{{{quoted}: {{"d": 1}}}}', read_qrels),
        (f'{{"query-id": {quoted}, "corpus-id": "d", "score": 1}}\n', read_qrels),
        (f'{{"q": {{{quoted}: 1}}}}', read_run),
        (f'{{"q": {{{quoted}: 1}}}}', open_scores),
        (pickle.dumps({"q": {some_id: 1.0}}), open_scores),
        (pickle.dumps({some_id: {"d": 1.0}}), open_scores),
    ]:
        with pytest.raises(DataError, match=message):
            read(given(content))
    with pytest.raises(DataError, match=message):
        PairCollection([(some_id, "x")])


@pytest.mark.parametrize("some_id", ["q\x00\t0\td\t1", "q\t0\td\x07\t1", "q\td 1\t1", "q 1\td\t1", "q\t\t1"])
def test_impossible_ids_in_columns_of_qrels(given: Given, some_id: str) -> None:
    with pytest.raises(DataError, match=r"line 1: (the id|whitespace inside)"):
        read_qrels(given(some_id + "\n"))


def test_control_characters_in_a_trec_run(given: Given) -> None:
    for line in ("q Q0 d\x00 1 3.5 t\n", "q\x1b Q0 d 1 3.5 t\n"):
        with pytest.raises(DataError, match="control character"):
            read_run(given(line))


def test_halves_of_surrogate_pairs(given: Given) -> None:
    for content in ('{"_id": "d\\ud800", "text": "x"}\n',):
        with pytest.raises(DataError, match="surrogate"):
            list(open_collection(given(content)))
    with pytest.raises(DataError, match="surrogate"):
        PairCollection([("d\ud800", "x")])
    with pytest.raises(DataError, match="surrogate"):
        open_scores(given('{"q": {"d\\udfff": 1}}'))
    assert PairCollection([("d", "half \ud800")])[0][1] == "half \ufffd"


@pytest.mark.parametrize(
    "some_id", ["<dbpedia:Äö_(x)>", "MED-10", "日本", "a/b#c?d=e&f", "'\"\\", "e\u0301", "👩\u200d🚀", "x" * 5000]
)
def test_unusual_ids_that_are_possible_reach_the_end(tmp_path: Path, some_id: str) -> None:
    (tmp_path / "raw.tsv").write_text(f"{some_id}\tx\n")
    assert open_collection(tmp_path).text(some_id) == "x"
    write_run_trec(tmp_path / "run.trec", {some_id: {some_id: 1.0}}, "t")
    write_run_json(tmp_path / "run.json", {some_id: {some_id: 1.0}})
    assert read_run(tmp_path / "run.trec") == read_run(tmp_path / "run.json") == {some_id: {some_id: 1.0}}


@pytest.mark.parametrize(
    "name", ["my set", "", "a\tb", "..", "../../x", "/etc/x", "a//b", "a/./b", "x\ud800", "a\x1b", "n" * 300, "a\\b"]
)
def test_names_of_data_sets_that_no_folder_or_run_could_carry(name: str) -> None:
    with pytest.raises(SpladeError, match="the name of the data set=.*names a folder"):
        Dataset(name, {"q": "x"})


@pytest.mark.parametrize("name", ["MSMARCO", "cqadupstack/android", "TREC_DL_2019", "naïve-日本", "v1.0"])
def test_usual_names_of_data_sets(name: str) -> None:
    assert Dataset(name, {"q": "x"}).name == name


# Text files


def test_the_bom_of_a_joined_part_belongs_to_no_id(tmp_path: Path) -> None:
    path = tmp_path / "raw.tsv"
    path.write_bytes("\ufeffd1\tone\n".encode() + "\ufeffd2\ttwo\n".encode() + gzip.compress(b"")[:0])
    packed = tmp_path / "raw.tsv.gz"
    packed.write_bytes(b"".join(gzip.compress(f"\ufeffd{i}\tt{i}\n".encode()) for i in (1, 2)))
    for file in (path, packed):
        collection = open_collection(file)
        assert [text_id for text_id, _ in collection] == ["d1", "d2"]
        assert collection.text("d2") in ("two", "t2") and collection[1][0] == "d2"
    path.write_bytes("\ufeffq\t0\td\t1\n\ufeffq2\t0\td\t1\n".encode())
    assert list(read_qrels(path)) == ["q", "q2"]
    path.write_bytes("\ufeffq\tp\tn\n\ufeffq2\tp\tn\n".encode())
    assert Triplets(path).example(1).query == "q2"


def test_bom_offsets_survive_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splade.storage.line_index.CACHE_FROM_BYTES", 0)
    path = tmp_path / "raw.tsv"
    path.write_bytes("\ufeffd1\tone\n\ufeffd2\ttwo\nd3\tsix\n".encode())
    for _ in range(2):
        collection = open_collection(path)
        assert [collection[row] for row in range(3)] == [("d1", "one"), ("d2", "two"), ("d3", "six")]


@pytest.mark.parametrize(
    "content", ["d1\tone\rd2\ttwo\rd3\tsix\r", "d1\tone\rd2\ttwo", "d1\ta\rd2\tb\nd3\tc\n", "d1\ta\r\rd2\tb\n"]
)
def test_lines_that_end_with_cr_alone(given: Given, content: str) -> None:
    with pytest.raises(DataError, match=r"line 1: several lines.*CR alone.*tr "):
        list(open_collection(given(content)))


@pytest.mark.parametrize(
    "content", ["d1\ta lone\rCR\n", "d1\tx\r\r\n", "d1\tx\r", "d1\tx\ty\r\n", "d1\tlast column\ta\rb"]
)
def test_a_cr_inside_a_passage_is_part_of_it(given: Given, content: str) -> None:
    assert len(list(open_collection(given(content)))) == 1


@pytest.mark.parametrize(
    "heading",
    [
        "id\ttext",
        "ID\tText",
        "_id\ttitle\ttext",
        "pid\tpassage",
        "qid\tquery",
        "query_id\ttext",
        "docid\tcontents",
        "#id\ttext",
        '"id"\t"text"',
        "doc_id\turl\ttitle\tbody",
        "\ufeffid\ttext",
    ],
)
def test_headings_do_not_become_documents(given: Given, heading: str) -> None:
    path = given(f"{heading}\nd1\tone\n")
    with pytest.raises(DataError, match="line 1 is a heading.*remove it"):
        list(open_collection(path))
    with pytest.raises(DataError, match="line 1 is a heading"):
        len(open_queries(path))


@pytest.mark.parametrize("line", ["id\tthe text of a document", "1\ttext", "text\tid", "ids\ttext"])
def test_lines_that_only_resemble_headings(given: Given, line: str) -> None:
    assert len(list(open_collection(given(f"{line}\nd1\tone\n")))) == 2
    assert len(list(open_collection(given("d1\tone\nid\ttext\n")))) == 2


@pytest.mark.parametrize("heading", ["query\tpositive\tnegative", "Query\tPos\tNeg", "anchor\tpositive\tnegative"])
def test_headings_do_not_become_triplets(given: Given, heading: str) -> None:
    with pytest.raises(DataError, match="line 1 is a heading"):
        Triplets(given(heading + "\nq\tp\tn\n"))
    with pytest.raises(DataError, match="line 1: the score"):
        ScoredTriplets(given(heading + "\tscore_pos\tscore_neg\nq\tp\tn\t1\t2\n"))


def test_a_line_without_end(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LONGEST_LINE", 1 << 16)
    for end in (bytes(1 << 17), b"x" * (1 << 20)):
        for packed in (lambda content: content, gzip.compress):
            for begin, read in [
                (b"d1\tx\n", lambda path: list(open_collection(path))),
                (b"d1\tx\n", lambda path: len(open_collection(path))),
                (b"q 0 d 1\n", read_qrels),
                (b"q Q0 d 1 2.5 t\n", read_run),
                (b"q\tp\tn\n", Triplets),
            ]:
                with pytest.raises(DataError, match="line 2 is longer than"):
                    read(given(packed(begin + end)))
    assert len(list(open_collection(given(b"d1\t" + b"x" * 65000 + b"\n")))) == 1


# Paths


def test_pipes_and_devices_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", "/dev/null", "/dev/zero"):
        for read in (resolve_path, open_collection, open_queries, read_qrels, read_run, open_scores, Triplets):
            with pytest.raises(DataError, match="a pipe, socket or device"):
                read(path)


@pytest.mark.parametrize("path", ["x" * 300, "a/" * 3000, "~nobody-of-this-name/x", "", "a\x00b", "x\ud800"])
def test_paths_that_cannot_be(path: str) -> None:
    for read in (resolve_path, open_collection, read_qrels, read_run, open_scores, Triplets):
        with pytest.raises(DataError) as caught:
            read(path)
        assert len(str(caught.value)) < 6500


@pytest.mark.parametrize("inner", ["/etc/passwd", "../../x", "a/../../../etc/passwd", "conf/..", ".."])
def test_paths_do_not_lead_out_of_a_package(inner: str) -> None:
    with pytest.raises(DataError, match="leads out of the package"):
        resolve_path(f"pkg://splade/{inner}")


def test_a_file_that_may_not_be_read(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    path = given("d\tx\n")
    monkeypatch.setattr(text_files, "open", refuse, raising=False)
    for read in (lambda path: list(open_collection(path)), read_qrels, read_run, open_scores):
        with pytest.raises(DataError, match="cannot be read.*Permission denied"):
            read(path)


# Grades


@pytest.mark.parametrize(
    "grade",
    ["3000000000", "1e30", "-1e30", "1001", "-1001", "nan", "inf", "1_0", "0.5", "7187158", "1e400", "9" * 5000],
)
def test_grades_out_of_range(given: Given, grade: str) -> None:
    for content in (f"q1 0 d0 1\nq1 0 d1 {grade}\n", f"query-id\tcorpus-id\tscore\nq1\td1\t{grade}\n"):
        with pytest.raises(DataError, match="line 2: the relevance must be a whole number.*from -1000 to 1000"):
            read_qrels(given(content))


@pytest.mark.parametrize(
    "grade", ["3000000000", "1e30", "1001", "0.5", "NaN", "1e400", "true", "null", '"1"', "[1]", "{}", "1" * 5000]
)
def test_grades_out_of_range_in_json(given: Given, grade: str) -> None:
    with pytest.raises(DataError, match="'d1'|q1|too many digits"):
        read_qrels(given(f'{{"q1": {{"d1": {grade}}}}}'))
    with pytest.raises(DataError, match="line 1"):
        read_qrels(given(f'{{"query-id": "q1", "corpus-id": "d1", "score": {grade}}}\n'.replace('"1"', '"x"')))


@pytest.mark.parametrize("grade", [3_000_000_000, 10**400, 1e30, float("nan"), "x", None, True, 0.5])
def test_grades_out_of_range_in_python(grade: object) -> None:
    for evaluate in (lambda run, qrels: evaluate_run(run, qrels, ["ndcg"]), evaluate_beir):
        with pytest.raises(DataError, match="the relevance must be a whole number"):
            evaluate({"q": {"d": 1.0}}, {"q": {"d": grade}})


MEASURES = ["ndcg", "ndcg_cut_10", "map", "mrr_10", "recall_10", "P_5", "bpref", "infAP", "official", "all_trec"]


@pytest.mark.parametrize(
    "grades", [{"a": -2}, {"a": -1}, {"a": -1, "b": -2}, {"a": -1000}, {"a": -2, "b": -2, "c": -2}]
)
def test_a_query_of_negative_grades_alone_is_worth_nothing(grades: dict[str, int]) -> None:
    run = {"q": {"a": 3.0, "b": 2.0}, "other": {"a": 1.0}}
    found = evaluate_run(run, {"q": grades, "other": {"a": 1}}, MEASURES)
    assert found.per_query["ndcg"] == {"q": 0.0, "other": 1.0}
    assert all(found.per_query[name]["q"] == 0 for name in ("map", "mrr_10", "recall_10", "num_rel", "bpref"))
    assert evaluate_beir(run, {"q": grades, "other": {"a": 1}})["NDCG@10"] == 0.5


@pytest.mark.parametrize("low", [-1, -2, -9, -1000])
def test_negative_grades_count_as_not_relevant(low: int) -> None:
    run = {"q": {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}}
    negative, zero = ({"q": {"a": grade, "b": 2, "c": grade, "d": 1}} for grade in (low, 0))
    names = ["ndcg", "ndcg_cut_10", "map", "mrr_10", "recall_2", "P_5", "Rprec", "num_rel", "success_1"]
    assert evaluate_run(run, negative, names).means == evaluate_run(run, zero, names).means
    assert evaluate_beir(run, negative) == evaluate_beir(run, zero)


def test_negative_grades_in_every_form(given: Given) -> None:
    for content in (
        "q 0 d -2\nq 0 e 1\n",
        '{"q": {"d": -2, "e": 1}}',
        "query-id\tcorpus-id\tscore\nq\td\t-2\nq\te\t1\n",
    ):
        assert read_qrels(given(content)) == {"q": {"d": -2, "e": 1}}


# JSON
