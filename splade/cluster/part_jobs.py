"""What is done to the parts of a collection, wherever: encode one, build the index of some. Nothing here knows of Ray.

Each part is a file that is complete or absent, and whoever does a part anew writes the same bytes. So it does not
matter who does it, how often, or what is killed meanwhile.
"""

import os
import platform
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from splade.config.schema import Experiment
from splade.datasets.text_collection import TextCollection
from splade.distributed import shard_range
from splade.encoding.sparse_model import SparseModel
from splade.errors import ModelError
from splade.interop.vector_files import FORMS, Manifest
from splade.interop.vector_groups import Group
from splade.inverted_index import INDEX_FILE, IndexBuilder
from splade.models.load import load_for_inference
from splade.retrieval.collection_index import encode_documents
from splade.vectors import SparseVectors


class PartJob(ABC):
    """Work that is divided into numbered parts; pickled, it goes to other processes."""

    title: str

    @abstractmethod
    def n_docs(self, number: int) -> int:
        """Return how many documents a part has."""

    @abstractmethod
    def is_done(self, number: int) -> bool:
        """Return whether a part is there."""

    @abstractmethod
    def do(self, number: int, tell: Callable[[int], object] = lambda n_docs: None) -> None:
        """Do a part; it is there afterwards, or not at all. `tell` hears of documents that are done."""


class EncodingJob(PartJob):
    """Work on the vectors of a collection's documents.

    Args:
        experiment: names the model; in other processes it is loaded again.
        model: the model here.
        collection: the documents.
    """

    def __init__(self, experiment: Experiment, model: SparseModel, collection: TextCollection):
        self._experiment, self._model, self._collection = experiment, model, collection
        self._made_by: Mapping[str, object] = model.fingerprint.as_dict()
        self._max_length = model.documents.max_length

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_model": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        run = self._experiment.config
        network = load_for_inference(self._experiment)
        self._model = SparseModel(network, run.max_length, run.index_retrieve_batch_size)
        differences = self._model.fingerprint.differences(self._made_by)
        if differences or self._model.documents.max_length != self._max_length:
            raise ModelError(
                f"on {platform.node()}, '{self._model.name}' is another model than where the command was given (they "
                f"differ in {', '.join(differences) or 'max_length'}); give a folder that all machines see, or bring "
                "it up to date"
            )


class EncodeParts(EncodingJob):
    """Encode the documents of a collection into files of vectors.

    Args:
        experiment: names the model; in other processes it is loaded again.
        model: the model here.
        collection: the documents.
        folder: of the files.
        manifest: what they hold.
    """

    title = "encoding"

    def __init__(
        self,
        experiment: Experiment,
        model: SparseModel,
        collection: TextCollection,
        folder: Path,
        manifest: Manifest,
    ):
        super().__init__(experiment, model, collection)
        self._folder, self._manifest = folder, manifest
        self._made_by, self._max_length = manifest.fingerprint, manifest.max_length

    def n_docs(self, number: int) -> int:
        """Return how many documents a part has."""
        return len(self._manifest.rows(number))

    def is_done(self, number: int) -> bool:
        """Return whether a part is there."""
        return self._manifest.part(self._folder, number).is_file()

    def do(self, number: int, tell: Callable[[int], object] = lambda n_docs: None) -> None:
        """Write the vectors of a part."""
        rows, model = self._manifest.rows(number), self._model
        ids: list[str] = []
        vectors: list[SparseVectors] = []
        for some_ids, some in encode_documents(model, self._collection.between(rows.start, rows.stop)):
            ids += some_ids
            vectors.append(some)
            tell(len(some))
        joined = SparseVectors.concatenate(vectors, model.vocab_size)
        FORMS[self._manifest.form].write(self._manifest.part(self._folder, number), ids, joined, model.tokens)


class BuildShards(PartJob):
    """Invert the vectors of consecutive documents into index files.

    Args:
        vectors: folder of the files of vectors.
        manifest: what they hold.
        tokens: the vocabulary.
        metadata: kept in each index.
        folder: of the index files.
        n_shards: how many there are.
    """

    title = "building shards"

    def __init__(
        self,
        vectors: Path,
        manifest: Manifest,
        tokens: list[str],
        metadata: dict[str, object],
        folder: Path,
        n_shards: int,
    ):
        self._vectors, self._manifest, self._tokens = vectors, manifest, tokens
        self._metadata, self._folder, self._n_shards = metadata, folder, n_shards

    def file(self, number: int) -> Path:
        """Return the index file of a shard."""
        return self._folder / f"{number:05d}.h5"

    def n_docs(self, number: int) -> int:
        """Return how many documents a shard has."""
        return len(self._rows(number))

    def is_done(self, number: int) -> bool:
        """Return whether a shard is there."""
        return self.file(number).is_file()

    def do(self, number: int, tell: Callable[[int], object] = lambda n_docs: None) -> None:
        """Build a shard in a folder of this process, and move it to its place."""
        folder = self._folder / f".{number:05d}.{platform.node()}.{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            builder = IndexBuilder(folder, len(self._tokens), self._metadata)
            for ids, vectors in self._groups(self._rows(number)):
                builder.add(ids, vectors)
                tell(len(ids))
            builder.finish()
            (folder / INDEX_FILE).replace(self.file(number))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _rows(self, number: int) -> range:
        return shard_range(self._manifest.n_docs, number, self._n_shards)

    def _groups(self, rows: range) -> Iterator[Group]:
        """Yield the ids and vectors of some rows of the collection, from the parts that hold them."""
        size, form = self._manifest.part_size, self._manifest.form
        for part in range(rows.start // size, -(-rows.stop // size)):
            row = part * size
            for ids, vectors in FORMS[form].read(self._manifest.part(self._vectors, part), self._tokens):
                start, stop = max(rows.start - row, 0), min(rows.stop - row, len(ids))
                if start < stop:
                    yield ids[start:stop], vectors.rows(start, stop)
                row += len(ids)
