"""A collection into an inverted index: encode in a stream, skip what a killed run has already done."""

import hashlib
import itertools
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from splade.datasets.collections import TextCollection
from splade.distributed import shard_range
from splade.encoding import encode_texts
from splade.encoding.batching import WINDOW
from splade.errors import IndexFileError
from splade.inverted_index import IndexBuilder, InvertedIndex
from splade.models.splade import Splade
from splade.pipeline.checks import check_max_length
from splade.progress import progress_bar

logger = logging.getLogger(__name__)

EDGE_BYTES = 1 << 20


def index_collection(
    model: Splade,
    collection: TextCollection,
    index_dir: Path,
    max_length: int,
    batch_size: int,
    overwrite: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> InvertedIndex:
    """Encode a collection into an index, or return the index that an earlier run of the same job has finished.

    Args:
        model: what encodes the documents.
        collection: the documents.
        index_dir: folder of the index.
        max_length: tokens per document, longer ones are cut.
        batch_size: upper bound of documents per batch.
        overwrite: replace an index of something else.
        rank: which of several processes this is; each encodes a contiguous share of the collection.
        world_size: how many processes there are.

    Raises:
        IndexFileError: the folder holds an index of another collection or model, and `overwrite` is false.
        DataError: bad lines, duplicate ids or an empty collection.
        ModelError: `max_length` is more than the model has positions for.
    """
    check_max_length(model, max_length)
    metadata = index_metadata(model, collection, max_length)
    finished = _finished(index_dir, metadata, overwrite)
    if finished is not None:
        logger.info("%s already holds this index: nothing to do", index_dir)
        return finished
    share = whole_windows(len(collection), rank, world_size)
    builder = IndexBuilder(
        index_dir,
        vocab_size=model.vocab_size,
        metadata=metadata,
        source=str(metadata["source"]),
        rank=rank,
        world_size=world_size,
        overwrite=overwrite,
    )
    start, stop = share.start + builder.documents_done, share.stop
    bar = progress_bar("indexing", total=stop - start, unit="doc")
    ids: deque[str] = deque()
    texts = _noting_ids(itertools.islice(collection, start, stop), ids)
    for vectors in encode_texts(model.document_encoder, model.tokenizer, texts, max_length, batch_size):
        builder.add([ids.popleft() for _ in range(len(vectors))], vectors)
        bar.update(len(vectors))
    bar.close()
    builder.finish()
    return InvertedIndex.open(index_dir)


def whole_windows(n_docs: int, rank: int, world_size: int) -> range:
    """Divide documents among processes in whole encoding windows.

    Which texts share a batch is decided within a window, and the last bit of a weight may depend on it. So the index
    is the same, byte for byte, whatever the number of processes.
    """
    windows = shard_range(-(-n_docs // WINDOW), rank, world_size)
    return range(min(n_docs, windows.start * WINDOW), min(n_docs, windows.stop * WINDOW))


def open_index_of(model: Splade, index_dir: Path) -> InvertedIndex:
    """Open an index and check that this model made it.

    Raises:
        IndexFileError: no index, a damaged one, or one of another model; the message names what differs.
    """
    index = InvertedIndex.open(index_dir)
    fingerprint = model.fingerprint()
    if index.vocab_size != model.vocab_size:
        raise IndexFileError(
            f"{index_dir} is an index over {index.vocab_size} terms, the model '{model.name}' has {model.vocab_size}"
        )
    stored = index.metadata.get("fingerprint", {})
    differences = fingerprint.differences(stored)
    if differences == ["document_encoder"] and stored.get("document_encoder") == _digest_of_query_encoder(model):
        raise IndexFileError(
            f"{index_dir} was made with what is now the query encoder: document and query encoder are swapped. "
            "Exchange init_dict.model_type_or_dir and init_dict.model_type_or_dir_q"
        )
    if differences:
        listing = "; ".join(
            f"{name}: {stored.get(name)} in the index, {getattr(fingerprint, name)} in the model"
            for name in differences
        )
        raise IndexFileError(
            f"{index_dir} was made with the model '{index.metadata.get('model')}', which is not the same as "
            f"'{model.name}' ({listing}). Use that model, or index again with this one."
        )
    return index


def _digest_of_query_encoder(model: Splade) -> str:
    """Return what the index of a model with both encoders exchanged would carry."""
    exchanged = Splade(model.query_encoder, model.document_encoder, model.query_tokenizer, model.tokenizer)
    return exchanged.fingerprint().document_encoder


def index_metadata(model: Splade, collection: TextCollection, max_length: int) -> dict[str, Any]:
    """Return what identifies an index: model, length and collection."""
    return {
        "model": model.name,
        "fingerprint": model.fingerprint().as_dict(),
        "max_length": max_length,
        "source": source_digest(collection),
    }


def source_digest(collection: TextCollection) -> str:
    """Identify the files of a collection by their sizes and the digest of their first and last MiB."""
    files: Iterable[Path] = getattr(getattr(collection, "source", None), "files", ())
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        with open(path, "rb") as file:
            digest.update(f"{size}".encode() + file.read(EDGE_BYTES))
            file.seek(max(0, size - EDGE_BYTES))
            digest.update(file.read(EDGE_BYTES))
    return f"{collection.name} {digest.hexdigest()[:16]}" if files else collection.name


def _finished(index_dir: Path, metadata: dict[str, Any], overwrite: bool) -> InvertedIndex | None:
    try:
        index = InvertedIndex.open(index_dir)
    except IndexFileError:
        return None  # the builder says what is wrong with the folder, if anything is
    keys = ("fingerprint", "max_length")
    same_source = str(index.metadata.get("source", "")).rpartition(" ")[2] == metadata["source"].rpartition(" ")[2]
    if same_source and all(index.metadata.get(key) == metadata[key] for key in keys):
        return index
    if overwrite:
        return None
    raise IndexFileError(
        f"{index_dir} holds a finished index of {index.metadata.get('source')} made with the model "
        f"'{index.metadata.get('model')}', max_length {index.metadata.get('max_length')}; this is another one. Give "
        "another config.index_dir, or replace it with config.overwrite_final=true"
    )


def _noting_ids(pairs: Iterable[tuple[str, str]], ids: deque[str]) -> Iterator[str]:
    """Yield the texts of (id, text) pairs and queue the ids; the encoder's thread reads texts ahead of the vectors."""
    for text_id, text in pairs:
        ids.append(text_id)
        yield text
