"""Dense vectors of a collection on disk: encoded in a stream, resumed after a kill, mapped into memory."""

import itertools
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from splade.datasets.text_collection import TextCollection
from splade.distributed import n_processes
from splade.encoding.batching import WINDOW
from splade.encoding.dense_model import DenseModel
from splade.errors import ConfigError, DataError, IndexFileError
from splade.inverted_index.document_ids import DocumentIds
from splade.inverted_index.layout import check_lengths, check_strings
from splade.progress import progress_bar
from splade.storage.arrays import ArrayFile, Layout, array_writer, open_arrays
from splade.storage.atomic import read_json_object, write_json
from splade.storage.locks import FolderLock

logger = logging.getLogger(__name__)

INDEX_FILE = "dense_index.h5"
_PART_FILE, _STATE_FILE = "dense_vectors.part", "dense_vectors.json"
_FLOAT_BYTES = 4


def _check(file: ArrayFile) -> None:
    """Refuse content that cannot be."""
    n_docs, n_dims, vectors = file.integer("n_docs"), file.integer("dimensions"), file.arrays["vectors"]
    if n_docs < 1 or n_dims < 1:
        file.refuse(f"it claims {n_docs} documents of {n_dims} dimensions")
    check_lengths(file, {"vectors": n_docs * n_dims})
    check_strings(file, "doc_id_text", "doc_id_ends", n_docs)
    step = WINDOW * n_dims
    if not all(np.isfinite(vectors[start : start + step]).all() for start in range(0, len(vectors), step)):
        file.refuse("'vectors' holds a number that is not finite")
    file.json_object("metadata")


_LAYOUT = Layout("dense index", {"vectors": "<f4", "doc_id_text": "|u1", "doc_id_ends": "<i8"}, _check)


class DenseIndex:
    """The vectors of a collection.

    Attributes:
        vectors: (documents, dimensions) float32, mapped from disk.
        doc_ids: ids in the order of the vectors.
        metadata: which model and collection it was made from.
    """

    def __init__(self, file: ArrayFile):
        self.path = file.path
        n_docs, n_dims = file.integer("n_docs"), file.integer("dimensions")
        self.vectors = file.arrays["vectors"].reshape(n_docs, n_dims)
        self.doc_ids = DocumentIds(file.arrays["doc_id_text"], file.arrays["doc_id_ends"])
        self.metadata = file.json_object("metadata")

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        return f"DenseIndex('{self.path.parent}', {len(self)} documents, {self.vectors.shape[1]} dimensions)"

    @classmethod
    def open(cls, folder: str | Path, model: DenseModel | None = None) -> "DenseIndex":
        """Open an index and, with a model, check that this model made it.

        Raises:
            IndexFileError: no index, a damaged one, or one of another model.
        """
        index = cls(open_arrays(Path(folder) / INDEX_FILE, _LAYOUT))
        if model is not None and index.metadata.get("fingerprint") != model.fingerprint:
            raise IndexFileError(
                f"{folder} was made with the model '{index.metadata.get('model')}', which is not the same as "
                f"'{model.name}'; use that model, or index again with this one"
            )
        return index

    @classmethod
    def build(
        cls, folder: str | Path, model: DenseModel, corpus: TextCollection, overwrite: bool = False
    ) -> "DenseIndex":
        """Encode a collection, or return the index that an earlier run of the same job has finished.

        A killed build goes on after its last whole window of texts when it is called again.

        Raises:
            BusyError: another process is writing to the folder.
            ConfigError: several processes, which cannot share this work.
            IndexFileError: the folder holds an index of another collection or model, and `overwrite` is False.
            DataError: an empty collection, or one that changes meanwhile.
        """
        if n_processes() > 1:
            raise ConfigError("a dense index is built by one process: run this command without torchrun")
        folder = Path(folder)
        metadata: dict[str, object] = {
            "model": model.name,
            "fingerprint": model.fingerprint,
            "max_length": model.max_length,
            "source": corpus.digest(),
        }
        with FolderLock(folder):
            found = _finished(folder, metadata, overwrite)
            if found is not None:
                logger.info("%s already holds this index: nothing to do", folder)
                return found
            doc_ids = [doc_id for doc_id, _ in corpus]
            _encode(folder, model, corpus, len(doc_ids), metadata)
            if corpus.digest() != metadata["source"]:
                raise DataError(f"{corpus.name}: changed while it was indexed; start again once it is complete")
            _write(folder, model.dimensions, doc_ids, metadata)
        return cls.open(folder)


def _finished(folder: Path, metadata: dict[str, object], overwrite: bool) -> DenseIndex | None:
    if not (folder / INDEX_FILE).is_file():
        return None
    there = DenseIndex.open(folder)
    names = ("fingerprint", "max_length")
    same_texts = str(there.metadata.get("source")).rpartition(" ")[2] == str(metadata["source"]).rpartition(" ")[2]
    if same_texts and all(there.metadata.get(name) == metadata[name] for name in names):
        return there
    if overwrite:
        return None
    raise IndexFileError(
        f"{folder} holds a finished dense index of {there.metadata.get('source')}, made with the model "
        f"'{there.metadata.get('model')}', max_length {there.metadata.get('max_length')}; this is another one. Give "
        "another config.index_dir, or replace it with config.overwrite=true"
    )


def _encode(folder: Path, model: DenseModel, corpus: TextCollection, n_docs: int, metadata: dict[str, object]) -> None:
    """Append the vectors that are not there yet to the part file, a whole window of texts at a time."""
    part, row_bytes = folder / _PART_FILE, model.dimensions * _FLOAT_BYTES
    if not part.is_file() or not _same_job(folder / _STATE_FILE, metadata):
        part.unlink(missing_ok=True)
        write_json(folder / _STATE_FILE, metadata)
    done = part.stat().st_size // (WINDOW * row_bytes) * WINDOW if part.is_file() else 0
    texts = (text for _, text in itertools.islice(iter(corpus), done, None))
    with open(part, "ab") as stream, progress_bar("indexing", total=n_docs - done, unit="doc") as bar:
        stream.truncate(done * row_bytes)
        for vectors in model.stream(texts, "document"):
            stream.write(np.ascontiguousarray(vectors, "<f4").data)
            stream.flush()
            bar.update(len(vectors))
        os.fsync(stream.fileno())


def _same_job(state: Path, metadata: dict[str, object]) -> bool:
    try:
        return read_json_object(state) == metadata
    except DataError:
        return False


def _write(folder: Path, n_dims: int, doc_ids: list[str], metadata: dict[str, object]) -> None:
    ids, part = DocumentIds.from_strings(doc_ids), folder / _PART_FILE
    attributes: dict[str, int | str] = {"n_docs": len(doc_ids), "dimensions": n_dims, "metadata": json.dumps(metadata)}
    with array_writer(folder / INDEX_FILE, _LAYOUT, attributes) as writer:
        writer.write("doc_id_text", ids.text)
        writer.write("doc_id_ends", ids.ends)
        writer.create("vectors", len(doc_ids) * n_dims)
        for block in _blocks(part, n_dims):
            writer.append("vectors", block)
    part.unlink()
    (folder / _STATE_FILE).unlink(missing_ok=True)


def _blocks(part: Path, n_dims: int) -> Iterator[np.ndarray]:
    with open(part, "rb") as stream:
        while data := stream.read(WINDOW * n_dims * _FLOAT_BYTES):
            yield np.frombuffer(data, "<f4")
