"""Training data: teacher scores in every form, triplets, hard negatives and what is left out of them."""

import collections
import gzip
import json
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from written_files import write_tsv

from splade.datasets import hard_negatives
from splade.datasets import teacher_scores as scores
from splade.datasets.collections import open_collection
from splade.datasets.hard_negatives import HardNegatives
from splade.datasets.runs import write_run_json, write_run_trec
from splade.datasets.teacher_scores import SCORES_SUFFIX, open_scores
from splade.datasets.training_sets import TrainingExample
from splade.datasets.triplets import ScoredTriplets, Triplets, open_triplets
from splade.errors import ConfigError, DataError
from splade.storage import line_index

SCORES = {"1": {"10": 2.5, "20": -1.0}, "2": {}, "3": {"30": 7.0}}
INTEGERS = {int(q): {int(d): score for d, score in docs.items()} for q, docs in SCORES.items()}


def as_dict(teacher) -> dict[str, dict[str, float]]:
    return {q: dict(zip(teacher[q][0], teacher[q][1].tolist(), strict=True)) for q in teacher.query_ids}


def default_dicts():
    nested = collections.defaultdict(dict)
    nested.update(INTEGERS)
    return nested


def numpy_numbers(kind):
    return {np.int64(q): {np.int32(d): kind(s) for d, s in docs.items()} for q, docs in INTEGERS.items()}


@pytest.mark.parametrize("cache_from", [0, 1 << 20])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        json.dumps(SCORES).encode(),
        json.dumps(SCORES, indent=1).encode(),
        pickle.dumps(SCORES),
        pickle.dumps(INTEGERS, protocol=2),
        pickle.dumps(default_dicts()),
        pickle.dumps(numpy_numbers(np.float32)),
        pickle.dumps(numpy_numbers(np.dtype(">f8").type)),
    ],
)
def test_every_form_of_scores_gives_the_same(tmp_path, monkeypatch, content, compress, cache_from):
    monkeypatch.setattr(scores, "CACHE_FROM_BYTES", cache_from)
    path = tmp_path / "scores"
    path.write_bytes(gzip.compress(content) if compress else content)
    teacher = open_scores(path)
    assert len(teacher) == 3 and as_dict(teacher) == SCORES
    assert teacher["1"][1].dtype == np.float32
    assert teacher.n_documents("1") == 2 and teacher.n_documents("2") == 0
    assert "3" in teacher and "4" not in teacher
    assert as_dict(pickle.loads(pickle.dumps(teacher))) == SCORES
    with pytest.raises(DataError, match="no scores for the query '4'"):
        teacher["4"]


def test_a_retrieved_run_is_a_score_file(tmp_path):
    run = {"1": {"10": 2.5, "20": -1.0}, "3": {"30": 7.0}}
    write_run_json(tmp_path / "run.json", run)
    write_run_trec(tmp_path / "run.trec", run, tag="x")
    assert as_dict(open_scores(tmp_path / "run.json")) == as_dict(open_scores(tmp_path / "run.trec")) == run


def test_scores_are_read_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "CACHE_FROM_BYTES", 0)
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(SCORES))
    open_scores(path)
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, path.name + SCORES_SUFFIX}
    with monkeypatch.context() as patch:
        patch.setattr(scores, "_write_columns", None)
        assert as_dict(open_scores(path)) == SCORES
    path.write_text('{"x": {"y": 1}}')
    os.utime(path, ns=(5, 5))
    assert as_dict(open_scores(path)) == {"x": {"y": 1.0}}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_are_read_in_bounded_memory(tmp_path, monkeypatch, protocol):
    monkeypatch.setattr(scores, "CACHE_FROM_BYTES", 0)
    content = {q: {d: q + d / 4 for d in range(q % 7, 20)} for q in range(5000)}
    path = tmp_path / "scores.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    teacher, peak = _with_peak_memory(lambda: open_scores(path))
    _, peak_of_loading = _with_peak_memory(lambda: pickle.loads(path.read_bytes()))
    assert peak < peak_of_loading / 2
    assert as_dict(teacher) == {str(q): {str(d): s for d, s in docs.items()} for q, docs in content.items()}


def _with_peak_memory(function):
    tracemalloc.start()
    try:
        return function(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /tmp/splade-was-here",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(dict.fromkeys((1, 2), {3: 4.0})), "share one dictionary"),
        (pickle.dumps({1: {2: Malicious()}}), r"posix.system, which is refused"),
        (pickle.dumps({1: {2: open}}), "io.open.*refused|builtins.open.*refused"),
        (pickle.dumps({1: {2: np.zeros(2)}}), "_reconstruct.*refused|refused"),
        (pickle.dumps({1: {2: np.complex64(1)}}), "numpy type 'c8'"),
        (pickle.dumps([1, 2]), "got a list"),
        (pickle.dumps({1: [2]}), "query '1'.*got a list"),
        (pickle.dumps({1: {2: "high"}}), "query '1': a score must be a finite number, got 'high'"),
        (pickle.dumps({1: {2: float("nan")}}), "finite number"),
        (pickle.dumps({1.5: {2: 1.0}}), "an id must be text or an integer, got 1.5"),
        (pickle.dumps({True: {2: 1.0}}), "an id must be text or an integer"),
        (pickle.dumps({" 1": {2: 1.0}}), "whitespace around the id"),
        (pickle.dumps(SCORES)[:-9], "unreadable pickle"),
        (b"\x80\x04garbage", "unreadable pickle"),
        (gzip.compress(pickle.dumps({i: {i: 0.5} for i in range(999)}))[:-99], "unreadable pickle"),
        (pickle.dumps({1: {}}), "no scores in it"),
        (pickle.dumps({1: {2: 1.0}, "1": {2: 1.0}}), "query '1' occurs twice"),
    ],
)
def test_wrong_pickles(tmp_path, content, message):
    path = tmp_path / "scores.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_scores(path)
    assert not os.path.exists("/tmp/splade-was-here")


def test_scores_that_cannot_be(tmp_path):
    with pytest.raises(DataError, match="a folder"):
        open_scores(tmp_path)
    path = tmp_path / "scores.json"
    path.write_text('{"q\\nr": {"d": 1}}')
    with pytest.raises(DataError, match="whitespace inside the id"):
        open_scores(path)
    path.write_text('{"q": {"d\\ne": 1, "f": 2}}')
    with pytest.raises(DataError, match="whitespace inside the id"):
        open_scores(path)


@pytest.mark.parametrize("cache_from", [0, 1 << 20])
def test_triplets(tmp_path, monkeypatch, cache_from):
    monkeypatch.setattr(line_index, "CACHE_FROM_BYTES", cache_from)
    write_tsv(tmp_path / "raw.tsv", [(f"q{i}", f"p\u2028{i}", f"n{i}") for i in range(9)])
    triplets = open_triplets(tmp_path)
    assert len(triplets) == 9 and triplets.report.n_examples == 9
    assert triplets.example(4) == triplets.example(4, 77) == TrainingExample("q4", "p\u20284", ["n4"], None, None)
    with pytest.raises(IndexError):
        triplets.example(9)
    assert [triplets.example(i).query for i in range(9)] == [f"q{i}" for i in range(9)]


def test_triplets_with_scores(tmp_path):
    (tmp_path / "raw.tsv").write_bytes(b"q\tp\tn\t1e1\t-2.5\r\n")
    assert ScoredTriplets(tmp_path).example(0) == TrainingExample("q", "p", ["n"], 10.0, [-2.5])


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (Triplets, "q\tp\tn\nq\tp\n", "raw.tsv: line 2: 2 columns; expected three"),
        (Triplets, "q\tp\tn\t1\t2\n", "line 1: 5 columns.*triplets_with_distil"),
        (Triplets, "", "no triplets"),
        (ScoredTriplets, "q\tp\tn\t1\t2\n\nq\tp\tn\n", "line 3: 3 columns; expected five"),
        (ScoredTriplets, "q\tp\tn\t1\tx\n", "line 1: the score.*'x'"),
        (ScoredTriplets, "q\tp\tn\tnan\t1\n", "line 1: the score.*'nan'"),
    ],
)
def test_wrong_triplets(tmp_path, kind, content, message):
    (tmp_path / "raw.tsv").write_text(content)
    with pytest.raises(DataError, match=message):
        kind(tmp_path)


@pytest.fixture
def world(tmp_path):
    """Ten documents, five queries, and a function that opens hard negatives on given scores and qrels."""
    write_tsv(tmp_path / "docs.tsv", [(f"d{i}", f"doc {i}") for i in range(10)])
    write_tsv(tmp_path / "queries.tsv", [(f"q{i}", f"query {i}") for i in range(5)])

    def opened(teacher, qrels, n_negatives=2, seed=0, **options):
        (tmp_path / "scores.json").write_text(json.dumps(teacher))
        queries, docs = open_collection(tmp_path / "queries.tsv"), open_collection(tmp_path / "docs.tsv")
        return HardNegatives(open_scores(tmp_path / "scores.json"), qrels, queries, docs, n_negatives, seed, **options)

    return opened


TEN = {f"d{i}": float(i) for i in range(10)}


def test_hard_negatives_are_scored_documents_that_are_not_relevant(world):
    dataset = world({"q0": TEN}, {"q0": {"d1": 1, "d2": 2, "d3": 0}}, n_negatives=3)
    for draw in range(50):
        example = dataset.example(0, draw)
        assert example.query == "query 0"
        assert example.positive in ("doc 1", "doc 2")
        assert example.positive_score == float(example.positive[-1])
        assert len(set(example.negatives)) == 3
        assert not {"doc 1", "doc 2"} & set(example.negatives)
        assert example.negative_scores == [float(text[-1]) for text in example.negatives]
    drawn = {text for draw in range(50) for text in dataset.example(0, draw).negatives}
    assert drawn == {f"doc {i}" for i in (0, 3, 4, 5, 6, 7, 8, 9)}


def test_positive_without_a_score_gets_the_best_of_the_query(world):
    dataset = world({"q0": {"d1": 3.0, "d2": 8.0}}, {"q0": {"d5": 1}})
    example = dataset.example(0)
    assert example.positive == "doc 5" and example.positive_score == 8.0


def test_drawing_depends_on_seed_index_and_draw_only(world):
    teacher, qrels = {f"q{i}": TEN for i in range(5)}, {f"q{i}": {"d0": 1} for i in range(5)}
    dataset = world(teacher, qrels, seed=3)
    expected = {(i, draw): dataset.example(i, draw) for i in range(5) for draw in range(6)}
    again = pickle.loads(pickle.dumps(dataset))
    for index, draw in reversed(expected):
        assert again.example(index, draw) == expected[index, draw]
    assert len({tuple(example.negatives) for example in expected.values()}) > 15
    other_seed = world(teacher, qrels, seed=4)
    assert any(other_seed.example(i, draw) != example for (i, draw), example in expected.items())


@pytest.mark.parametrize("n_workers", [0, 2])
def test_drawing_does_not_depend_on_workers(world, n_workers):
    from torch.utils.data import DataLoader

    from splade.training.sampler import TrainingSampler

    dataset = world({f"q{i}": TEN for i in range(5)}, {f"q{i}": {"d0": 1} for i in range(5)})
    sampler = TrainingSampler(dataset, np.arange(5), seed=0, length=20)
    loader = DataLoader(sampler, batch_size=3, num_workers=n_workers, collate_fn=list)
    assert [example for batch in loader for example in batch] == [sampler[position] for position in range(20)]


def test_queries_that_cannot_be_used_are_counted_with_reasons(world):
    teacher = {"q0": TEN, "q1": TEN, "q2": TEN, "q3": {"d0": 1}, "q9": TEN, "not-judged": TEN, "also": {}}
    qrels = {"q0": {"d0": 1}, "q1": {"d0": 0}, "q2": {"absent": 1}, "q3": {"d0": 1}, "q9": {"d0": 1}}
    dataset = world(teacher, qrels)
    assert len(dataset) == dataset.report.n_examples == 1
    assert dataset.report.left_out == {
        hard_negatives.NO_POSITIVE: 1,
        hard_negatives.NO_POSITIVE_TEXT: 1,
        hard_negatives.NO_CANDIDATE: 1,
        hard_negatives.NO_TEXT: 1,
        hard_negatives.NOT_JUDGED: 2,
    }
    assert "left out: 2 scored queries without judgements (the first: 'not-judged')" in str(dataset.report)


def test_too_few_candidates_are_repeated_evenly(world):
    teacher = {"q0": TEN, "q1": {"d0": 1, "d1": 2, "d2": 3, "d3": 4}}
    dataset = world(teacher, {"q0": {"d0": 1}, "q1": {"d0": 1}}, n_negatives=8)
    for draw in range(20):
        negatives = dataset.example(1, draw).negatives
        assert sorted(map(negatives.count, {"doc 1", "doc 2", "doc 3"})) == [2, 3, 3]
        assert dataset.example(1, draw).negative_scores == [float(text[-1]) + 1 for text in negatives]
        assert len(set(dataset.example(0, draw).negatives)) == 8
    assert dataset.report.left_out == {} and dataset.report.remarks == {hard_negatives.REPEATED: 1}
    line = "1 queries have too few candidate negatives and repeat them (the first: 'q1')"
    assert str(dataset.report).splitlines() == ["2 training examples", line]


def test_judged_query_without_scores_is_an_error_unless_left_out(world):
    for teacher in ({"q0": TEN}, {"q0": TEN, "q1": {}}):
        qrels = {"q0": {"d0": 1}, "q1": {"d1": 1}}
        with pytest.raises(DataError, match="1 judged queries without any teacher score, the first is 'q1'"):
            world(teacher, qrels)
        dataset = world(teacher, qrels, incomplete="leave_out")
        assert len(dataset) == 1 and dataset.report.left_out == {hard_negatives.NO_SCORES: 1}


def test_missing_positive_is_an_error_unless_left_out(world):
    qrels = {"q0": {"d0": 1, "gone": 1}}
    teacher = {"q0": TEN | {"gone": 5.0}}
    with pytest.raises(DataError, match="docs.tsv: 1 positives.*'gone' of the query 'q0'"):
        world(teacher, qrels)
    dataset = world(teacher, qrels, n_negatives=9, incomplete="leave_out")
    assert dataset.example(0).positive == "doc 0" and len(set(dataset.example(0).negatives)) == 9


def test_missing_negative_is_named_when_it_is_drawn(world):
    dataset = world({"q0": {"d0": 1, "gone": 5.0}}, {"q0": {"d0": 1}}, n_negatives=1)
    with pytest.raises(DataError, match="scores.json: query 'q0': document 'gone'"):
        dataset.example(0)


def test_nothing_left_is_an_error_that_says_why(world):
    with pytest.raises(DataError, match="no query can be used(.|\n)*1 queries without a candidate negative"):
        world({"q0": {"d0": 1}}, {"q0": {"d0": 1}})


@pytest.mark.parametrize("options", [{"n_negatives": 0}, {"seed": -1}])
def test_settings_out_of_range(world, options):
    with pytest.raises(ConfigError):
        world({"q0": TEN}, {"q0": {"d0": 1}}, **options)
