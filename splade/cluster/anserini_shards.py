"""Documents for Anserini in compressed shards: a part of a collection each, encoded and written by any process."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from splade.cluster.part_jobs import EncodingJob
from splade.config.schema import Experiment
from splade.datasets.text_collection import TextCollection
from splade.encoding.sparse_model import SparseModel
from splade.interop.anserini import write_documents
from splade.interop.exported import Exported, one_by_one
from splade.retrieval.collection_index import encode_documents
from splade.storage.atomic import JsonObject, read_json_object, write_json

SETTINGS_FILE = "shards.json"


class AnseriniShards(EncodingJob):
    """Encode the documents of a collection into JSON lines with whole numbers.

    A shard is there with a count of its vectors, in another folder: Anserini indexes all files of the shards' own.

    Args:
        experiment: names the model; in other processes it is loaded again.
        model: the model here.
        collection: the documents.
        folder: of the shards, and of nothing else.
        counts: folder of their counts.
    """

    title = "encoding"

    def __init__(
        self, experiment: Experiment, model: SparseModel, collection: TextCollection, folder: Path, counts: Path
    ):
        super().__init__(experiment, model, collection)
        self._folder, self._counts = folder, counts
        self._size, self._factor = int(experiment.shard_size or 1), float(experiment.quantization_factor_document)
        self._n_docs = len(collection)

    @property
    def n_parts(self) -> int:
        """Number of shards."""
        return -(-self._n_docs // self._size)

    def file(self, number: int) -> Path:
        """Return the file of a shard."""
        return self._folder / f"docs_anserini.{number:05d}.jsonl.gz"

    def begin(self) -> None:
        """Keep the shards of an earlier run with the same settings; remove all else from their folder."""
        settings: JsonObject = {
            **{"model": self._model.fingerprint.as_dict(), "max_length": self._model.documents.max_length},
            **{"source": self._collection.digest(), "size": self._size, "factor": self._factor},
        }
        place = self._counts / SETTINGS_FILE
        same = place.is_file() and read_json_object(place) == settings
        kept = {self.file(number) for number in range(self.n_parts)} if same else set()
        for other in self._folder.glob("*"):
            if other not in kept:
                other.unlink()
        write_json(place, settings)

    def exported(self) -> Exported:
        """Return what is in all shards."""
        parts = [Exported(**read_json_object(self._count(number))) for number in range(self.n_parts)]
        return Exported.of_parts(self._folder, parts)

    def n_docs(self, number: int) -> int:
        """Return how many documents a shard has."""
        return len(self._rows(number))

    def is_done(self, number: int) -> bool:
        """Return whether a shard is there, with its count."""
        return self.file(number).is_file() and self._count(number).is_file()

    def do(self, number: int, tell: Callable[[int], object] = lambda n_docs: None) -> None:
        """Write a shard."""
        rows = self._rows(number)
        encoded = encode_documents(self._model, self._collection.between(rows.start, rows.stop))
        texts = (text for _, text in self._collection.between(rows.start, rows.stop))
        documents = ((doc_id, text, vector) for (doc_id, vector), text in zip(one_by_one(encoded), texts, strict=True))
        written = write_documents(self.file(number), documents, self._model.tokens, self._factor)
        write_json(self._count(number), asdict(written) | {"path": self.file(number).name})
        tell(written.n_vectors)

    def _rows(self, number: int) -> range:
        return range(number * self._size, min(self._n_docs, (number + 1) * self._size))

    def _count(self, number: int) -> Path:
        return self._counts / f"{number:05d}.json"
