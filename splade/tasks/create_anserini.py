"""Task: quantised vectors for Anserini/Lucene."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from splade.cluster.anserini_shards import AnseriniShards
from splade.config import Experiment
from splade.config.inputs import require_all
from splade.config.processes import processes_to_start
from splade.config.record import save_record
from splade.datasets.collections import open_collection, open_queries
from splade.distributed import held_by_first_process, on_first_process, process_rank
from splade.encoding.shared import encode_shared
from splade.interop.anserini import (
    anserini_commands,
    join_queries,
    link_alone,
    write_documents,
    write_queries,
)
from splade.interop.exported import SparseVector, one_by_one
from splade.reports.summaries import TaskResult
from splade.storage.locks import FolderLock
from splade.tasks.evaluation_sets import names_of_queries
from splade.tasks.launching import open_runner
from splade.tasks.model_loading import load_model
from splade.vectors import SparseVectors

COLLECTION_FOLDER, SHARDS_FOLDER = "anserini_collection", "anserini_shards"


def create_anserini(experiment: Experiment) -> TaskResult:
    """Write out_dir/docs_anserini.jsonl and out_dir/queries_anserini.tsv with integer weights round(factor * weight).

    Several query collections give one file each, queries_anserini.<name>.tsv, and one of all. With `shard_size`,
    documents go into several compressed files instead, written by all processes, and a run that was interrupted goes on
    with those that are missing. Anserini indexes all files of a folder:
    out_dir/anserini_collection holds the documents, and nothing else, by a second name of the same file.
    """
    require_all(experiment, "create_anserini")
    out_dir, names = Path(str(experiment.config.out_dir)), _file_names(experiment)
    documents = open_collection(str(experiment.data.COLLECTION_PATH))
    queries = [open_queries(path) for path in experiment.data.Q_COLLECTION_PATH]
    model, _ = load_model(experiment)
    document_factor = float(experiment.quantization_factor_document)
    query_factor = factor_of_queries(experiment)
    with held_by_first_process(lambda: FolderLock(out_dir)):
        collection_dir, one_file = out_dir / COLLECTION_FOLDER, out_dir / "docs_anserini.jsonl"
        encoded: Iterator[tuple[list[str], SparseVectors]] = iter(())  # what shards do not hold
        if experiment.shard_size is not None:
            job = AnseriniShards(experiment, model, documents, collection_dir, out_dir / SHARDS_FOLDER)
            on_first_process(job.begin)
            open_runner(experiment).run(job, job.n_parts)
        else:
            encoded = encode_shared(model.documents, documents)
        if process_rank() > 0:
            deque(chain(encoded, *(encode_shared(model.queries, collection) for collection in queries)), maxlen=0)
            return TaskResult(text="")
        if experiment.shard_size is not None:
            exported = [job.exported()]
            one_file.unlink(missing_ok=True)  # of an earlier run
        else:
            vectors = _with_texts(documents, encoded)
            exported = [write_documents(one_file, vectors, model.tokens, document_factor)]
            link_alone(one_file, collection_dir)
        for name, collection in zip(names, queries, strict=True):
            pairs = one_by_one(encode_shared(model.queries, collection))
            exported.append(write_queries(out_dir / name, pairs, model.tokens, query_factor))
        lines = [str(item) for item in exported]
        if len(names) > 1:
            together = join_queries(out_dir / "queries_anserini.tsv", [item.path for item in exported[1:]])
            said = "all queries" if together else "not written, because queries of two collections have one id:"
            lines.append(f"{said}\n  in {out_dir / 'queries_anserini.tsv'}")
        save_record(experiment, out_dir, "create_anserini")
    commands = anserini_commands(collection_dir, [item.path for item in exported[1:]], out_dir)
    return TaskResult(text="\n".join([*lines, "", "In Anserini's folder:", *commands]))


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the encoding."""
    return processes_to_start(experiment, trains=False)


def factor_of_queries(experiment: Experiment) -> float:
    """Return quantization_factor_query, by default 100; 1 for a model whose queries have weights of 1."""
    if experiment.quantization_factor_query is not None:
        return float(experiment.quantization_factor_query)
    return 1.0 if experiment.config.matching_type == "splade_doc" else 100.0


def _file_names(experiment: Experiment) -> list[str]:
    names = names_of_queries(experiment)
    return ["queries_anserini.tsv"] if len(names) == 1 else [f"queries_anserini.{name}.tsv" for name in names]


def _with_texts(
    pairs: Iterable[tuple[str, str]], encoded: Iterable[tuple[list[str], SparseVectors]]
) -> Iterator[tuple[str, str, SparseVector]]:
    """Yield (id, text, (term_ids, weights)) of every (id, text)."""
    for (text_id, text), (_, vector) in zip(pairs, one_by_one(encoded), strict=True):
        yield text_id, text, vector
