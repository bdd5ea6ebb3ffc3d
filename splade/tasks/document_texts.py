"""Where a task finds the texts of the documents that a search returns."""

from contextlib import suppress

from splade.config import Experiment
from splade.config.command import report
from splade.datasets.collections import open_collection
from splade.datasets.text_collection import TextCollection
from splade.errors import DataError, IndexFileError
from splade.retrieval.origin import DocumentTexts, Texts, read_origin
from splade.retrieval.sparse import SparseRetriever


def texts_of_index(experiment: Experiment, retriever: SparseRetriever) -> Texts | None:
    """Return the collection that the configuration names, if the documents of the index come from it, or else theirs.

    Searching needs no texts: where there are none, documents are shown without.
    """
    if experiment.data.COLLECTION_PATH is not None:
        with suppress(DataError):
            texts: TextCollection = open_collection(experiment.data.COLLECTION_PATH)
            if (texts.rows(retriever.known_doc_ids(())) >= 0).all():
                return texts
    folder = retriever.index.folder
    with suppress(IndexFileError):
        origin = read_origin(folder)
        if origin is not None and origin.collections:
            found = DocumentTexts(folder, origin.collections)
            for reason in found.missing:
                report(f"texts are not shown: {reason}; data.COLLECTION_PATH says where they are now")
            return found
    return None
