"""Work on Ray: the same index and the same answers as here, also when a process of it is killed; errors in seconds."""

import os
import signal
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

import splade
from splade.cluster import ray_runner
from splade.cluster.part_jobs import EncodeParts
from splade.cluster.ray_runner import RayRunner, connect, next_done
from splade.config import compose_experiment
from splade.config.cluster import RayConfig
from splade.datasets.text_collection import PairCollection
from splade.errors import ConfigError, ModelError, SpladeError
from splade.interop.vector_files import Manifest
from splade.retrieval.collection_index import Index
from splade.tasks.launching import build_index, searched

needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed: pip install 'splade[ray]'")
WORDS = "cat dog bird fish sits runs flies swims on the a red green house tree lake".split()
CORPUS = [(f"d{i}", " ".join(WORDS[i * k % 16] for k in range(1, 4 + i % 5))) for i in range(1100)]


@pytest.fixture(scope="module")
def experiment(tiny_model):
    model = f"init_dict.model_type_or_dir={tiny_model()}"
    given = [model, "config.pretrained_no_yamlconfig=true", "config.max_length=16", "config.n_shards=2"]
    return compose_experiment("config_default", [*given, "launcher=ray", "ray.workers=1"])


@pytest.fixture(scope="module")
def model(experiment):
    return splade.load(experiment.init_dict.model_type_or_dir, max_length=16)


@pytest.fixture(scope="module")
def cluster(experiment):
    ray = connect(experiment.ray)
    yield ray
    ray.shutdown()


@needs_ray
def test_an_index_is_built_and_searched_there_as_here(cluster, experiment, model, tmp_path):
    corpus = PairCollection(CORPUS)
    one = Index.build(tmp_path / "one", model, corpus).postings
    index = searched(experiment, build_index(experiment, model, corpus, tmp_path / "index"))
    queries, expected = model.encode_queries(["cat", "three dogs"]), None
    for _ in range(2):
        found, expected = index.postings.search(queries, 20), one.search(queries, 20)
        assert found.doc_idx.tolist() == expected.doc_idx.tolist()
        assert found.scores.tobytes() == expected.scores.tobytes()
        actor = index.postings._actors[1]  # the second time, Ray has started another one
        killed = cluster.get(actor.process_id.remote())
        os.kill(killed, signal.SIGKILL)
    assert cluster.get(actor.process_id.remote()) != killed
    index.postings.close()


@needs_ray
def test_a_worker_with_another_model(cluster, experiment, model, tmp_path):
    other = model.fingerprint.as_dict() | {"document_encoder": "other"}
    manifest = Manifest("parquet", "m", other, 16, "source", n_docs=1, part_size=512)
    job = EncodeParts(experiment, model, PairCollection(CORPUS[:1]), tmp_path, manifest)
    with pytest.raises(ModelError, match="is another model than where the command was given .*document_encoder"):
        RayRunner(experiment.ray).run(job, 1)


@needs_ray
def test_more_than_any_machine_has(cluster):
    with pytest.raises(ConfigError, match=r"ray\.cpus=999 ray\.gpus=0: no machine of the cluster has so many"):
        RayRunner(RayConfig(cpus=999))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense"])
def test_no_cluster_there(address):
    with pytest.raises(ConfigError, match="nothing answers there"):
        ray_runner._check_answers(address)


def test_a_cluster_that_is_gone():
    context = SimpleNamespace(gcs_address="127.0.0.1:1")
    ray = SimpleNamespace(get_runtime_context=lambda: context, wait=lambda *given, **more: ([], []))
    with pytest.raises(SpladeError, match=r"Ray cluster at 127\.0\.0\.1:1 is gone.*the same command goes on"):
        next_done(ray, [], RayConfig(gone_seconds=0.01))


def test_ray_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"launcher=ray needs Ray: pip install 'splade\[ray\]'"):
        connect(RayConfig())
