"""An index of vectors that were made before, by this toolkit or another."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from splade.encoding.sparse_model import SparseModel
from splade.errors import DataError
from splade.inverted_index import IndexBuilder, InvertedIndex, open_index
from splade.inverted_index.own_terms import OWN_TERMS, remove_other_terms, terms_digest, write_terms
from splade.inverted_index.sharded import forget_shards
from splade.progress import progress_bar
from splade.retrieval.collection_index import finished_index, index_metadata
from splade.retrieval.origin import ORIGIN_FILE, write_origin
from splade.vectors import SparseVectors


class VectorSource(Protocol):
    """Ids with vectors, in a fixed order, that can be gone through again."""

    name: str

    def __iter__(self) -> Iterator[tuple[list[str], SparseVectors]]:
        """Yield ids with their vectors, some at a time."""

    def digest(self) -> str:
        """Return the name, and a digest of the content."""


def index_vectors(
    folder: Path,
    model: SparseModel,
    vectors: VectorSource,
    made_by: Mapping[str, object] | None,
    max_length: int | None,
    overwrite: bool = False,
) -> InvertedIndex:
    """Build an index of vectors as if the model had encoded them, or return the one that is finished.

    A killed build goes on after its last segment when it is called again.

    Args:
        folder: folder of the index.
        model: what will encode the queries.
        vectors: what is indexed.
        made_by: fingerprint of the model that made the vectors; None: nobody knows, and the user's word counts.
        max_length: tokens after which the documents were cut; None: nobody knows.
        overwrite: replace an index of something else.

    Raises:
        BusyError: another process is writing to the folder.
        DataError: the vectors are those of another model, or cannot be, or there are none.
        IndexFileError: the folder holds another index, and `overwrite` is False.
    """
    differences = [] if made_by is None else model.fingerprint.differences(made_by)
    if differences:
        raise DataError(
            f"{vectors.name}: the vectors were made by another model than '{model.name}': they differ in "
            f"{', '.join(differences)}"
        )
    source = vectors.digest()
    metadata = index_metadata(model, source) | {"max_length": max_length}
    if not finished_index(folder, metadata, overwrite):
        _build(folder, model.vocab_size, metadata, vectors, overwrite)
        write_origin(folder, model, ())
    return _finished(folder)


def index_own_vectors(
    folder: Path, vectors: VectorSource, terms: list[str], source: str, overwrite: bool = False
) -> InvertedIndex:
    """Build an index of vectors with a vocabulary of their own, for which there is no model.

    Args:
        folder: folder of the index.
        vectors: what is indexed.
        terms: their vocabulary.
        source: digest of the vectors, from before their terms were collected.
        overwrite: replace an index of something else.

    Raises:
        As `index_vectors`.
    """
    digest = terms_digest(terms)
    metadata: dict[str, object] = {
        "model": f"none: {len(terms)} terms of the vectors' own",
        "fingerprint": {OWN_TERMS: digest},
        OWN_TERMS: digest,
        "max_length": None,
        "source": source,
    }
    if not finished_index(folder, metadata, overwrite):
        write_terms(folder, terms)
        _build(folder, len(terms), metadata, vectors, overwrite)
        (folder / ORIGIN_FILE).unlink(missing_ok=True)  # of an earlier index
    return _finished(folder)


def _build(folder: Path, vocab_size: int, metadata: dict[str, object], vectors: VectorSource, overwrite: bool) -> None:
    source = str(metadata["source"])
    builder = IndexBuilder(folder, vocab_size, metadata, source, overwrite=overwrite)
    done = builder.documents_done
    with progress_bar("indexing", unit="doc", done=done) as bar:
        for ids, group in vectors:
            skipped = min(done, len(ids))
            done -= skipped
            if skipped < len(ids):
                builder.add(ids[skipped:], group.rows(skipped, len(ids)))
                bar.update(len(ids) - skipped)
    if vectors.digest() != source:
        raise DataError(f"{vectors.name}: changed while it was indexed; start again once it is complete")
    builder.finish()
    forget_shards(folder)


def _finished(folder: Path) -> InvertedIndex:
    postings = open_index(folder)
    remove_other_terms(folder, postings)
    return postings
