"""A collection in an inverted index: encode it in a stream, go on after a killed run, change it, check whose it is."""

import logging
import uuid
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from splade.datasets.collections import open_collection
from splade.datasets.text_collection import CONTENT_MARK, PairCollection, TextCollection, checked_pair
from splade.distributed import (
    all_or_none,
    first_process_first,
    n_processes,
    on_first_process,
    process_rank,
    shard_range,
)
from splade.encoding.batching import WINDOW
from splade.encoding.sparse_model import SparseModel
from splade.errors import CollapseError, ConfigError, DataError, IndexFileError
from splade.evaluation.collapse import every_term_is_active
from splade.inverted_index import IndexBuilder, InvertedIndex, ShardedIndex, open_index, update_documents
from splade.inverted_index.own_terms import has_own_terms
from splade.inverted_index.prune import was_pruned
from splade.inverted_index.sharded import forget_shards
from splade.models.splade import Splade
from splade.progress import progress_bar
from splade.retrieval.origin import note_update, write_origin
from splade.vectors import SparseVectors

logger = logging.getLogger(__name__)

Corpus = str | Path | TextCollection | Iterable[tuple[str, str]]
Metadata = dict[str, object]


class Index:
    """An inverted index of a collection, with the model that made it.

    Attributes:
        postings: the index on disk, an `InvertedIndex`.
        model: what encodes documents; None where only searching is wanted.

    Example:
        >>> import splade, tempfile
        >>> model = splade.load("pkg://cognition/model")
        >>> index = Index.build(tempfile.mkdtemp(), model, [("d1", "A cat sat."), ("d2", "Dogs bark.")])
        >>> index.add([("d3", "Birds sing.")])
        >>> index.delete(["d1"])
        >>> index.postings.doc_ids()
        ['d2', 'd3']
    """

    def __init__(self, postings: InvertedIndex, model: SparseModel | None = None):
        self.postings = postings
        self.model = model

    def __repr__(self) -> str:
        return f"Index('{self.folder}', {len(self)} documents)"

    def __len__(self) -> int:
        return self.postings.n_docs

    @property
    def folder(self) -> Path:
        """Folder of the index."""
        return self.postings.path.parent

    @classmethod
    def open(cls, folder: str | Path, model: SparseModel | None = None) -> "Index":
        """Open an index and, with a model, check that this model made it.

        Raises:
            IndexFileError: no index, a damaged one, or one of another model; the message names what differs.
        """
        postings = open_index(folder)
        if model is not None:
            check_made_by(postings, model)
        return cls(postings, model)

    @classmethod
    def build(
        cls,
        folder: str | Path,
        model: SparseModel,
        corpus: Corpus,
        overwrite: bool = False,
        store_texts: bool = False,
    ) -> "Index":
        """Encode a collection into an index, or return the index that an earlier run of the same job has finished.

        A killed build goes on after its last part when it is called again. Of several processes, which all call this,
        each encodes a contiguous share of the collection.

        Args:
            folder: folder of the index.
            model: what encodes the documents.
            corpus: path of a collection, an open one, or (id, text) pairs; an iterator of pairs is read once, in
                constant memory, and its build cannot go on after it was killed.
            overwrite: replace an index of something else.
            store_texts: keep the texts in the folder, too, to show them with what was found; without it they are
                looked up in the collection, where that is a file.

        Raises:
            BusyError: another process is writing to the folder.
            IndexFileError: the folder holds an index of another collection or model, and `overwrite` is False.
            WriteError: the disk is full, or the folder cannot be written to; the same call goes on where it was.
            DataError: bad lines, duplicate ids or an empty collection.
        """
        if isinstance(corpus, str | Path):
            corpus = open_collection(corpus)
        elif isinstance(corpus, list | tuple):
            corpus = PairCollection(corpus)
        if store_texts and not isinstance(corpus, TextCollection):
            raise ConfigError("store_texts needs a collection that can be read twice, not an iterator")
        index = _build(Path(folder), model, corpus, overwrite)
        if process_rank() == 0:
            write_origin(index.folder, model, corpus, store_texts)
        return index

    def add(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Add documents, (id, text), after those that are there.

        Raises:
            BusyError: another process is changing the index.
            DataError: an id that is there already or given twice, or something that is no pair of strings.
            ConfigError: the index was opened without a model, or with one that cuts documents elsewhere.
        """
        self.update(add=pairs)

    def delete(self, doc_ids: Iterable[str]) -> None:
        """Delete documents; those that stay keep their order.

        Raises:
            BusyError: another process is changing the index.
            DataError: an id that is not there, or none would stay.
        """
        self.update(delete=doc_ids)

    def update(self, delete: Iterable[str] = (), add: Iterable[tuple[str, str]] | None = None) -> None:
        """Delete documents, then add others: both or, when killed, none. See `delete` and `add`."""
        gone = [delete] if isinstance(delete, str) else list(delete)
        update_documents(self.folder, gone, () if add is None else self._encoded(add))
        self.postings = open_index(self.folder)
        note_update(self.folder, PairCollection(add) if isinstance(add, list | tuple) else add, self.postings.doc_ids())

    def _encoded(self, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[list[str], SparseVectors]]:
        if self.model is None:
            raise ConfigError(f"{self.folder} was opened without a model: Index.open(folder, model) can add documents")
        length, given = self.postings.metadata.get("max_length"), self.model.documents.max_length
        if length is not None and length != given:
            raise ConfigError(
                f"{self.folder} holds documents cut at max_length {length}, the model cuts at {given}: load it with "
                f"max_length {length}"
            )
        checked = (checked_pair(pair, f"document number {i}") for i, pair in enumerate(pairs))
        return self.model.documents.encode_pairs(checked)


def _build(folder: Path, model: SparseModel, corpus: Iterable[tuple[str, str]], overwrite: bool) -> Index:
    rank, world_size = process_rank(), n_processes()
    if isinstance(corpus, TextCollection):
        source, n_docs = first_process_first(partial(_content, corpus))
        share = whole_windows(n_docs, rank, world_size)
    elif world_size > 1:
        raise ConfigError("several processes share a collection with a length, not an iterator; give its path")
    else:
        source, share = f"iterator {uuid.uuid4().hex}", None
    # The processes must agree, to the last bit of the weights.
    metadata = on_first_process(lambda: index_metadata(model, source))
    if on_first_process(lambda: finished_index(folder, metadata, overwrite)):
        logger.info("%s already holds this index: nothing to do", folder)
        return Index(open_index(folder), model)
    builder = IndexBuilder(
        folder, model.vocab_size, metadata, source, rank=rank, world_size=world_size, overwrite=overwrite
    )
    if on_first_process(lambda: finished_index(folder, metadata, overwrite)):  # by who has just released the lock
        builder.cancel()
        return Index(open_index(folder), model)
    all_or_none(lambda: _encode_into(builder, model, corpus, share))
    if isinstance(corpus, TextCollection) and corpus.digest() != source:
        raise DataError(f"{corpus.name}: changed while it was indexed; start again once it is complete")
    builder.finish()
    on_first_process(lambda: forget_shards(folder))
    return Index(open_index(folder), model)


def _content(corpus: TextCollection) -> tuple[str, int]:
    return corpus.digest(), len(corpus)


def whole_windows(n_docs: int, rank: int, world_size: int) -> range:
    """Divide documents among processes in whole encoding windows.

    Which texts share a batch is decided within a window, and the last bit of a weight may depend on it. So the index
    is the same, byte for byte, whatever the number of processes.
    """
    windows = shard_range(-(-n_docs // WINDOW), rank, world_size)
    return range(min(n_docs, windows.start * WINDOW), min(n_docs, windows.stop * WINDOW))


def check_made_by(postings: InvertedIndex, model: SparseModel) -> None:
    """Check that a model made an index.

    Raises:
        IndexFileError: another one did; the message names what differs.
    """
    folder, metadata, fingerprint = postings.path.parent, postings.metadata, model.fingerprint
    check_has_a_model(postings)
    if postings.vocab_size != model.vocab_size:
        raise IndexFileError(
            f"{folder} is an index over {postings.vocab_size} terms, the model '{model.name}' has {model.vocab_size}"
        )
    stored = metadata.get("fingerprint", {})
    differences = fingerprint.differences(stored)
    if differences == ["document_encoder"] and stored["document_encoder"] == _digest_of_query_encoder(model.network):
        raise IndexFileError(
            f"{folder} was made with what is now the query encoder: document and query encoder are swapped. "
            "Exchange init_dict.model_type_or_dir and init_dict.model_type_or_dir_q"
        )
    if differences:
        listing = "; ".join(
            f"{name}: {stored.get(name)} in the index, {getattr(fingerprint, name)} in the model"
            for name in differences
        )
        raise IndexFileError(
            f"{folder} was made with the model '{metadata.get('model')}', which is not the same as "
            f"'{model.name}' ({listing}). Use that model, or index again with this one."
        )
    length, said = metadata.get("max_length"), model.network.document_settings.max_length
    if isinstance(length, int) and said is not None and length > said:
        raise IndexFileError(
            f"{folder} holds documents cut at max_length {length}, the model '{model.name}' itself cuts at {said}: "
            "index again with this one"
        )


def check_has_a_model(postings: InvertedIndex) -> None:
    """Check that a model's terms are in an index.

    Raises:
        IndexFileError: its vectors have terms of their own.
    """
    if has_own_terms(postings):
        raise IndexFileError(
            f"{postings.path.parent} holds vectors with {postings.vocab_size} terms of their own, for which there is "
            "no model: splade.retrieve, prune, export, update and index_info take it, with vectors in place of texts"
        )


def _encode_into(
    builder: IndexBuilder, model: SparseModel, corpus: Iterable[tuple[str, str]], share: range | None
) -> None:
    """Encode the documents of this process's share that the builder does not have yet."""
    if isinstance(corpus, TextCollection) and share is not None:
        start = share.start + builder.documents_done
        pairs, total = corpus.between(start, share.stop), share.stop - start
    else:
        pairs, total = (checked_pair(pair, f"document number {i}") for i, pair in enumerate(corpus)), None
    with progress_bar("indexing", total=total, unit="doc") as bar:
        for doc_ids, vectors in encode_documents(model, pairs):
            builder.add(doc_ids, vectors)
            bar.update(len(vectors))


def encode_documents(model: SparseModel, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[list[str], SparseVectors]]:
    """Yield ids and vectors of (id, text) pairs, some at a time.

    Raises:
        CollapseError: the vectors are not sparse.
    """
    for doc_ids, vectors in model.documents.encode_pairs(pairs):
        if len(vectors) == WINDOW and every_term_is_active(vectors):
            raise CollapseError(
                f"'{model.name}' gives each of {WINDOW} documents (nearly) all of its {model.vocab_size} terms: it "
                "was never trained for sparse retrieval, or training has failed; an index would be as large as a "
                "dense matrix and rank nothing"
            )
        yield doc_ids, vectors


def _digest_of_query_encoder(network: Splade) -> str:
    """Return what the index of a model with both encoders exchanged would carry."""
    exchanged = Splade(
        *(network.query_encoder, network.document_encoder, network.query_tokenizer, network.tokenizer),
        document_settings=network.query_settings,
    )
    return exchanged.fingerprint().document_encoder


def index_metadata(model: SparseModel, source: str) -> Metadata:
    """Return what identifies an index: model, length and collection."""
    return {
        "model": model.name,
        "fingerprint": model.fingerprint.as_dict(),
        "max_length": model.documents.max_length,
        "source": source,
    }


def finished_index(folder: Path, metadata: Metadata, overwrite: bool, n_shards: int | None = None) -> bool:
    """Return whether the index of a folder is the one asked for, in so many shards; if not, it may be built."""
    try:
        index = open_index(folder)
    except IndexFileError:
        return False  # the builder says what is wrong with the folder, if anything is
    there = index.metadata
    same_source = str(there.get("source", "")).rpartition(" ")[2] == str(metadata["source"]).rpartition(" ")[2]
    if (
        same_source
        and not there.get("updated")
        and not was_pruned(there)
        and all(there.get(key) == metadata[key] for key in ("fingerprint", "max_length"))
    ):
        found = len(index.shards) if isinstance(index, ShardedIndex) else None
        if found == n_shards or overwrite:
            return found == n_shards
        form = "one file" if found is None else f"{found} shards"
        raise IndexFileError(
            f"{folder} holds this index in {form}, and config.n_shards={n_shards or 'null'}: it answers the same; "
            "give another config.index_dir, or build it anew with config.overwrite=true"
        )
    if overwrite:
        return False
    changed = ", changed since by adding or deleting documents" if there.get("updated") else ""
    changed += ", pruned" if was_pruned(there) else ""
    if " " in str(there.get("source", "")) and CONTENT_MARK not in str(there["source"]):
        changed += " (an earlier version wrote it without reading the whole collection: it may or may not be this one)"
    raise IndexFileError(
        f"{folder} holds a finished index of {there.get('source')}{changed}, made with the model "
        f"'{there.get('model')}', max_length {there.get('max_length')}; this is another one. Give another "
        "config.index_dir, or replace it with config.overwrite=true (in Python: overwrite=True)"
    )
