"""The toy collection is complete, consistent, and its derived files are what the script makes."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / "data" / "toy"


def rows(name: str) -> list[list[str]]:
    return [line.split("\t") for line in (TOY / name).read_text(encoding="utf-8").splitlines()]


def grades(split: str) -> dict[str, dict[str, int]]:
    return json.loads((TOY / "qrels" / f"{split}.json").read_text(encoding="utf-8"))


def teacher() -> dict[str, dict[str, float]]:
    with gzip.open(TOY / "hard_negatives" / "scores.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "make_toy_data.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def corpus() -> dict[str, str]:
    return dict(rows("collection/raw.tsv"))


def test_the_collection_has_240_different_passages_of_25_to_60_words(corpus):
    assert [row[0] for row in rows("collection/raw.tsv")] == [str(number) for number in range(1, 241)]
    assert len(set(corpus.values())) == 240
    assert [doc_id for doc_id, text in corpus.items() if not 25 <= len(text.split()) <= 60] == []


@pytest.mark.parametrize(("split", "letter", "count"), [("train", "t", 60), ("heldout", "h", 25)])
def test_every_query_has_an_answer_in_the_collection(corpus, split, letter, count):
    queries = dict(rows(f"queries/{split}/raw.tsv"))
    assert list(queries) == [f"{letter}{number:02d}" for number in range(1, count + 1)]
    assert list(grades(split)) == list(queries)
    for judged in grades(split).values():
        assert set(judged) <= set(corpus)
        assert set(judged.values()) <= {1, 2}
        assert 2 in judged.values()


def test_no_query_is_in_both_splits():
    train, heldout = ({text.lower() for _, text in rows(f"queries/{split}/raw.tsv")} for split in ("train", "heldout"))
    assert len(train) == 60
    assert len(heldout) == 25
    assert not train & heldout


def test_held_out_queries_ask_about_every_topic():
    answers = [int(doc_id) for judged in grades("heldout").values() for doc_id, grade in judged.items() if grade == 2]
    assert {(answer - 1) // 12 for answer in answers} == set(range(20))


def test_the_teacher_ranks_answers_above_related_passages_above_the_rest():
    qrels, scores = grades("train"), teacher()
    assert list(scores) == list(qrels)
    for query_id, candidates in scores.items():
        by_grade: dict[int, list[float]] = {0: [], 1: [], 2: []}
        for doc_id, score in candidates.items():
            by_grade[qrels[query_id].get(doc_id, 0)].append(score)
        assert len(candidates) == 24
        assert set(qrels[query_id]) <= set(candidates)
        assert min(by_grade[2]) > max(by_grade[1] + by_grade[0]) + 2
        assert min(by_grade[1] + [float("inf")]) > max(by_grade[0])


def test_triplets_pair_an_answer_with_an_unjudged_passage(corpus):
    id_of = {text: doc_id for doc_id, text in corpus.items()}
    query_id_of = {text: query_id for query_id, text in rows("queries/train/raw.tsv")}
    qrels, scores = grades("train"), teacher()
    plain, scored = rows("triplets/raw.tsv"), rows("triplets_with_scores/raw.tsv")
    assert len({tuple(row) for row in plain}) == 480
    assert [row[:3] for row in scored] == plain
    for query, positive, negative, positive_score, negative_score in scored:
        query_id = query_id_of[query]
        assert qrels[query_id][id_of[positive]] == 2
        assert id_of[negative] not in qrels[query_id]
        assert float(positive_score) == scores[query_id][id_of[positive]]
        assert float(negative_score) == scores[query_id][id_of[negative]]


def test_derived_files_are_what_the_script_makes():
    result = run_script("--check")
    assert result.returncode == 0, result.stdout + result.stderr


def test_check_notices_a_changed_file_and_the_script_mends_it(tmp_path):
    copy = tmp_path / "toy"
    shutil.copytree(TOY, copy)
    with open(copy / "triplets" / "raw.tsv", "a", encoding="utf-8") as file:
        file.write("one\tmore\tline\n")
    assert run_script("--check", "--data-dir", str(copy)).returncode == 1
    assert run_script("--data-dir", str(copy)).returncode == 0
    assert (copy / "triplets" / "raw.tsv").read_bytes() == (TOY / "triplets" / "raw.tsv").read_bytes()
