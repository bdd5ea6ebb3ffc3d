"""Approximate search by Seismic (Bruch et al., arXiv 2404.18812), of the vectors of an index of this toolkit.

What Seismic builds is kept beside the index, in `seismic/`, with a record of what it was built from; the record is
written last.
"""

import json
import logging
from pathlib import Path
from types import ModuleType

import numpy as np

from splade.config.retrievers import SeismicConfig
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError, DataError
from splade.inverted_index import InvertedIndex, ShardedIndex
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.retrieval.collection_index import Index
from splade.retrieval.elsewhere import Answers, ElsewhereRetriever
from splade.storage.atomic import JsonObject, read_json_object, write_json
from splade.vectors import SparseVectors

logger = logging.getLogger(__name__)

FOLDER, RECORD = "seismic", "built_from.json"


def seismic_library() -> ModuleType:
    """Import Seismic.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import seismic
    except ImportError as error:
        raise ConfigError("retriever=seismic needs pyseismic-lsr: pip install 'splade[seismic]'") from error
    return seismic


class SeismicRetriever(ElsewhereRetriever):
    """Queries are encoded here and searched by Seismic, one by one.

    Args:
        model: encodes the queries.
        index: where the vectors come from.
        keys: how Seismic builds and searches.
        folder: takes what Seismic builds, and has it the next time.
        threshold: only documents with a greater score are returned.
        n_threads: threads of building; 0: one per core.

    Raises:
        ConfigError: Seismic is not installed.
        IndexFileError: another model made the index.
    """

    def __init__(
        self,
        model: SparseModel,
        index: Index,
        keys: SeismicConfig,
        folder: Path,
        threshold: float = 0.0,
        n_threads: int = 0,
    ):
        super().__init__("Seismic", model, index, threshold, n_threads)
        self._keys = keys
        self._seismic = seismic_library()
        self._engine = self._opened(folder / FOLDER)

    def _opened(self, folder: Path) -> object:
        """Open what was built of this very index with these settings, or build it."""
        record, place = folder / RECORD, folder / "index"
        made_of: JsonObject = {"seals": _seals(self.index.postings), "n_postings": self._keys.n_postings}
        try:
            if read_json_object(record) == made_of:
                return self._seismic.SeismicIndex.load(f"{place}.index.seismic")
        except (DataError, OSError, ValueError):
            pass
        record.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        dataset, kind = self._seismic.SeismicDataset(), self._seismic.get_seismic_string()
        for ids, vectors in IndexedVectors(self.index.postings).by_document():
            for doc_id, (terms, weights) in zip(ids, vectors, strict=True):
                if len(terms):  # no query finds the others
                    dataset.add_document(doc_id, terms.astype(kind), weights)
        logger.info("building Seismic's index of %d documents", self.index.postings.n_docs)
        engine = self._seismic.SeismicIndex.build_from_dataset(
            dataset, n_postings=self._keys.n_postings, num_threads=self.n_threads
        )
        engine.save(str(place))
        write_json(record, made_of)
        return engine

    def _ask(self, vectors: SparseVectors, top_k: int) -> Answers:
        kind, cut = self._seismic.get_seismic_string(), (self._keys.query_cut, self._keys.heap_factor)
        for terms, weights in vectors:
            hits = self._engine.search("", terms.astype(kind), weights, top_k, *cut) if len(terms) else []  # type: ignore[attr-defined]
            yield [doc_id for _, _, doc_id in hits], np.array([score for _, score, _ in hits], np.float32)


def _seals(postings: InvertedIndex) -> list[str]:
    """Return what tells the files of an index from any others."""
    shards = postings.shards if isinstance(postings, ShardedIndex) else [postings]
    return [json.dumps(shard.file.seal) for shard in shards]
