"""Building, opening and looking inside an index; every way in which a user can get it wrong."""

import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from splade.errors import BusyError, DataError, IndexFileError
from splade.inverted_index import (
    IndexBuilder,
    InvertedIndex,
    add_documents,
    delete_documents,
)
from splade.storage import arrays
from splade.vectors import SparseVectors

VOCAB = 50


def random_vectors(n: int, seed: int = 0, vocab_size: int = VOCAB, density: float = 0.2) -> SparseVectors:
    rng = np.random.default_rng(seed)
    dense = rng.exponential(1, (n, vocab_size)) * (rng.random((n, vocab_size)) < density)
    return SparseVectors.from_dense(dense.astype(np.float32))


def ids(n: int, prefix: str = "d") -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


def build(folder: Path, vectors: SparseVectors, **options) -> InvertedIndex:
    builder = IndexBuilder(folder, vectors.vocab_size, **options)
    builder.add(ids(len(vectors)), vectors)
    builder.finish()
    return InvertedIndex.open(folder)


@pytest.fixture
def vectors() -> SparseVectors:
    return random_vectors(200)


@pytest.fixture
def index(tmp_path, vectors) -> InvertedIndex:
    return build(tmp_path / "index", vectors, metadata={"model": "m", "max_length": 256})


class TestLookingInside:
    def test_sizes_and_metadata(self, index, vectors):
        assert (index.n_docs, index.n_postings, index.vocab_size) == (200, vectors.nnz, VOCAB)
        assert index.metadata == {"model": "m", "max_length": 256}
        assert index.posting_counts.tolist() == np.bincount(vectors.term_ids, minlength=VOCAB).tolist()
        assert index.mean_terms == vectors.nnz / 200
        assert index.n_bytes == index.path.stat().st_size
        assert json.loads(json.dumps(index.describe()))["n_docs"] == 200

    def test_it_is_an_hdf5_file(self, index, vectors):
        with h5py.File(index.path) as file:
            assert file.attrs["n_docs"] == 200
            assert np.sort(file["impacts"][:]).tolist() == np.sort(vectors.weights).tolist()

    def test_ids(self, index):
        assert index.doc_id(7) == "d7"
        assert index.doc_ids(np.array([199, 0, 1], np.int32)) == ["d199", "d0", "d1"]
        assert index.doc_ids() == ids(200)
        assert index.known_doc_ids(["d7", "d200", " d7", "", "d199"]) == {"d7", "d199"}
        assert index.known_doc_ids([]) == set()
        with pytest.raises(DataError, match="document number 200"):
            index.doc_id(200)

    def test_vector(self, index, vectors):
        terms, weights = index.vector(5)
        assert terms.tolist() == vectors.row(5)[0].tolist()
        assert weights.tolist() == vectors.row(5)[1].tolist()

    def test_empty_documents_are_counted(self, tmp_path):
        dense = np.zeros((3, 4), np.float32)
        dense[1, 2] = 1
        index = build(tmp_path, SparseVectors.from_dense(dense))
        assert index.n_empty == 2
        assert index.search(SparseVectors.from_dense(np.ones((1, 4), np.float32)), 3).doc_idx.tolist() == [1]

    def test_only_empty_documents(self, tmp_path):
        index = build(tmp_path, SparseVectors.from_dense(np.zeros((3, 4), np.float32)))
        assert index.n_postings == 0
        assert len(index.search(SparseVectors.from_dense(np.ones((1, 4), np.float32)), 3).doc_idx) == 0


class TestSearch:
    def test_no_queries_empty_queries_and_unknown_terms(self, tmp_path):
        index = build(tmp_path, SparseVectors.from_dense(np.array([[1.0, 0, 0]])))
        assert len(index.search(SparseVectors.empty(3), 5)) == 0
        results = index.search(SparseVectors.from_dense(np.array([[0, 0, 0], [0, 1.0, 0], [2.0, 1.0, 0]])), 5)
        assert [results.row(i)[0].tolist() for i in range(3)] == [[], [], [0]]

    def test_ties_go_to_the_document_indexed_first(self, tmp_path):
        index = build(tmp_path, SparseVectors.from_dense(np.ones((100, 2), np.float32)))
        results = index.search(SparseVectors.from_dense(np.ones((1, 2), np.float32)), 30)
        assert results.doc_idx.tolist() == list(range(30))

    @pytest.mark.parametrize("option", [{"top_k": 0}, {"effort": 0.0}, {"effort": 1.5}, {"n_threads": 0}])
    def test_wrong_options(self, index, option):
        with pytest.raises(DataError, match="at least 1"):
            index.search(random_vectors(1), **{"top_k": 3, **option})

    def test_queries_of_another_vocabulary(self, index):
        with pytest.raises(DataError, match="over 60 terms, the index over 50"):
            index.search(random_vectors(1, vocab_size=60), 3)

    def test_threads_give_the_same_results(self, index):
        queries = random_vectors(150, seed=1)
        one, three = index.search(queries, 10), index.search(queries, 10, n_threads=3)
        assert one.doc_idx.tolist() == three.doc_idx.tolist()
        assert one.scores.tolist() == three.scores.tolist()

    def test_the_first_query_of_a_fresh_process_is_quick(self, index):
        code = f"""
            import time
            from splade.inverted_index import InvertedIndex
            from splade.vectors import SparseVectors
            index = InvertedIndex.open({str(index.path)!r})
            start = time.process_time()
            index.search(SparseVectors.from_rows([([0], [1])], {index.vocab_size}), top_k=1)
            print(time.process_time() - start)
        """
        command = [sys.executable, "-c", textwrap.dedent(code)]
        index.search(SparseVectors.from_rows([([0], [1])], index.vocab_size), top_k=1)  # compiled and cached by now
        seconds = min(float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(2))
        assert seconds < 2


class TestBuilding:
    def test_duplicate_ids(self, tmp_path, vectors):
        builder = IndexBuilder(tmp_path, VOCAB, segment_postings=500)
        builder.add(ids(100), vectors.rows(0, 100))
        builder.add(["x", "d3"], vectors.rows(100, 102))
        with pytest.raises(DataError, match="'d3' occurs twice, as documents 3 and 101"):
            builder.finish()

    def test_no_documents(self, tmp_path):
        with pytest.raises(DataError, match="at least one"):
            IndexBuilder(tmp_path, VOCAB).finish()

    @pytest.mark.parametrize(
        ("terms", "weights", "message"),
        [
            ([1, 50], [1.0, 1.0], "outside the vocabulary"),
            ([-1, 5], [1.0, 1.0], "outside the vocabulary"),
            ([5, 5], [1.0, 1.0], "not ascending"),
            ([6, 5], [1.0, 1.0], "not ascending"),
            ([1, 5], [1.0, 0.0], "not finite and positive"),
            ([1, 5], [np.nan, 1.0], "not finite and positive"),
            ([1, 5], [np.inf, 1.0], "not finite and positive"),
        ],
    )
    def test_wrong_vectors_name_the_document(self, tmp_path, terms, weights, message):
        wrong = SparseVectors(np.array([0, 0, 2]), np.array(terms, np.int32), np.array(weights, np.float32), VOCAB)
        with pytest.raises(DataError, match=f"'b'.*{message}"):
            IndexBuilder(tmp_path, VOCAB).add(["a", "b"], wrong)

    def test_ids_must_be_strings_and_as_many_as_vectors(self, tmp_path, vectors):
        builder = IndexBuilder(tmp_path, VOCAB)
        with pytest.raises(DataError, match="given 7 "):
            builder.add(["a", 7], vectors.rows(0, 2))
        with pytest.raises(DataError, match="1 document ids were given for 2"):
            builder.add(["a"], vectors.rows(0, 2))

    def test_an_index_is_only_overwritten_when_allowed(self, index, vectors):
        with pytest.raises(IndexFileError, match="exists already"):
            IndexBuilder(index.path.parent, VOCAB)
        assert build(index.path.parent, vectors.rows(0, 10), overwrite=True).n_docs == 10
        assert index.doc_id(199) == "d199"  # still mapped

    def test_ranks_together_equal_one_process(self, tmp_path, index, vectors):
        def work(rank: int) -> None:
            options = {"metadata": index.metadata, "rank": rank, "world_size": 3, "segment_postings": 300}
            builder = IndexBuilder(tmp_path / "ranks", VOCAB, **options)
            start, stop = 200 * rank // 3, 200 * (rank + 1) // 3
            builder.add(ids(200)[start:stop], vectors.rows(start, stop))
            infos[rank] = builder.finish(timeout_s=60)

        infos: dict[int, object] = {}
        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert (tmp_path / "ranks" / "index.h5").read_bytes() == index.path.read_bytes()
        assert infos[0] == infos[1] == infos[2]

    def test_a_rank_that_never_comes(self, tmp_path, vectors):
        builder = IndexBuilder(tmp_path, VOCAB, rank=0, world_size=2)
        builder.add(ids(200), vectors)
        with pytest.raises(IndexFileError, match="waited"):
            builder.finish(timeout_s=0)

    def test_another_source_does_not_continue_a_build(self, tmp_path, vectors):
        IndexBuilder(tmp_path, VOCAB, source="a", segment_postings=100).add(ids(200), vectors)
        assert IndexBuilder(tmp_path, VOCAB, source="a").documents_done > 0
        assert IndexBuilder(tmp_path, VOCAB, source="b").documents_done == 0

    def test_a_build_by_another_number_of_processes_is_named(self, tmp_path, vectors, caplog):
        builder = IndexBuilder(tmp_path, VOCAB, segment_postings=100, world_size=3)
        builder.add(ids(200), vectors)
        del builder
        IndexBuilder(tmp_path, VOCAB, source="other")
        assert not caplog.records
        alone = IndexBuilder(tmp_path, VOCAB, segment_postings=100)
        assert alone.documents_done == 0 and "unfinished build of this index by 3 processes" in caplog.text
        alone.add(ids(200), vectors)
        alone.finish()
        assert [path.name for path in tmp_path.iterdir()] == ["index.h5"]

    def test_a_damaged_segment_is_built_again(self, tmp_path, index, vectors):
        options = {"metadata": index.metadata, "segment_postings": 300}
        IndexBuilder(tmp_path / "b", VOCAB, **options).add(ids(200), vectors)
        segment = sorted(tmp_path.glob("b/.build-*/*s000001.h5"))[0]
        segment.write_bytes(segment.read_bytes()[:-1])
        builder = IndexBuilder(tmp_path / "b", VOCAB, **options)
        done = builder.documents_done
        assert 0 < done < 100
        builder.add(ids(200)[done:], vectors.rows(done, 200))
        assert builder.finish().path.read_bytes() == index.path.read_bytes()


class TestKilledBuilds:
    N_DOCS = 3000
    OPTIONS = {"vocab_size": VOCAB, "segment_postings": 1500}

    def build(self, folder: Path, vectors: SparseVectors) -> None:
        builder = IndexBuilder(folder, **self.OPTIONS, overwrite=True)
        for start in range(builder.documents_done, self.N_DOCS, 50):
            stop = min(start + 50, self.N_DOCS)
            builder.add(ids(self.N_DOCS)[start:stop], vectors.rows(start, stop))
        builder.finish()

    def test_killed_at_random_moments_the_next_run_gives_the_same_bytes(self, tmp_path):
        vectors = random_vectors(self.N_DOCS)
        self.build(tmp_path / "whole", vectors)
        started = time.perf_counter()
        self.build(tmp_path / "timed", vectors)
        seconds = time.perf_counter() - started
        expected = (tmp_path / "whole" / "index.h5").read_bytes()
        rng = np.random.default_rng(0)
        for number in range(6):
            folder = tmp_path / f"killed{number}"
            process = multiprocessing.get_context("fork").Process(target=self.build, args=(folder, vectors))
            process.start()
            time.sleep(rng.uniform(0, seconds))
            process.kill()
            process.join()
            self.build(folder, vectors)
            assert (folder / "index.h5").read_bytes() == expected
            assert sorted(path.name for path in folder.iterdir()) == ["index.h5"]


class TestDamage:
    def test_missing_foreign_and_unfinished(self, tmp_path, vectors):
        with pytest.raises(IndexFileError, match="holds no index"):
            InvertedIndex.open(tmp_path)
        IndexBuilder(tmp_path, VOCAB, segment_postings=100).add(ids(200), vectors)
        with pytest.raises(IndexFileError, match="unfinished"):
            InvertedIndex.open(tmp_path)
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["impacts"] = np.ones(3)
        with pytest.raises(IndexFileError, match="not written by this toolkit"):
            InvertedIndex.open(tmp_path / "other.h5")
        (tmp_path / "empty.h5").touch()
        with pytest.raises(IndexFileError, match="not written by this toolkit"):
            InvertedIndex.open(tmp_path / "empty.h5")
        segment = next(tmp_path.glob(".build-*/*.h5"))
        with pytest.raises(IndexFileError, match="holds a segment"):
            InvertedIndex.open(segment)

    def test_opening_again_reads_no_data(self, index, monkeypatch):
        monkeypatch.setattr(arrays, "REMEMBER_FROM_BYTES", 0)
        InvertedIndex.open(index.path)
        monkeypatch.setattr(arrays, "_check_seal", lambda *_: pytest.fail("verified again"))
        assert InvertedIndex.open(index.path).n_docs == index.n_docs

    def test_verify_finds_what_the_file_times_hide(self, index):
        index.verify()
        status = os.stat(index.path)
        data = bytearray(index.path.read_bytes())
        data[-100] ^= 1
        index.path.write_bytes(data)
        os.utime(index.path, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(IndexFileError, match="damaged"):
            index.verify()
        with pytest.raises(IndexFileError, match="damaged"):
            InvertedIndex.open(index.path)

    @pytest.mark.parametrize(
        ("name", "position", "value"),
        [
            ("term_blocks", 3, 1 << 40),
            ("term_blocks", 3, -1),
            ("term_blocks", -1, 0),
            ("block_postings", 1, 1 << 40),
            ("block_postings", 1, (1 << 63) - 1),
            ("block_postings", 1, 0),
            ("block_windows", 0, 9),
            ("offsets", 0, 200),
            ("offsets", 0, 1 << 15),
            ("id_ends", 0, -1),
            ("id_ends", -1, 1 << 40),
            ("id_ends", 7, 0),
        ],
    )
    def test_positions_that_point_outside(self, index, name, position, value):
        """With the right checksum: nobody's disk does this, but a compiled loop would read beyond the memory."""
        with h5py.File(index.path, "r+") as file:
            file[name][position] = value
        self.seal(index.path)
        with pytest.raises(IndexFileError, match=f"'{name}'.* points outside"):
            InvertedIndex.open(index.path)

    @pytest.mark.parametrize("name", ["offsets", "impacts", "term_blocks", "block_max", "term_max", "doc_lengths"])
    def test_arrays_of_another_length(self, index, name):
        with h5py.File(index.path, "r+") as file:
            longer = np.append(file[name][:], file[name][-1:])
            del file[name]
            file[name] = longer
        self.seal(index.path)
        with pytest.raises(IndexFileError, match=f"'{name}' has .* elements instead of"):
            InvertedIndex.open(index.path)

    @pytest.mark.parametrize("name", ["n_docs", "n_empty", "n_postings", "vocab_size", "window_bits", "metadata"])
    def test_attributes_that_are_missing_or_wrong(self, index, name):
        for value in (None, 1 << 40, "nonsense"):
            with h5py.File(index.path, "r+") as file:
                file.attrs.pop(name, None)
                if value is not None:
                    file.attrs[name] = value
            self.seal(index.path)
            if name != "n_empty" or value != 1 << 40:  # a figure of the statistics
                with pytest.raises(IndexFileError):
                    InvertedIndex.open(index.path)

    @staticmethod
    def seal(path: Path) -> None:
        with open(path, "rb+", buffering=0) as stream:
            right = arrays._seal(stream)
            stream.seek(0)
            stream.write(right)

    def test_200_damages_are_refused_or_without_effect(self, tmp_path, index):
        queries = random_vectors(20, seed=3)
        expected = index.search(queries, 10)
        whole = index.path.read_bytes()
        rng = np.random.default_rng(0)
        refused = 0
        for number in range(200):
            path = tmp_path / f"damaged{number % 3}.h5"
            data = self.damage(whole, number, rng)
            path.write_bytes(data)
            if number % 5 == 4:
                self.swap(path, rng)
            try:
                results = InvertedIndex.open(path).search(queries, 10)
            except IndexFileError:
                refused += 1
                continue
            assert results.doc_idx.tolist() == expected.doc_idx.tolist()
            assert results.scores.tolist() == expected.scores.tolist()
        assert refused >= 195

    @staticmethod
    def damage(whole: bytes, number: int, rng: np.random.Generator) -> bytes:
        data = bytearray(whole)
        kind = number % 5
        if kind == 0:
            return bytes(data[: rng.integers(0, len(data))])
        if kind == 1:
            data[rng.integers(0, len(data))] ^= 1 << rng.integers(0, 8)
        elif kind == 2:
            start = rng.integers(0, len(data) - 64)
            data[start : start + 64] = rng.bytes(64)
        elif kind == 3:
            data += rng.bytes(10)
        return bytes(data)

    @staticmethod
    def swap(path: Path, rng: np.random.Generator) -> None:
        with h5py.File(path, "r+") as file:
            one, other = rng.choice(sorted(file), 2, replace=False)
            file.move(one, "kept")
            file.move(other, one)
            file.move("kept", other)


class TestUpdating:
    def test_an_id_that_is_there_already(self, index):
        with pytest.raises(DataError, match="'d3' occurs twice, as documents 3 and 200"):
            add_documents(index.path.parent, [(["d3"], random_vectors(1))])
        assert InvertedIndex.open(index.path.parent).n_docs == 200

    def test_an_id_that_is_not_there(self, index):
        with pytest.raises(DataError, match="'nobody' is not in the index, which holds 200"):
            delete_documents(index.path.parent, ["d1", "nobody"])

    def test_deleting_everything(self, index):
        with pytest.raises(DataError, match="all 200 documents"):
            delete_documents(index.path.parent, ids(200))

    def test_changing_nothing(self, index):
        before = index.path.read_bytes()
        for info in (add_documents(index.path, []), delete_documents(index.path, [])):
            assert (info.n_docs, info.n_postings, info.n_bytes) == (200, index.n_postings, index.n_bytes)
        assert index.path.read_bytes() == before

    def test_the_metadata_say_so(self, index):
        add_documents(index.path.parent, [(["new"], random_vectors(1))])
        assert InvertedIndex.open(index.path.parent).metadata == {"model": "m", "max_length": 256, "updated": True}
        delete_documents(index.path.parent, ["new"])
        assert InvertedIndex.open(index.path.parent).metadata["updated"] is True
        assert index.metadata == {"model": "m", "max_length": 256} and index.doc_id(199) == "d199"  # opened before

    def test_updates_at_the_same_time_are_kept_or_refused(self, index):
        def add(number: int) -> None:
            try:
                add_documents(index.path.parent, [([f"{number}-{i}"], random_vectors(1)) for i in range(3)])
                kept.append(number)
            except BusyError as error:
                refused.append(str(error))

        kept: list[int] = []
        refused: list[str] = []
        threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert len(kept) + len(refused) == 8 and kept
        added = {f"{number}-{i}" for number in kept for i in range(3)}
        assert set(InvertedIndex.open(index.path.parent).doc_ids()) == {*ids(200), *added}
        whose = f"process {os.getpid()} on ", "process has just begun to write"
        assert all(any(one in message for one in whose) for message in refused)
        assert [entry.name for entry in index.path.parent.iterdir()] == ["index.h5"]
