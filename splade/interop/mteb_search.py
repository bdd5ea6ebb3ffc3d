"""A model with our index as MTEB evaluates it (https://github.com/embeddings-benchmark/mteb), as a sparse model.

`mteb.evaluate(MtebSearch(splade.load(NAME)), mteb.get_tasks(["SciFact"]))`: MTEB reads the data and computes the
metrics; documents are indexed and searched here.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

import numpy as np

from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError, DataError
from splade.retrieval.collection_index import Index
from splade.retrieval.protocol import Ranking
from splade.retrieval.sparse import SparseRetriever
from splade.vectors import SparseVectors

if TYPE_CHECKING:
    from mteb.models import ModelMeta

Rows = Iterable[Mapping[str, object]]


class TaskDescription(Protocol):
    """What MTEB says of a task, as far as it is used here."""

    name: str


class MtebSearch:
    """Indexes and searches for MTEB: its `SearchProtocol`. Retrieval and re-ranking tasks of texts can be evaluated.

    Args:
        model: a sparse model.
        folder: takes the indexes, one per task; None: a temporary folder.
        overwrite: replace indexes that are there.

    Raises:
        ConfigError: MTEB is not installed.
    """

    def __init__(self, model: SparseModel, folder: str | Path | None = None, overwrite: bool = False):
        self.mteb_model_meta = _model_meta(model)
        self.model = model
        self.overwrite = overwrite
        self._temporary = TemporaryDirectory(prefix="splade-mteb-") if folder is None else None
        self._folder = Path(folder if folder is not None else str(self._temporary and self._temporary.name))
        self._index: Index | None = None

    def index(
        self, corpus: Rows, *, task_metadata: TaskDescription, hf_split: str, hf_subset: str, **kwargs: object
    ) -> None:
        """Index the documents, title and text joined, of a split of a task."""
        pairs = [(str(row["id"]), _text(row)) for row in corpus]
        place = self._folder / task_metadata.name / f"{hf_subset}-{hf_split}"
        self._index = Index.build(place, self.model, pairs, self.overwrite or self._temporary is not None)

    def search(
        self,
        queries: Rows,
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: object,
    ) -> dict[str, Ranking]:
        """Return query id to {document id: score}, of all documents or, for re-ranking, of those in `top_ranked`.

        Raises:
            DataError: `index` was not called before, or `top_ranked` names a document that was not indexed.
        """
        if self._index is None:
            raise DataError("search: nothing is indexed yet")
        texts = {str(row["id"]): _query(row) for row in queries}
        if top_ranked is not None:
            return self._scored(texts, top_ranked, top_k)
        return dict(SparseRetriever(self.model, self._index).retrieve(texts, top_k))

    def _scored(
        self, queries: Mapping[str, str], candidates: Mapping[str, Sequence[str]], top_k: int
    ) -> dict[str, Ranking]:
        """Return the scores of given documents, best first."""
        assert self._index is not None
        postings, vectors = self._index.postings, self.model.encode_queries(queries.values())
        numbers = {doc_id: number for number, doc_id in enumerate(postings.doc_ids())}
        ranked = {}
        for query_id, query in zip(queries, vectors, strict=True):
            doc_ids = list(candidates.get(query_id, ()))
            unknown = next((doc_id for doc_id in doc_ids if doc_id not in numbers), None)
            if unknown is not None:
                raise DataError(f"query '{query_id}': the document '{unknown}' to be re-ranked is not in the corpus")
            rows = SparseVectors.from_rows([postings.vector(numbers[doc_id]) for doc_id in doc_ids], vectors.vocab_size)
            own = SparseVectors.from_rows([query], vectors.vocab_size)
            scores = np.asarray((rows.to_scipy() @ own.to_scipy().T).todense()).ravel()
            best = np.argsort(-scores, kind="stable")[:top_k].tolist()
            ranked[query_id] = {doc_ids[i]: float(scores[i]) for i in best}
        return ranked


def _text(row: Mapping[str, object]) -> str:
    """Return title and text of a document as MTEB joins them."""
    if not isinstance(row.get("text"), str):
        raise DataError(f"document '{row.get('id')}' has no text; only tasks of texts can be evaluated")
    title = row.get("title")
    return f"{title} {row['text']}".strip() if title else str(row["text"]).strip()


def _query(row: Mapping[str, object]) -> str:
    """Return a query, with its instruction where it has one, as MTEB joins them."""
    if not isinstance(row.get("text"), str):
        raise DataError(f"query '{row.get('id')}' has no text; only tasks of texts can be evaluated")
    instruction = row.get("instruction")
    return f"{row['text']} {instruction}" if instruction else str(row["text"])


def _model_meta(model: SparseModel) -> "ModelMeta":
    try:
        from mteb.models import ModelMeta
        from mteb.models.model_meta import ScoringFunction
    except ImportError as error:
        raise ConfigError("evaluation by MTEB needs MTEB: pip install 'splade[mteb]'") from error
    n_parameters = sum(parameter.numel() for parameter in model.network.document_encoder.parameters())
    name = model.name.rstrip("/")
    published = name.count("/") == 1 and not Path(name).exists()
    return ModelMeta(
        loader=None,
        name=name if published else f"splade/{Path(name.partition('://')[2] or name).name}",
        revision=model.fingerprint.document_encoder,
        release_date=None,
        languages=None,
        n_parameters=n_parameters,
        memory_usage_mb=None,
        max_tokens=model.documents.max_length,
        embed_dim=model.vocab_size,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.DOT_PRODUCT,  # type: ignore[arg-type]  # taken for a string
        use_instructions=False,
        training_datasets=None,
        model_type=["sparse"],
    )
