"""What must hold for every collection: search equals the full sort, and how an index came about does not matter."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from splade.inverted_index import IndexBuilder, InvertedIndex, add_documents, delete_documents
from splade.vectors import SparseVectors

VOCAB = 12
EIGHTHS = st.integers(0, 16).map(lambda n: max(0, n - 8) / 8)  # half of them zero; sums are exact in float32


def matrices(min_rows: int, max_rows: int) -> st.SearchStrategy[np.ndarray]:
    row = st.lists(EIGHTHS, min_size=VOCAB, max_size=VOCAB)
    return st.lists(row, min_size=min_rows, max_size=max_rows).map(lambda rows: np.array(rows, np.float32))


def build(folder: Path | str, documents: np.ndarray, doc_ids: list[str] | None = None, **options) -> InvertedIndex:
    builder = IndexBuilder(folder, VOCAB, **options)
    doc_ids = [f"d{i}" for i in range(len(documents))] if doc_ids is None else doc_ids
    for i in range(0, len(documents), 5):
        builder.add(doc_ids[i : i + 5], SparseVectors.from_dense(documents[i : i + 5]))
    builder.finish()
    return InvertedIndex.open(folder)


def full_sort(documents: np.ndarray, query: np.ndarray, top_k: int, threshold: float) -> tuple[list[int], list[float]]:
    scores = documents @ query
    order = [d for d in np.argsort(-scores, kind="stable").tolist() if scores[d] > threshold][:top_k]
    return order, scores[order].tolist()


@settings(max_examples=80, deadline=None)
@given(matrices(1, 40), matrices(0, 4), st.integers(1, 50), st.sampled_from([0.0, 0.5, 2.0]))
def test_top_k_equals_the_full_sort(documents, queries, top_k, threshold):
    queries = queries.reshape(-1, VOCAB)
    with tempfile.TemporaryDirectory() as folder:
        results = build(folder, documents).search(SparseVectors.from_dense(queries), top_k, threshold)
    assert len(results) == len(queries)
    for i, query in enumerate(queries):
        doc_idx, scores = results.row(i)
        assert (doc_idx.tolist(), scores.tolist()) == full_sort(documents, query, top_k, threshold)


@settings(max_examples=30, deadline=None)
@given(matrices(1, 30))
def test_saving_and_loading_is_the_identity(documents):
    with tempfile.TemporaryDirectory() as folder:
        index = build(folder, documents)
        loaded = [index.vector(i) for i in range(index.n_docs)]
        index.verify()
    expected = SparseVectors.from_dense(documents)
    for (terms, weights), (expected_terms, expected_weights) in zip(loaded, expected, strict=True):
        assert terms.tolist() == expected_terms.tolist()
        assert weights.tolist() == expected_weights.tolist()


@settings(max_examples=30, deadline=None)
@given(matrices(1, 30), matrices(1, 2), st.randoms(use_true_random=False))
def test_permuting_documents_permutes_the_run(documents, queries, random):
    order = list(range(len(documents)))
    random.shuffle(order)
    queries = SparseVectors.from_dense(queries)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        one = build(first, documents)
        other = build(second, documents[order], [f"d{i}" for i in order])
        for i in range(len(queries)):
            runs = []
            for index in (one, other):
                doc_idx, scores = index.search(queries, len(documents)).row(i)
                runs.append(dict(zip(index.doc_ids(doc_idx), scores.tolist(), strict=True)))
            assert runs[0] == runs[1]


@settings(max_examples=30, deadline=None)
@given(matrices(1, 30), st.integers(1, 40))
def test_merging_segments_equals_one_build(documents, segment_postings):
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        one = build(first, documents)
        many = build(second, documents, segment_postings=segment_postings)
        assert one.path.read_bytes() == many.path.read_bytes()


@settings(max_examples=30, deadline=None)
@given(matrices(2, 30), st.data())
def test_adding_and_deleting_equals_a_rebuild(documents, data):
    ids = [f"d{i}" for i in range(len(documents))]
    cut = data.draw(st.integers(1, len(documents) - 1))
    deleted = data.draw(st.sets(st.sampled_from(ids), min_size=1, max_size=len(ids) - 1))
    kept = [i for i in range(len(ids)) if ids[i] not in deleted]
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        changed = build(first, documents[:cut], ids[:cut])
        add_documents(first, [(ids[cut:], SparseVectors.from_dense(documents[cut:]))])
        delete_documents(first, sorted(deleted))
        rebuilt = build(second, documents[kept], [ids[i] for i in kept], metadata={"updated": True})
        assert changed.path.read_bytes() == rebuilt.path.read_bytes()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=4), unique=True, min_size=1, max_size=20), st.integers(1, 5))
def test_any_strings_are_document_ids(ids, segment_postings):
    documents = np.eye(len(ids), VOCAB, dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        assert build(folder, documents, ids, segment_postings=segment_postings).doc_ids() == ids
