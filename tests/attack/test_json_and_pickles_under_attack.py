"""JSON and pickles that are not what they should be, or do harm."""

# ruff: noqa: F401, F811 (fixtures are imported, and named where they are used)

import gzip
import pickle
import struct
from pathlib import Path

import pytest
from test_files_under_attack import Given, given

from splade.datasets import score_pickles
from splade.datasets.collections import open_collection
from splade.datasets.qrels import read_qrels
from splade.datasets.runs import read_run, write_run_json
from splade.datasets.teacher_scores import open_scores
from splade.datasets.triplets import ScoredTriplets
from splade.errors import DataError, printable, shown
from splade.evaluation.checks import check_scores
from splade.evaluation.metrics import evaluate_run

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "content",
    [
        '{"q": {"d": ' + "1" * 5000 + "}}",
        '{"q": {"d": ' + "-" + "1" * 5000 + "}}",
        '{"q": {"d": ' + str(10**400) + "}}",
        '{"q": {"d": 1e400}}',
        '{"q": {"d": 1e39}}',
        '{"q": {"d": -3.5e38}}',
        '{"q": {"d": Infinity}}',
        '{"q": ' + DEEP,
        '{"q": {"d": ' + DEEP + "]" * 100_000 + "}}",
        '{"q": {"d": ' + '{"x":' * 50_000,
        '{"q": {"d": {"e": 1}}}',
        '{"q": null}',
        '{"q": ["d"]}',
        '{"q": {"d": null}}',
        '{"q": {"d": "1"}}',
        '{"q": {"d": 1}, "q": {"e": 1}}',
        '{"q": {"d": 1, "d": 2}}',
        '{"q": {"d": 1}} {}',
        '{"q": {"d": 1}',
        '{"q": {"d": 1},}',
        '{"q": {"d": +1}}',
        '{"q": {"d": 01}}',
        '{"q" {"d": 1}}',
        "{q: {d: 1}}",
        '{"q": {"d": 0x1}}',
        '{"' + "q" * 200_000,
        "{",
    ],
)
def test_json_that_is_no_run_nor_qrels_nor_scores(given: Given, content: str) -> None:
    for read in (read_run, read_qrels, open_scores):
        with pytest.raises(DataError) as caught:
            read(given(content))
        assert str(given(content)) in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "line",
    [
        '{"_id": "d", "text": "x", "n": ' + "1" * 5000 + "}",
        '{"_id": "d", "text": "x", "n": ' + DEEP + "}",
        '{"_id": ' + "1" * 4000 + ', "text": "x"}',
        '{"_id": null, "text": "x"}',
        '{"_id": 1.5, "text": "x"}',
        '{"_id": ["d"], "text": "x"}',
        '{"_id": "d", "_id": "e", "text": "x"}',
        '{"_id": "d", "text": "x", "text": "y"}',
        '{"_id": "d", "text": null}',
        '{"_id": "d", "text": ["x"]}',
        '{"_id": "d", "title": 7, "text": "x"}',
        '{"_id": "d", "text": "x"} {"_id": "e", "text": "y"}',
        '{"_id": "d", "text": "x"}\r{"_id": "e", "text": "y"}',
        '{"' + "k" * 100_000 + '": 1}',
        "{}",
        '{"_id": "d", "text": "x"',
    ],
)
def test_lines_of_json_that_are_no_document(given: Given, line: str) -> None:
    path = given(line + "\n")
    for read in (lambda: list(open_collection(path)), lambda: len(open_collection(path))):
        with pytest.raises(DataError, match="line 1: ") as caught:
            read()
        assert len(str(caught.value)) < 500


def test_nested_keys_of_the_same_name_are_no_repetition(given: Given) -> None:
    line = '{"_id": "d", "text": "say \\"text\\"", "metadata": {"text": "other", "_id": 1}}'
    assert list(open_collection(given(line + "\n"))) == [("d", 'say "text"')]


@pytest.mark.parametrize(
    "record",
    [
        '{"query-id": "q", "corpus-id": null, "score": 1}',
        '{"corpus-id": null, "query-id": "q", "score": 1}',
        '{"query-id": null, "corpus-id": "d", "score": 1}',
        '{"query-id": "q", "corpus-id": true, "score": 1}',
        '{"query-id": "q", "corpus-id": 1.5, "score": 1}',
        '{"query-id": ["q"], "corpus-id": "d", "score": 1}',
        '{"query-id": "q", "corpus-id": "d", "score": ' + "1" * 5000 + "}",
        '{"query-id": "q", "corpus-id": "d", "score": ' + DEEP,
        '{"query-id": "q", "score": 1}',
    ],
)
def test_records_of_qrels_without_ids(given: Given, record: str) -> None:
    with pytest.raises(DataError) as caught:
        read_qrels(given(record + "\n"))
    assert len(str(caught.value)) < 500


def test_records_of_qrels_in_any_order_of_keys(given: Given) -> None:
    assert read_qrels(given('{"score": 1, "query-id": 7, "corpus-id": "d"}\n')) == {"7": {"d": 1}}
    assert read_qrels(given('{"qid": {"d": 1}, "docid": {"e": 0}}')) == {"qid": {"d": 1}, "docid": {"e": 0}}


def test_white_space_between_the_parts_of_json(given: Given) -> None:
    assert read_qrels(given('{"q":' + " \n\t\r" * 500_000 + '{"d": 1}' + " " * 3_000_000 + "}")) == {"q": {"d": 1}}


@pytest.mark.parametrize("score", ["1e39", "-1e39", "1e400", "nan", "1_0", "0x1", "", "9" * 400])
def test_scores_in_columns_that_float32_cannot_hold(given: Given, score: str) -> None:
    with pytest.raises(DataError, match="line 1"):
        read_run(given(f"q Q0 d 1 {score} t\n"))
    with pytest.raises(DataError, match="line 1"):
        ScoredTriplets(given(f"q\tp\tn\t{score}\t1\n"))


def test_scores_in_python_that_float32_cannot_hold(tmp_path: Path) -> None:
    for score in (1e39, 10**400, float("nan")):
        with pytest.raises(DataError):
            evaluate_run({"q": {"d": score}}, {"q": {"d": 1}}, ["ndcg"])
        with pytest.raises(DataError):
            write_run_json(tmp_path / "run.json", {"q": {"d": score}})


def test_scores_that_are_equal_as_float32_rank_nothing() -> None:
    (finding,) = check_scores({"q": {"a": 1e-60, "b": 1e-70}})
    assert finding.code == "scores-equal" and finding.level == "error"


# Pickles

P = pickle


def framed(body: bytes, protocol: int = 4) -> bytes:
    return P.PROTO + bytes([protocol]) + body + P.STOP


def bomb(levels: int) -> bytes:
    """Return instructions for a tuple of 2^levels items."""
    return P.EMPTY_TUPLE + (P.BINPUT + b"\x00" + P.BINGET + b"\x00" + P.TUPLE2) * levels


NAME = P.SHORT_BINUNICODE + b"\x01q"
DOC = P.SHORT_BINUNICODE + b"\x01d"
ONE = P.BINFLOAT + struct.pack(">d", 1.0)
DICT = P.EMPTY_DICT
INT_OF_5000_DIGITS = P.LONG4 + struct.pack("<i", 2100) + b"\x7f" * 2100

PICKLES = {
    "a tuple bomb as the score": framed(DICT + NAME + DICT + DOC + bomb(100) + P.SETITEM + P.SETITEM),
    "a tuple bomb as the documents": framed(DICT + NAME + bomb(100) + P.SETITEM),
    "a tuple bomb as a document id": framed(DICT + NAME + DICT + bomb(100) + ONE + P.SETITEM + P.SETITEM),
    "a tuple bomb as a query id": framed(DICT + bomb(100) + DICT + P.SETITEM),
    "a tuple bomb as the whole": framed(bomb(100)),
    "a list bomb": framed(DICT + NAME + P.EMPTY_LIST + bomb(60) + P.APPEND + P.SETITEM),
    "a set of a tuple bomb": framed(DICT + NAME + P.EMPTY_SET + P.MARK + bomb(100) + P.ADDITEMS + P.SETITEM),
    "a frozen set of a tuple bomb": framed(DICT + NAME + P.MARK + bomb(100) + P.FROZENSET + P.SETITEM),
    "DICT with a tuple bomb as its key": framed(DICT + NAME + P.MARK + bomb(100) + ONE + P.DICT + P.SETITEM),
    "an ordered dictionary made of a bomb": framed(
        DICT
        + NAME
        + P.GLOBAL
        + b"collections\nOrderedDict\n"
        + P.EMPTY_LIST
        + bomb(100)
        + ONE
        + P.TUPLE2
        + P.APPEND
        + P.TUPLE1
        + P.REDUCE
        + P.SETITEM
    ),
    "a string of 2^40 bytes": framed(DICT + P.BINUNICODE8 + struct.pack("<Q", 1 << 40) + b"x"),
    "bytes of 2^40": framed(DICT + P.BINBYTES8 + struct.pack("<Q", 1 << 40) + b"x"),
    "a byte array of 2^40": framed(DICT + P.BYTEARRAY8 + struct.pack("<Q", 1 << 40) + b"x", 5),
    "a frame of 2^40 bytes": framed(P.FRAME + struct.pack("<Q", 1 << 40) + DICT),
    "a frame of 2^63 bytes": framed(P.FRAME + struct.pack("<Q", 1 << 63) + DICT),
    "a string of 4 GB": framed(DICT + P.BINUNICODE + struct.pack("<I", 0xFFFFFFFF) + b"x"),
    "an integer of 2 GB": framed(DICT + P.LONG4 + struct.pack("<i", 0x7FFFFFFF) + b"x"),
    "an integer of negative length": framed(DICT + P.LONG4 + struct.pack("<i", -5)),
    "an integer of 5000 digits as the score": framed(
        DICT + NAME + DICT + DOC + INT_OF_5000_DIGITS + P.SETITEM + P.SETITEM
    ),
    "an integer of 5000 digits as a query": framed(DICT + INT_OF_5000_DIGITS + DICT + P.SETITEM),
    "an integer of 5000 digits as a document": framed(
        DICT + NAME + DICT + INT_OF_5000_DIGITS + ONE + P.SETITEM + P.SETITEM
    ),
    "digits of protocol 0": framed(DICT + P.INT + b"9" * 5000 + b"\n"),
    "10^400": P.dumps({"q": {"d": 10**400}}),
    "1e39": P.dumps({"q": {"d": 1e39}}),
    "deep dictionaries": framed(DICT + (NAME + DICT) * 50_000 + P.SETITEM * 50_000),
    "deep lists": framed(DICT + NAME + P.EMPTY_LIST * 50_000 + P.APPEND * 49_999 + P.SETITEM),
    "deep tuples": framed(DICT + NAME + P.EMPTY_TUPLE + P.TUPLE1 * 50_000 + P.SETITEM),
    "deep tuples as a key": framed(DICT + P.EMPTY_TUPLE + P.TUPLE1 * 50_000 + DICT + P.SETITEM),
    "many marks": framed(P.MARK * 200_000),
    "documents 1 and '1'": P.dumps({"q": {1: 1.0, "1": 2.0}}),
    "queries 1 and '1'": P.dumps({1: {"d": 1.0}, "1": {"d": 2.0}}),
    "a repeated document": framed(DICT + NAME + DICT + P.MARK + DOC + ONE + DOC + ONE + P.SETITEMS + P.SETITEM),
    "a repeated query": framed(DICT + P.MARK + NAME + DICT + DOC + ONE + P.SETITEM + NAME + DICT + P.SETITEMS),
    "trailing text": P.dumps({"q": {"d": 1.0}}) + b"x",
    "a second pickle": P.dumps({"q": {"d": 1.0}}) + P.dumps({"q2": {"d": 1.0}}),
    "trailing bytes inside the frame": framed(
        P.FRAME
        + struct.pack("<Q", len(DICT + NAME + DICT + DOC + ONE) + 8)
        + DICT
        + NAME
        + DICT
        + DOC
        + ONE
        + P.SETITEM
        + P.SETITEM
        + P.STOP
        + b"hidde"
    ),
    "two outermost dictionaries": framed(DICT + NAME + DICT + DOC + ONE + P.SETITEM + P.SETITEM + P.POP + DICT),
    "a duplicated dictionary": framed(DICT + NAME + DICT + P.DUP + P.SETITEM),
    "entries without a dictionary": framed(P.NONE + NAME + DICT + DOC + ONE + P.SETITEM + P.SETITEM),
    "documents of a list": framed(DICT + NAME + P.EMPTY_LIST + DOC + ONE + P.SETITEM + P.SETITEM),
    "a class whose attributes are set": framed(
        P.GLOBAL + b"numpy\ndtype\n" + P.NONE + DICT + NAME + ONE + P.SETITEM + P.TUPLE2 + P.BUILD
    ),
    "a function that is changed": framed(P.GLOBAL + b"builtins\nint\n" + DICT + NAME + ONE + P.SETITEM + P.BUILD),
    "int of a text": framed(
        DICT + NAME + DICT + DOC + P.GLOBAL + b"builtins\nint\n" + NAME + P.TUPLE1 + P.REDUCE + P.SETITEM + P.SETITEM
    ),
    "os.system": framed(P.GLOBAL + b"os\nsystem\n" + NAME + P.TUPLE1 + P.REDUCE),
    "INST of os.system": framed(P.MARK + NAME + P.INST + b"os\nsystem\n"),
    "OBJ of os.system": framed(P.MARK + P.GLOBAL + b"os\nsystem\n" + NAME + P.OBJ),
    "NEWOBJ": framed(P.GLOBAL + b"builtins\nint\n" + P.EMPTY_TUPLE + P.NEWOBJ),
    "an extension code": framed(P.EXT1 + b"\x01"),
    "a persistent id": framed(P.PERSID + b"x\n"),
    "a global of a long name": framed(P.GLOBAL + b"x" * 1_000_000 + b"\ny\n"),
    "an attribute of an attribute": framed(
        P.SHORT_BINUNICODE + b"\x08builtins" + P.SHORT_BINUNICODE + b"\x0bint.__doc__" + P.STACK_GLOBAL
    ),
    "a complex number": P.dumps({"q": {"d": 1j}}),
    "bytes as an id": P.dumps({"q": {b"d": 1.0}}),
    "nothing as an id": P.dumps({"q": {None: 1.0}}),
    "nothing as a score": P.dumps({"q": {"d": None}}),
    "nothing as the documents": P.dumps({"q": None}),
    "truth as a score": P.dumps({"q": {"d": True}}),
    "an empty dictionary": P.dumps({}),
    "an empty file": b"",
    "one byte": b"\x80",
    "a protocol of the future": b"\x80\xff}.",
    "a memory that was never written": framed(P.BINGET + b"\x05"),
    "a number that is not numpy's": framed(
        DICT
        + NAME
        + DICT
        + DOC
        + P.GLOBAL
        + b"numpy.core.multiarray\nscalar\n"
        + NAME
        + NAME
        + P.TUPLE2
        + P.REDUCE
        + P.SETITEM
        + P.SETITEM
    ),
}


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("packed", [False, True])
def test_hostile_pickles(tmp_path: Path, name: str, packed: bool) -> None:
    path = tmp_path / "scores.pkl"
    path.write_bytes(gzip.compress(PICKLES[name], 1) if packed else PICKLES[name])
    with pytest.raises(DataError, match=r"scores\.pkl: ") as caught:
        open_scores(path)
    assert len(str(caught.value)) < 500


def test_the_reader_of_pickles_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "scores.pkl"
    for content in PICKLES.values():
        path.write_bytes(content)
        with pytest.raises(DataError):
            open_scores(path)
    assert not {"q", "d"} & {*vars(score_pickles._NumberType), *vars(score_pickles._type_of_values)}
    path.write_bytes(P.dumps({"q": {"d": 1.5}}))
    assert open_scores(path)["q"][1].tolist() == [1.5]


def test_a_pickle_of_one_endless_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splade.datasets.score_pickles._LONGEST_ENTRY", 1 << 18)
    path = tmp_path / "scores.pkl"
    path.write_bytes(gzip.compress(framed(DICT + NAME + DICT + P.MARK + P.NONE * 1_000_000)))
    with pytest.raises(DataError, match="an entry of more than"):
        open_scores(path)
    path.write_bytes(P.dumps({f"q{i}": {f"d{j}": 0.5 for j in range(20)} for i in range(2000)}))
    assert len(open_scores(path)) == 2000


# Messages


def test_values_in_messages_are_short_and_harmless() -> None:
    assert shown([[[]]]) == "a list" and shown(10**5000).startswith("an integer of") and len(shown("x" * 10**6)) < 70
    assert printable("a\x1b[31mred\x9b\u202e\r\n\tb") == "a\\x1b[31mred\\x9b\\u202e\\r\n\tb"
