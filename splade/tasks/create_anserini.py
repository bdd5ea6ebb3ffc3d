"""Task: quantised vectors for Anserini/Lucene."""

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.datasets.collections import open_collection, open_queries
from splade.encoding.text_encoder import TextEncoder
from splade.errors import ConfigError
from splade.interop.anserini import SparseVector, write_documents, write_queries
from splade.reports.summaries import TaskResult
from splade.storage.locks import FolderLock
from splade.tasks.evaluation_sets import check_names
from splade.tasks.model_loading import load_model


def create_anserini(experiment: Experiment) -> TaskResult:
    """Write out_dir/docs_anserini.jsonl and out_dir/queries_anserini.tsv with integer weights round(factor * weight).

    Several query collections give one file each, queries_anserini.<name>.tsv.
    """
    inputs = ("config.out_dir", "data.COLLECTION_PATH", "data.Q_COLLECTION_PATH")
    require(experiment, *inputs, "quantization_factor_document", "quantization_factor_query")
    out_dir, names = Path(str(experiment.config.out_dir)), _file_names(experiment)
    documents = open_collection(str(experiment.data.COLLECTION_PATH))
    queries = [open_queries(path) for path in experiment.data.Q_COLLECTION_PATH]
    model, _ = load_model(experiment)
    with FolderLock(out_dir):
        factor = float(experiment.quantization_factor_document or 0)
        vectors = _with_vectors(documents, model.documents)
        exported = [write_documents(out_dir / "docs_anserini.jsonl", vectors, model.tokens, factor)]
        factor = float(experiment.quantization_factor_query or 0)
        for name, collection in zip(names, queries, strict=True):
            pairs = ((query_id, vector) for query_id, _, vector in _with_vectors(collection, model.queries))
            exported.append(write_queries(out_dir / name, pairs, model.tokens, factor))
        save_record(experiment, out_dir, "create_anserini")
    lines = [
        f"{item.n_written} vectors, {item.mean_terms:.1f} terms each, {item.n_empty} empty\n  in {item.path}"
        for item in exported
    ]
    return TaskResult(text="\n".join(lines))


def _file_names(experiment: Experiment) -> list[str]:
    n_collections = len(experiment.data.Q_COLLECTION_PATH)
    if n_collections == 1:
        return ["queries_anserini.tsv"]
    given = experiment.config.retrieval_name
    names = list(dict.fromkeys(given)) or [str(i) for i in range(n_collections)]
    names = names if len(names) == n_collections else given
    if len(names) != n_collections:
        raise ConfigError(
            f"one entry per query collection is needed: config.retrieval_name has {len(names)}, data."
            f"Q_COLLECTION_PATH has {n_collections}"
        )
    check_names(names)
    return [f"queries_anserini.{name}.tsv" for name in names]


def _with_vectors(pairs: Iterable[tuple[str, str]], encoder: TextEncoder) -> Iterator[tuple[str, str, SparseVector]]:
    """Yield (id, text, (term_ids, weights)) of every (id, text)."""
    texts: deque[str] = deque()

    def noted() -> Iterator[tuple[str, str]]:
        for text_id, text in pairs:
            texts.append(text)  # read ahead of the vectors
            yield text_id, text

    for ids, vectors in encoder.encode_pairs(noted()):
        for text_id, vector in zip(ids, vectors, strict=True):
            yield text_id, texts.popleft(), vector
