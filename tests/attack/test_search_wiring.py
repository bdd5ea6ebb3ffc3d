"""What is handed from one part to the next between a collection and its results: a slip would be silent."""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import splade
from splade.config import compose_experiment
from splade.datasets.text_collection import PairCollection
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError, DataError, IndexFileError, WriteError
from splade.inverted_index import IndexBuilder, InvertedIndex, add_documents, delete_documents
from splade.retrieval import collection_index
from splade.retrieval.sparse import SparseRetriever
from splade.tasks.beir_eval import beir_eval
from splade.tasks.index import index as index_task
from splade.tasks.retrieve import retrieve
from splade.tasks.update import update
from splade.vectors import SparseVectors

WORDS = "bees make honey from nectar while dogs bark at night and cats purr near warm mats of wool".split()
PAIRS = [(f"d{i}", " ".join(WORDS[i % 7 : i % 7 + 4] * (1 + i % 3))) for i in range(30)]
QUERIES = {"q1": "what do bees make", "q2": "a dog at night", "q3": "purr", "q4": "warm wool and honey"}
FOLDER = "pkg://cognition/model"


@pytest.fixture(scope="module")
def model() -> SparseModel:
    return splade.load(FOLDER, max_length=32)


@pytest.fixture(scope="module")
def index(model: SparseModel, tmp_path_factory: pytest.TempPathFactory) -> splade.Index:
    return splade.Index.build(tmp_path_factory.mktemp("index"), model, PAIRS)


def scores_of(model: SparseModel, pairs: Iterable[tuple[str, str]] = PAIRS) -> np.ndarray:
    """(n_queries, n_docs): all dot products."""
    documents = model.encode_documents([text for _, text in pairs]).to_dense()
    return model.encode_queries(QUERIES.values()).to_dense() @ documents.T


class TestWhichIndexIsReused:
    """`Index.build` on the finished index of something else."""

    def rebuilt(self, folder: Path, model: SparseModel, corpus: object = PAIRS) -> bool:
        """Build again; return whether the file was written anew."""
        before = (folder / "index.h5").stat().st_ino
        splade.Index.build(folder, model, corpus)  # type: ignore[arg-type]
        return (folder / "index.h5").stat().st_ino != before

    def test_the_very_same_is(self, model, tmp_path):
        splade.Index.build(tmp_path, model, PAIRS)
        assert not self.rebuilt(tmp_path, model)
        assert not self.rebuilt(tmp_path, splade.load(FOLDER, max_length=32))
        assert not self.rebuilt(tmp_path, model, PairCollection(PAIRS, name="the same, called otherwise"))

    @pytest.mark.parametrize(
        "corpus",
        [
            PAIRS[:-1],
            [*PAIRS, ("d30", "more")],
            PAIRS[::-1],
            [(doc_id, text.upper() if doc_id == "d15" else text) for doc_id, text in PAIRS],
            [(doc_id.replace("d15", "e15"), text) for doc_id, text in PAIRS],
        ],
        ids=["one less", "one more", "another order", "another text", "another id"],
    )
    def test_that_of_another_collection_is_not(self, model, tmp_path, corpus):
        splade.Index.build(tmp_path, model, PAIRS)
        with pytest.raises(IndexFileError, match="this is another one"):
            splade.Index.build(tmp_path, model, corpus)
        assert splade.Index.build(tmp_path, model, corpus, overwrite=True).postings.doc_ids() == [i for i, _ in corpus]

    @pytest.mark.parametrize("max_length", [31, 33, 256])
    def test_that_of_another_length_is_not(self, model, tmp_path, max_length):
        splade.Index.build(tmp_path, model, PAIRS)
        other = splade.load(FOLDER, max_length=max_length)
        with pytest.raises(IndexFileError, match="max_length 32; this is another one"):
            splade.Index.build(tmp_path, other, PAIRS)
        with pytest.raises(ConfigError, match=f"cut at max_length 32, the model cuts at {max_length}"):
            splade.Index.open(tmp_path, other).add([("new", "text")])

    def test_that_of_another_model_is_not(self, tiny_model, tmp_path):
        one, other = (splade.load(tiny_model(seed=seed), max_length=32) for seed in (1, 2))
        splade.Index.build(tmp_path, one, PAIRS)
        with pytest.raises(IndexFileError, match="this is another one"):
            splade.Index.build(tmp_path, other, PAIRS)

    @pytest.mark.parametrize("change", ["add", "delete", "delete and add the same"])
    def test_a_changed_one_is_not(self, model, tmp_path, change):
        splade.Index.build(tmp_path, model, PAIRS)
        changed = splade.Index.open(tmp_path, model)
        if change == "add":
            changed.add([("new", "text")])
        elif change == "delete":
            changed.delete(["d3"])
        else:
            changed.update(delete=["d29"], add=PAIRS[29:])
        with pytest.raises(IndexFileError, match="changed since by adding or deleting"):
            splade.Index.build(tmp_path, model, PAIRS)
        splade.Index.build(tmp_path, model, PAIRS, overwrite=True)
        assert not self.rebuilt(tmp_path, model)

    def test_a_changed_one_is_not_while_a_rebuild_is_unfinished(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(collection_index, "IndexBuilder", partial(IndexBuilder, segment_postings=20))
        splade.Index.build(tmp_path, model, PAIRS).delete(["d3"])
        interrupt(monkeypatch, model, after=1)
        with pytest.raises(KeyboardInterrupt):
            splade.Index.build(tmp_path, model, PAIRS, overwrite=True)
        monkeypatch.undo()
        with pytest.raises(IndexFileError, match="changed since"):
            splade.Index.build(tmp_path, model, PAIRS)
        assert len(splade.Index.open(tmp_path)) == 29
        assert len(splade.Index.build(tmp_path, model, PAIRS, overwrite=True)) == 30

    def test_a_changed_one_is_not_in_an_evaluation(self, model, tmp_path):
        splade.Index.build(tmp_path / "index" / "beir" / "x", splade.load(FOLDER), PairCollection(PAIRS)).delete(["d3"])
        write_beir(tmp_path / "data" / "x")
        with pytest.raises(IndexFileError, match="changed since"):
            beir_eval(beir_experiment(tmp_path))


def interrupt(monkeypatch: pytest.MonkeyPatch, model: SparseModel, after: int) -> list[str]:
    """Let encoding end after so many groups of two documents; return the ids that it is given."""
    given: list[str] = []

    def groups(pairs):
        pairs = list(pairs)
        given.extend(doc_id for doc_id, _ in pairs)
        for i in range(0, len(pairs), 2):
            if i == 2 * after:
                raise KeyboardInterrupt
            some = pairs[i : i + 2]
            yield [doc_id for doc_id, _ in some], model.encode_documents([text for _, text in some])

    monkeypatch.setattr(model.documents, "encode_pairs", groups)
    return given


def test_a_resumed_build_encodes_only_what_is_not_there(model, tmp_path, monkeypatch):
    monkeypatch.setattr(collection_index, "IndexBuilder", partial(IndexBuilder, segment_postings=50))
    interrupt(monkeypatch, model, after=1000)
    splade.Index.build(tmp_path / "whole", model, PAIRS)
    interrupt(monkeypatch, model, after=7)
    with pytest.raises(KeyboardInterrupt):
        splade.Index.build(tmp_path / "resumed", model, PAIRS)
    given = interrupt(monkeypatch, model, after=1000)
    splade.Index.build(tmp_path / "resumed", model, PAIRS)
    assert given[-1] == "d29" and 0 < len(given) <= 30 - 8 and given == [doc_id for doc_id, _ in PAIRS][-len(given) :]
    assert (tmp_path / "resumed" / "index.h5").read_bytes() == (tmp_path / "whole" / "index.h5").read_bytes()


class TestUpdates:
    def test_the_metadata_stay(self, model, tmp_path):
        splade.Index.build(tmp_path, model, PAIRS)
        before = InvertedIndex.open(tmp_path).metadata
        assert {"model", "fingerprint", "max_length", "source"} <= set(before)
        delete_documents(tmp_path, ["d1"])
        assert InvertedIndex.open(tmp_path).metadata == before | {"updated": True}
        add_documents(tmp_path, [(["new"], model.encode_documents("text"))])
        assert InvertedIndex.open(tmp_path).metadata == before | {"updated": True}
        assert splade.Index.open(tmp_path, model).postings.n_docs == 30  # the fingerprint is still checked, and right

    @pytest.mark.parametrize(
        ("terms", "weights", "message"),
        [
            ([5, 5], [1, 1], "not ascending"),
            ([6, 5], [1, 1], "not ascending"),
            ([1, 10], [1, 1], "outside the vocabulary"),
            ([-1, 1], [1, 1], "outside the vocabulary"),
            ([1, 2], [1, 0], "not finite and positive"),
            ([1, 2], [1, -1], "not finite and positive"),
            ([1, 2], [np.nan, 1], "not finite and positive"),
            ([1, 2], [np.inf, 1], "not finite and positive"),
        ],
    )
    def test_vectors_are_checked(self, tmp_path, terms, weights, message):
        builder = IndexBuilder(tmp_path, 10)
        builder.add(["a"], SparseVectors.from_rows([([1, 2], [1, 1])], 10))
        before = builder.finish().path.read_bytes()
        wrong = SparseVectors(np.array([0, 0, 2]), np.array(terms, np.int32), np.array(weights, np.float32), 10)
        with pytest.raises(DataError, match=f"'c'.*{message}"):
            add_documents(tmp_path, [(["b", "c"], wrong)])
        assert (tmp_path / "index.h5").read_bytes() == before

    def test_an_update_that_cannot_be_recorded_is_not_done(self, model, tmp_path, monkeypatch):
        """Else the same command would fail the next time: what it deletes is gone, what it adds is there."""
        splade.Index.build(tmp_path / "index", model, PAIRS)

        def full(*_: object, **__: object) -> None:
            raise WriteError("no room")

        with monkeypatch.context() as patched:
            patched.setattr("splade.tasks.update.save_record", full)
            with pytest.raises(WriteError):
                update(experiment(tmp_path, "delete=[d1]"))
        assert len(splade.Index.open(tmp_path / "index")) == 30
        with monkeypatch.context() as patched:
            patched.setattr("splade.reports.index_report.write_json", full)
            update(experiment(tmp_path, "delete=[d1]"))
        assert len(splade.Index.open(tmp_path / "index")) == 29


class TestSearchSettings:
    """Threshold, effort, depth and threads reach the search, from the command and from the program."""

    def test_threshold(self, model, index):
        scores = scores_of(model)
        for threshold in np.quantile(scores[scores > 0], [0.3, 0.8]).tolist():
            found = dict(SparseRetriever(model, index, threshold=threshold).retrieve(QUERIES, top_k=30))
            assert {query_id: len(ranking) for query_id, ranking in found.items()} == {
                query_id: int((row > threshold * (1 + 1e-5)).sum()) for query_id, row in zip(found, scores, strict=True)
            }
            assert any(found.values()) and all(score > threshold for one in found.values() for score in one.values())
            hits = SparseRetriever(model, index, threshold=threshold).search(QUERIES["q1"], top_k=30)
            assert [hit.doc_id for hit in hits] == list(found["q1"])

    def test_a_score_that_equals_the_threshold_is_not_greater(self, tmp_path):
        builder = IndexBuilder(tmp_path, 2)
        builder.add(["a", "b", "c"], SparseVectors.from_dense(np.array([[1, 1], [2, 0], [2.5, 0]], np.float32)))
        builder.finish()
        query = SparseVectors.from_dense(np.array([[1, 1]], np.float32))
        search = partial(InvertedIndex.open(tmp_path).search, query, 3)
        assert search(threshold=2.0).doc_idx.tolist() == [2]
        assert search(threshold=float(np.nextafter(np.float32(2), 0))).doc_idx.tolist() == [2, 0, 1]

    def test_settings_of_the_command(self, model, tmp_path, monkeypatch):
        given = spy_on_search(monkeypatch)
        splade.Index.build(tmp_path / "index", splade.load(FOLDER), PAIRS)
        (tmp_path / "queries.tsv").write_text("".join(f"{name}\t{text}\n" for name, text in QUERIES.items()))
        retrieve(experiment(tmp_path, *SETTINGS, f"data.Q_COLLECTION_PATH=[{tmp_path / 'queries.tsv'}]"))
        assert set(given) == {(7, 0.25, 0.5, 3), (7, 0.25, 1.0, 1)}  # and exact, to compare
        run = json.loads((tmp_path / "out" / "x" / "run.json").read_text())
        assert all(len(ranking) <= 7 and min(ranking.values()) > 0.25 for ranking in run.values() if ranking)

    def test_settings_of_an_evaluation(self, tmp_path, monkeypatch):
        given = spy_on_search(monkeypatch)
        write_beir(tmp_path / "data" / "x")
        beir_eval(beir_experiment(tmp_path, "config.threshold=0.25", "config.search_effort=0.5", "config.n_threads=3"))
        assert set(given) == {(1000, 0.25, 0.5, 3), (10, 0.25, 1.0, 1)}  # and exact, to compare

    def test_results_with_other_settings_are_not_reused(self, tmp_path):
        write_beir(tmp_path / "data" / "x")
        first = beir_eval(beir_experiment(tmp_path))
        assert "evaluated earlier" not in first.summary()
        assert "evaluated earlier" in beir_eval(beir_experiment(tmp_path)).summary()
        for other in (
            "config.threshold=2",
            "config.search_effort=0.9",
            "config.top_k=200",
            "config.two_step.candidates=5",
        ):
            assert "evaluated earlier" not in beir_eval(beir_experiment(tmp_path, other)).summary(), other
        (tmp_path / "out" / "beir" / "x" / "run.json").unlink()
        assert "evaluated earlier" not in beir_eval(beir_experiment(tmp_path, other)).summary()


SETTINGS = ["config.top_k=7", "config.threshold=0.25", "config.search_effort=0.5", "config.n_threads=3"]


def spy_on_search(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    given: list[tuple[object, ...]] = []
    search = InvertedIndex.search

    def noted(self, queries, top_k, threshold=0.0, effort=1.0, n_threads=1):
        given.append((top_k, threshold, effort, n_threads))
        return search(self, queries, top_k, threshold, effort, n_threads)

    monkeypatch.setattr(InvertedIndex, "search", noted)
    return given


def experiment(tmp_path: Path, *overrides: str):
    return compose_experiment(
        "config_default",
        [
            f"init_dict.model_type_or_dir={FOLDER}",
            "config.pretrained_no_yamlconfig=true",
            f"config.index_dir={tmp_path / 'index'}",
            f"config.out_dir={tmp_path / 'out'}",
            "config.retrieval_name=[x]",
            "data.EVAL_QREL_PATH=[]",
            "config.eval_metric=[]",
            *overrides,
        ],
    )


def write_beir(folder: Path) -> None:
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", PAIRS), ("queries", QUERIES.items())):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in texts))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\nq2\td4\t1\n")


def beir_experiment(tmp_path: Path, *overrides: str):
    return experiment(tmp_path, "+beir.dataset=x", f"+beir.dataset_path={tmp_path / 'data'}", *overrides)


def test_an_index_of_the_collection_that_the_configuration_names(tmp_path):
    (tmp_path / "docs.tsv").write_text("".join(f"{doc_id}\t{text}\n" for doc_id, text in PAIRS))
    made = experiment(tmp_path, f"data.COLLECTION_PATH={tmp_path / 'docs.tsv'}", "config.max_length=9")
    index_task(made)
    opened = InvertedIndex.open(tmp_path / "index")
    assert opened.doc_ids() == [doc_id for doc_id, _ in PAIRS] and opened.metadata["max_length"] == 9
    expected = splade.load(FOLDER, max_length=9).encode_documents([text for _, text in PAIRS])
    assert opened.n_postings == expected.nnz
    other = experiment(tmp_path, f"data.COLLECTION_PATH={tmp_path / 'docs.tsv'}", "config.max_length=8")
    with pytest.raises(IndexFileError, match="max_length 9; this is another one"):
        index_task(other)
