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
from splade.datasets.text_collection import TextCollection
from splade.distributed import all_or_none, held_by_first_process, process_rank
from splade.encoding.shared import encode_shared
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError
from splade.interop.anserini import (
    Exported,
    SparseVector,
    anserini_commands,
    link,
    link_alone,
    write_documents,
    write_queries,
)
from splade.interop.anserini_shards import with_texts, write_shards
from splade.reports.summaries import TaskResult
from splade.storage.locks import FolderLock
from splade.tasks.evaluation_sets import check_names
from splade.tasks.model_loading import load_model
from splade.vectors import SparseVectors

COLLECTION_FOLDER = "anserini_collection"
QUERIES_FILE = "queries_anserini.tsv"
USUAL_FACTOR = 100
SHOWN_IDS = 10


def create_anserini(experiment: Experiment) -> TaskResult:
    """Write documents and queries with integer weights round(factor * weight) to config.out_dir.

    - `docs_anserini.jsonl`, which has a second name in `anserini_collection`, for Anserini indexes all files of a
      folder; or with `anserini_shard_size` compressed files of so many documents in `anserini_collection` alone, which
      all processes write, and which a run that was interrupted goes on with.
    - `queries_anserini.tsv`, of several query collections the first, and each as `queries_anserini.<name>.tsv`.
    """
    require_all(experiment, "create_anserini")
    out_dir, names = Path(str(experiment.config.out_dir)), _file_names(experiment)
    documents = open_collection(str(experiment.data.COLLECTION_PATH))
    queries = [open_queries(path) for path in experiment.data.Q_COLLECTION_PATH]
    model, _ = load_model(experiment)
    factor, shard_size = float(experiment.quantization_factor_document), experiment.anserini_shard_size
    query_factor = float(experiment.quantization_factor_query or _usual_query_factor(experiment))
    folder = out_dir / COLLECTION_FOLDER
    with held_by_first_process(lambda: FolderLock(out_dir)):
        if shard_size:
            exported = all_or_none(lambda: write_shards(folder, model, documents, shard_size, factor))
        else:
            exported = _write_one_file(out_dir, model, documents, factor)
        if process_rank() > 0:
            deque(chain.from_iterable(encode_shared(model.queries, collection) for collection in queries), maxlen=0)
            return TaskResult(text="")
        lines = [_line(exported, "with one reserved token")]
        for name, collection in zip(names, queries, strict=True):
            pairs = _one_by_one(encode_shared(model.queries, collection))
            written = write_queries(out_dir / name, pairs, model.tokens, query_factor)
            lines.append(_line(written, "left out"))
        if names[0] != QUERIES_FILE:
            link(out_dir / names[0], out_dir / QUERIES_FILE)
        save_record(experiment, out_dir, "create_anserini")
    commands = anserini_commands(folder, [out_dir / name for name in names], out_dir)
    return TaskResult(text="\n".join([*lines, "", "In Anserini's folder:", *commands]))


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the encoding."""
    return processes_to_start(experiment, trains=False)


def _usual_query_factor(experiment: Experiment) -> int:
    """Return 1 where each token of a query has the weight 1: its repetition would change no ranking."""
    return 1 if experiment.config.matching_type == "splade_doc" else USUAL_FACTOR


def _write_one_file(out_dir: Path, model: SparseModel, documents: TextCollection, factor: float) -> Exported:
    """Write all documents to one file, in the first process; the others share the encoding."""
    encoded = encode_shared(model.documents, documents)
    path = out_dir / "docs_anserini.jsonl"
    if process_rank() > 0:
        deque(encoded, maxlen=0)
        return Exported(path, 0, (), 0.0)
    exported = write_documents(path, with_texts(documents, encoded), model.tokens, factor)
    link_alone(path, out_dir / COLLECTION_FOLDER)
    return exported


def _line(exported: Exported, what_became_of_empty: str) -> str:
    """Return what was written, in words; empty vectors by their ids."""
    line = f"{exported.n_written} vectors, {exported.mean_terms:.1f} terms each"
    if n := len(exported.empty_ids):
        shown = ", ".join(exported.empty_ids[:SHOWN_IDS]) + (" ..." if n > SHOWN_IDS else "")
        line += f"; {n} empty, {what_became_of_empty}: {shown}"
    return f"{line}\n  in {exported.path}"


def _file_names(experiment: Experiment) -> list[str]:
    n_collections = len(experiment.data.Q_COLLECTION_PATH)
    if n_collections == 1:
        return [QUERIES_FILE]
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
