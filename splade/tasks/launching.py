"""Indexes as `launcher` and `config.n_shards` say: built by this command's processes or a cluster, and searched so."""

from pathlib import Path

from splade.cluster.runners import ProcessRunner, Runner
from splade.cluster.shard_build import index_in_parts
from splade.config import Experiment
from splade.datasets.text_collection import TextCollection
from splade.distributed import process_rank
from splade.encoding.sparse_model import SparseModel
from splade.retrieval.collection_index import Index
from splade.retrieval.origin import write_origin


def build_index(experiment: Experiment, model: SparseModel, corpus: TextCollection, folder: Path) -> Index:
    """Index a collection, or return the index of an earlier run of the same job; see `Index.build`."""
    run = experiment.config
    if experiment.launcher != "ray" and run.n_shards is None:
        return Index.build(folder, model, corpus, run.overwrite, run.store_texts)
    index = Index(index_in_parts(experiment, model, corpus, folder, open_runner(experiment)), model)
    if process_rank() == 0:
        write_origin(folder, model, corpus, run.store_texts)
    return index


def open_built_index(experiment: Experiment, folder: str | Path, model: SparseModel) -> Index:
    """Open an index; see `Index.open`. With launcher=ray, actors search it."""
    return searched(experiment, Index.open(folder, model))


def searched(experiment: Experiment, index: Index) -> Index:
    """Let actors search an opened index, with launcher=ray."""
    if experiment.launcher == "ray":
        from splade.cluster.ray_index import RayIndex

        index.postings = RayIndex.of(index.postings, experiment.ray)
    return index


def open_runner(experiment: Experiment) -> Runner:
    """Return who does the parts by `launcher`.

    Raises:
        ConfigError: launcher=ray, and Ray is not installed, or there is no cluster.
    """
    if experiment.launcher != "ray":
        return ProcessRunner()
    from splade.cluster.ray_runner import RayRunner

    return RayRunner(experiment.ray)
