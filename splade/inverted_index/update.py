"""Adding documents to an index and deleting some, by writing it anew.

A finished index is a source of postings like any segment, so both are merges. The result is the index that building
from the remaining documents would give, byte for byte but for `metadata["updated"]`, which says that it no longer holds
the collection that the metadata name. Nothing is left behind that a later compaction would have to remove. Merging
takes a few seconds per 100 million postings.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from splade.errors import DataError
from splade.inverted_index.document_ids import DocumentIds
from splade.inverted_index.index_source import IndexSource
from splade.inverted_index.layout import INDEX_FILE
from splade.inverted_index.merge import IndexInfo, merge
from splade.inverted_index.read import InvertedIndex
from splade.inverted_index.segments import PostingSource, Segment
from splade.storage.locks import FolderLock
from splade.vectors import SparseVectors

Batches = Iterable[tuple[Sequence[str], SparseVectors]]


def update_documents(index_dir: str | Path, delete: Sequence[str] = (), add: Batches = ()) -> IndexInfo:
    """Delete documents of an index and add others after those that stay: both or, when killed, none.

    Indexes that are open go on showing what they held.

    Args:
        index_dir: folder of the index.
        delete: ids of documents.
        add: document ids and their vectors; all are held in memory.

    Raises:
        BusyError: another process is writing to the folder.
        IndexFileError: no index there.
        DataError: an id to delete is not there, or none would stay; a wrong vector; an id to add is given twice or is
            there already.
        WriteError: the disk is full, or the index cannot be replaced.
    """
    folder = InvertedIndex.open(index_dir).path.parent
    with FolderLock(folder):
        index = InvertedIndex.open(folder)  # as the last writer has left it
        old = IndexSource(index.file)
        if len(delete):
            keep = np.ones(index.n_docs, np.bool_)
            keep[old.ids.numbers(delete)] = False
            old.keep(keep)
        ids, vectors = [], []
        for doc_ids, batch in add:
            batch.check_named(index.vocab_size, doc_ids)
            ids.append(DocumentIds.from_strings(doc_ids))
            vectors.append(batch)
        n_added = sum(map(len, ids))
        if not len(delete) and not n_added:
            return IndexInfo.of(index.file)
        if not len(old.ids) + n_added:
            raise DataError(f"{index.path}: all {index.n_docs} documents would be deleted; delete the folder instead")
        sources: list[PostingSource] = [old] if len(old.ids) else []
        sources += [Segment(ids, vectors, index.vocab_size)] if n_added else []
        return merge(sources, index.path, index.vocab_size, {**index.metadata, "updated": True})


def merge_indexes(files: Sequence[Path], index_dir: Path) -> IndexInfo:
    """Make the index of a folder of several index files, one document after the other; the metadata are the first's.

    Raises:
        DataError: a document is in two of them.
        IndexFileError: one is damaged.
    """
    indexes = [InvertedIndex.open(file) for file in files]
    sources = [IndexSource(index.file) for index in indexes]
    return merge(sources, index_dir / INDEX_FILE, indexes[0].vocab_size, indexes[0].metadata)


def add_documents(index_dir: str | Path, batches: Batches) -> IndexInfo:
    """Add documents after those of an index; see `update_documents`."""
    return update_documents(index_dir, add=batches)


def delete_documents(index_dir: str | Path, doc_ids: Sequence[str]) -> IndexInfo:
    """Delete documents from an index; those that stay keep their order; see `update_documents`."""
    return update_documents(index_dir, delete=doc_ids)
