"""Derive the training files of data/toy from the hand-written passages, queries and judgements.

Written by hand: the collection, the queries, the qrels. Made here, without chance and without a model:

- `hard_negatives/scores.json.gz`: 24 scored candidates per training query,
- `triplets/raw.tsv`: each training query eight times, with eight different negatives,
- `triplets_with_scores/raw.tsv`: the same lines and the two teacher scores.

The teacher is a formula, not a network. It adds two lexical similarities (cosine of TF-IDF vectors) to a constant for
the hand-given grade, so that an answer scores far above a related passage, and that one above all others:

    score(q, d) = GRADE_LOGIT[grade(q, d)] + SIMILARITY_WEIGHT * (cosine(q, d) + max over answers a of q: cosine(a, d))

Usage: python scripts/make_toy_data.py [--check] [--data-dir data/toy]
"""

import argparse
import gzip
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

GRADE_LOGIT = {2: 2.0, 1: -1.0, 0: -5.0}
SIMILARITY_WEIGHT = 3.0
CANDIDATES_PER_QUERY = 24
SIMILAR_TO_ANSWER = 12
SIMILAR_TO_QUERY = 6
HARD_NEGATIVES = 5
OTHER_NEGATIVES = 3
SPREAD = 89  # coprime to the number of passages: steps of this size visit the whole collection

Vector = dict[str, float]
Scores = dict[str, dict[str, float]]


def read_tsv(path: Path) -> dict[str, str]:
    """Read `id <TAB> text` lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t", maxsplit=1) for line in lines)


def tfidf_vectors(texts: dict[str, str], corpus: dict[str, str]) -> dict[str, Vector]:
    """Unit-length TF-IDF vectors of `texts`, with the document frequencies of `corpus`; unknown words are left out."""

    def words(text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.lower())

    document_frequency = Counter(word for text in corpus.values() for word in set(words(text)))
    vectors = {}
    for text_id, text in texts.items():
        counts = Counter(word for word in words(text) if word in document_frequency)
        vector = {word: n * math.log(len(corpus) / document_frequency[word]) for word, n in sorted(counts.items())}
        length = math.sqrt(sum(weight * weight for weight in vector.values()))
        vectors[text_id] = {word: weight / length for word, weight in vector.items()} if length > 0 else {}
    return vectors


def cosine(a: Vector, b: Vector) -> float:
    """Cosine of two vectors of unit length, rounded so that every platform orders them alike."""
    return round(sum(weight * b.get(word, 0.0) for word, weight in a.items()), 9)


def most_similar(similarity: dict[str, float]) -> list[str]:
    """Ids by falling similarity; equal ones in the order of their numbers."""
    return sorted(similarity, key=lambda doc_id: (-similarity[doc_id], int(doc_id)))


def teacher_scores(corpus: dict[str, str], queries: dict[str, str], qrels: dict[str, dict[str, int]]) -> Scores:
    """Score the candidates of each query, best first.

    Candidates are the judged passages, then those most similar to an answer (near misses), then those most similar to
    the query, then passages from all over the collection.
    """
    passages = tfidf_vectors(corpus, corpus)
    doc_ids = list(corpus)
    scores: Scores = {}
    for number, (query_id, query) in enumerate(tfidf_vectors(queries, corpus).items()):
        grades = qrels[query_id]
        answers = [doc_id for doc_id, grade in grades.items() if grade == 2]
        to_answer = {d: max(cosine(passages[a], passages[d]) for a in answers) for d in doc_ids}
        to_query = {d: cosine(query, passages[d]) for d in doc_ids}
        candidates = list(grades)
        candidates += most_similar(to_answer)[:SIMILAR_TO_ANSWER]
        candidates += most_similar(to_query)[:SIMILAR_TO_QUERY]
        candidates += [doc_ids[(number + step * SPREAD) % len(doc_ids)] for step in range(CANDIDATES_PER_QUERY)]
        scored = {}
        for doc_id in list(dict.fromkeys(candidates))[:CANDIDATES_PER_QUERY]:
            similarity = to_query[doc_id] + to_answer[doc_id]
            scored[doc_id] = round(GRADE_LOGIT[grades.get(doc_id, 0)] + SIMILARITY_WEIGHT * similarity, 3)
        scores[query_id] = {doc_id: scored[doc_id] for doc_id in most_similar(scored)}
    return scores


def choose_triplets(scores: Scores, qrels: dict[str, dict[str, int]]) -> list[tuple[str, str, str]]:
    """(query, answer, negative) ids: every query once per round, so that neighbouring lines have different queries.

    Negatives are unjudged candidates: the ones with the highest scores and the ones with the lowest.
    """
    rounds = HARD_NEGATIVES + OTHER_NEGATIVES
    triplets = []
    for turn in range(rounds):
        for query_id, candidates in scores.items():
            answers = [doc_id for doc_id, grade in qrels[query_id].items() if grade == 2]
            unjudged = [doc_id for doc_id in candidates if doc_id not in qrels[query_id]]
            negatives = unjudged[:HARD_NEGATIVES] + unjudged[-OTHER_NEGATIVES:]
            triplets.append((query_id, answers[turn % len(answers)], negatives[turn]))
    return triplets


def derived_files(data_dir: Path) -> dict[str, bytes]:
    """Content of every derived file, by its path inside `data_dir`."""
    corpus = read_tsv(data_dir / "collection" / "raw.tsv")
    queries = read_tsv(data_dir / "queries" / "train" / "raw.tsv")
    qrels = json.loads((data_dir / "qrels" / "train.json").read_text(encoding="utf-8"))
    scores = teacher_scores(corpus, queries, qrels)
    plain, scored = [], []
    for query_id, positive, negative in choose_triplets(scores, qrels):
        texts = f"{queries[query_id]}\t{corpus[positive]}\t{corpus[negative]}"
        plain.append(f"{texts}\n")
        scored.append(f"{texts}\t{scores[query_id][positive]}\t{scores[query_id][negative]}\n")
    return {
        "triplets/raw.tsv": "".join(plain).encode(),
        "triplets_with_scores/raw.tsv": "".join(scored).encode(),
        "hard_negatives/scores.json.gz": (json.dumps(scores, indent=1) + "\n").encode(),
    }


def read_content(path: Path) -> bytes | None:
    """Content of a file, unpacked if its name ends in .gz (zlib versions pack differently); None if it is missing."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def main() -> int:
    """Write the derived files, or with --check compare them with those that are there."""
    parser = argparse.ArgumentParser(description="Derive triplets and teacher scores of the toy data.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a file differs")
    parser.add_argument("--data-dir", type=Path, default=Path(__file__).resolve().parent.parent / "data" / "toy")
    arguments = parser.parse_args()
    different = 0
    for name, content in derived_files(arguments.data_dir).items():
        path = arguments.data_dir / name
        if read_content(path) == content:
            print(f"up to date  {path}")
        elif arguments.check:
            different += 1
            print(f"differs     {path} (run this script without --check)")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
            print(f"written     {path}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
