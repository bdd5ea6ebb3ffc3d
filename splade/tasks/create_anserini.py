"""Task: quantised vectors for Anserini/Lucene."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from splade.config import Experiment
from splade.config.inputs import require_all
from splade.config.processes import processes_to_start
from splade.config.record import save_record
from splade.datasets.collections import open_collection, open_queries
from splade.distributed import held_by_first_process, process_rank
from splade.encoding.shared import encode_shared
from splade.errors import ConfigError
from splade.interop.anserini import SparseVector, anserini_commands, link_alone, write_documents, write_queries
from splade.reports.summaries import TaskResult
from splade.storage.locks import FolderLock
from splade.tasks.evaluation_sets import check_names
from splade.tasks.model_loading import load_model
from splade.vectors import SparseVectors

COLLECTION_FOLDER = "anserini_collection"


def create_anserini(experiment: Experiment) -> TaskResult:
    """Write out_dir/docs_anserini.jsonl and out_dir/queries_anserini.tsv with integer weights round(factor * weight).

    Several query collections give one file each, queries_anserini.<name>.tsv. Anserini indexes all files of a folder:
    out_dir/anserini_collection holds the documents, and nothing else, by a second name of the same file.
    """
    require_all(experiment, "create_anserini")
    out_dir, names = Path(str(experiment.config.out_dir)), _file_names(experiment)
    documents = open_collection(str(experiment.data.COLLECTION_PATH))
    queries = [open_queries(path) for path in experiment.data.Q_COLLECTION_PATH]
    model, _ = load_model(experiment)
    document_factor = float(experiment.quantization_factor_document)
    query_factor = float(experiment.quantization_factor_query)
    with held_by_first_process(lambda: FolderLock(out_dir)):
        encoded = encode_shared(model.documents, documents)
        if process_rank() > 0:
            deque(chain(encoded, *(encode_shared(model.queries, collection) for collection in queries)), maxlen=0)
            return TaskResult(text="")
        vectors = _with_texts(documents, encoded)
        exported = [write_documents(out_dir / "docs_anserini.jsonl", vectors, model.tokens, document_factor)]
        for name, collection in zip(names, queries, strict=True):
            pairs = _one_by_one(encode_shared(model.queries, collection))
            exported.append(write_queries(out_dir / name, pairs, model.tokens, query_factor))
        collection_dir = out_dir / COLLECTION_FOLDER
        link_alone(exported[0].path, collection_dir)
        save_record(experiment, out_dir, "create_anserini")
    lines = [
        f"{item.n_written} vectors, {item.mean_terms:.1f} terms each, {item.n_empty} empty\n  in {item.path}"
        for item in exported
    ]
    commands = anserini_commands(collection_dir, [item.path for item in exported[1:]], out_dir)
    return TaskResult(text="\n".join([*lines, "", "In Anserini's folder:", *commands]))


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the encoding."""
    return processes_to_start(experiment, trains=False)


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


def _one_by_one(encoded: Iterable[tuple[list[str], SparseVectors]]) -> Iterator[tuple[str, SparseVector]]:
    for ids, vectors in encoded:
        yield from zip(ids, vectors, strict=True)


def _with_texts(
    pairs: Iterable[tuple[str, str]], encoded: Iterable[tuple[list[str], SparseVectors]]
) -> Iterator[tuple[str, str, SparseVector]]:
    """Yield (id, text, (term_ids, weights)) of every (id, text)."""
    for (text_id, text), (_, vector) in zip(pairs, _one_by_one(encoded), strict=True):
        yield text_id, text, vector
