"""An index that is built part by part is the index that is built at once, whoever did the parts and was killed."""

import pytest

import splade
from splade.cluster.runners import ProcessRunner
from splade.cluster.shard_build import index_in_parts
from splade.config import compose_experiment
from splade.config.processes import check_launcher
from splade.datasets.text_collection import PairCollection
from splade.errors import ConfigError, IndexFileError
from splade.interop.vector_files import PART_SIZE, small_parts
from splade.inverted_index import InvertedIndex, ShardedIndex, open_index
from splade.inverted_index.sharded import SHARDS_FILE
from splade.retrieval.collection_index import Index
from splade.tasks.launching import build_index

WORDS = "cat dog bird fish sits runs flies swims on the a red green house tree lake".split()
N_DOCS = 1100  # three windows of encoding
TEXTS = [" ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(1, 4 + i % 5)) for i in range(N_DOCS)]


@pytest.fixture(scope="module")
def model_folder(tiny_model):
    return tiny_model()


@pytest.fixture(scope="module")
def model(model_folder):
    return splade.load(model_folder, max_length=16)


@pytest.fixture(scope="module")
def corpus():
    return PairCollection([(f"d{i}", text) for i, text in enumerate(TEXTS)])


@pytest.fixture(scope="module")
def one(model, corpus, tmp_path_factory):
    return Index.build(tmp_path_factory.mktemp("one"), model, corpus).postings


@pytest.fixture
def experiment(model_folder):
    def make(**settings):
        return compose_experiment(
            "config_default",
            [
                f"init_dict.model_type_or_dir={model_folder}",
                "config.pretrained_no_yamlconfig=true",
                "config.max_length=16",
                *(f"config.{name}={value}" for name, value in settings.items()),
            ],
        )

    return make


class Counting(ProcessRunner):
    """Counts the parts that are done, and may be interrupted in the middle of one."""

    def __init__(self, stop_after: int = 10**6):
        self.done: list[str] = []
        self.stop_after = stop_after

    def run(self, job, n_parts):
        do = job.do

        def counted(number, tell):
            if len(self.done) == self.stop_after:
                raise KeyboardInterrupt
            do(number, tell)
            self.done.append(f"{job.title} {number}")

        job.do = counted
        super().run(job, n_parts)


def test_one_file_has_the_bytes_of_a_build_at_once(experiment, model, corpus, one, tmp_path):
    made = index_in_parts(experiment(), model, corpus, tmp_path, ProcessRunner())
    assert made.path.read_bytes() == one.path.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["index.h5"]


@pytest.mark.parametrize("stop_after", [0, 2, 3, 5])
def test_an_interrupted_build_goes_on_and_does_no_part_twice(experiment, model, corpus, one, tmp_path, stop_after):
    settings = experiment(n_shards=3)
    first, second = Counting(stop_after), Counting()
    with pytest.raises(KeyboardInterrupt):
        index_in_parts(settings, model, corpus, tmp_path, first)
    with pytest.raises(IndexFileError, match="unfinished index"):
        open_index(tmp_path)
    made = index_in_parts(settings, model, corpus, tmp_path, second)
    assert sorted(first.done + second.done) == [
        *(f"building shards {number}" for number in range(3)),
        *(f"encoding {number}" for number in range(3)),
    ]
    assert isinstance(made, ShardedIndex) and made.doc_ids() == one.doc_ids() and made.metadata == one.metadata
    queries = model.encode_queries(TEXTS[:20])
    found, expected = made.search(queries, 50), one.search(queries, 50)
    assert (found.doc_idx == expected.doc_idx).all() and found.scores.tobytes() == expected.scores.tobytes()
    assert sorted(path.name for path in made.shards[0].path.parent.iterdir()) == ["00000.h5", "00001.h5", "00002.h5"]


def test_the_form_that_is_there_and_the_one_asked_for(experiment, model, corpus, one, tmp_path):
    asked = [dict(n_shards=2), dict(n_shards=3), {}]
    for before, after in zip(asked[:-1], asked[1:], strict=True):
        build_index(experiment(**before), model, corpus, tmp_path)
        again = Counting()
        if before:
            index_in_parts(experiment(**before), model, corpus, tmp_path, again)
        assert again.done == []
        with pytest.raises(IndexFileError, match="holds this index in . shards.*overwrite=true"):
            build_index(experiment(**after), model, corpus, tmp_path)
        build_index(experiment(**after, overwrite=True), model, corpus, tmp_path)
    assert not (tmp_path / SHARDS_FILE).exists() and not list(tmp_path.glob("shards-*"))
    assert InvertedIndex.open(tmp_path).path.read_bytes() == one.path.read_bytes()


def test_more_shards_than_documents(experiment, model, tmp_path):
    with pytest.raises(ConfigError, match="n_shards=3, but there are 2 documents"):
        index_in_parts(
            experiment(n_shards=3), model, PairCollection([("a", "cat"), ("b", "dog")]), tmp_path, ProcessRunner()
        )


def test_parts_suit_dozens_of_workers_and_hold_whole_windows():
    assert [small_parts(n) for n in (1, 5000, 100_000, 8_800_000)] == [512, 512, 1536, PART_SIZE]


@pytest.mark.parametrize(
    ("launcher", "world", "task", "message"),
    [
        ("torchrun", "", "index", "torchrun --nproc_per_node N -m splade.index"),
        ("local", "2", "index", "launcher=local, but torchrun has started 2"),
        ("ray", "2", "index", "launcher=ray, but torchrun has started 2"),
        ("ray", "", "train", "splade.train does not use Ray; training on several machines is torchrun's; these do"),
        ("ray", "", "flops", "splade.flops does not use Ray; these do: encode, index"),
    ],
)
def test_launchers_that_cannot_be(monkeypatch, launcher, world, task, message):
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(ConfigError, match=message):
        check_launcher(launcher, task)


@pytest.mark.parametrize(
    ("launcher", "world"), [(None, ""), (None, "2"), ("torchrun", "2"), ("local", ""), ("ray", "")]
)
def test_launchers_that_can_be(monkeypatch, launcher, world):
    monkeypatch.setenv("WORLD_SIZE", world)
    check_launcher(launcher, "index")
