"""An index of a collection, part by part: first vectors, then index files of some each, joined or kept as shards."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from splade.cluster.part_jobs import BuildShards, EncodeParts
from splade.cluster.runners import Runner
from splade.config.schema import Experiment
from splade.datasets.text_collection import TextCollection
from splade.distributed import first_process_first, held_by_first_process, on_first_process
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError, DataError
from splade.interop.vector_files import Manifest, begin, small_parts
from splade.inverted_index import InvertedIndex, open_index
from splade.inverted_index.sharded import SHARDS_FOLDER, forget_shards, join_shards
from splade.inverted_index.update import merge_indexes
from splade.retrieval.collection_index import finished_index, index_metadata
from splade.storage.locks import FolderLock

_MOST_MERGED = 32
"""Index files that are joined into one."""

logger = logging.getLogger(__name__)


def index_in_parts(
    experiment: Experiment, model: SparseModel, corpus: TextCollection, folder: Path, runner: Runner
) -> InvertedIndex:
    """Build an index in one file or, with `config.n_shards`, in so many, or return the one that is finished.

    The bytes of the one file are those that a single process writes. Whatever is killed meanwhile leaves finished
    parts, and the same call goes on with those that are missing.

    Args:
        experiment: names the model; `config.n_shards`, `config.overwrite`.
        model: the model.
        corpus: the documents; other processes open them again.
        folder: of the index, seen by all machines.
        runner: who does the parts.

    Raises:
        BusyError: another process is writing to the folder.
        ConfigError: more shards than documents.
        DataError: bad lines, duplicate ids, an empty collection, or one that changed meanwhile.
        IndexFileError: the folder holds another index, and `config.overwrite` is False.
    """
    source, n_docs = first_process_first(lambda: (corpus.digest(), len(corpus)))
    n_shards, overwrite = experiment.config.n_shards, experiment.config.overwrite
    if n_shards is not None and n_shards > n_docs:
        raise ConfigError(f"config.n_shards={n_shards}, but there are {n_docs} documents")
    metadata = on_first_process(lambda: index_metadata(model, source))

    def finished() -> bool:
        return finished_index(folder, metadata, overwrite, n_shards)

    with held_by_first_process(lambda: FolderLock(folder)):
        if on_first_process(finished):
            logger.info("%s already holds this index: nothing to do", folder)
            return open_index(folder)
        place = folder / f"{SHARDS_FOLDER}{_digest(metadata, n_shards)}"
        vectors = place / "vectors"
        manifest = on_first_process(lambda: begin(vectors, _manifest(model, metadata, n_docs), overwrite=True))
        runner.run(EncodeParts(experiment, model, corpus, vectors, manifest), manifest.n_parts)
        n_files = n_shards or min(_MOST_MERGED, manifest.n_parts)
        build = BuildShards(vectors, manifest, model.tokens, metadata, place, n_files)
        runner.run(build, n_files)
        if corpus.digest() != source:
            raise DataError(f"{corpus.name}: changed while it was indexed; start again once it is complete")
        files = [build.file(number) for number in range(n_files)]
        on_first_process(_ending(folder, place, files, n_shards))
    return open_index(folder)


def _ending(folder: Path, place: Path, files: list[Path], n_shards: int | None) -> Callable[[], None]:
    """Return what makes an index of finished files, and removes what it is not made of."""

    def end() -> None:
        if n_shards is None:
            merge_indexes(files, folder)
            forget_shards(folder)
            return
        join_shards(folder, files)
        forget_shards(folder, but=place)
        for left in [place / "vectors", *place.glob(".*")]:  # of workers that were killed
            shutil.rmtree(left, ignore_errors=True)

    return end


def _manifest(model: SparseModel, metadata: dict[str, object], n_docs: int) -> Manifest:
    return Manifest(
        form="parquet",
        model=model.name,
        fingerprint=model.fingerprint.as_dict(),
        max_length=model.documents.max_length,
        source=str(metadata["source"]),
        n_docs=n_docs,
        part_size=small_parts(n_docs),
    )


def _digest(metadata: dict[str, object], n_shards: int | None) -> str:
    return hashlib.sha256(json.dumps([metadata, n_shards], sort_keys=True).encode()).hexdigest()[:16]
