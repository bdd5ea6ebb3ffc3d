"""Documents for Anserini in several compressed files, which processes share and a killed run goes on with.

Beside each file there is a record, in a folder of its own because Anserini indexes all files of a folder: what the file
was made from and what is in it. It is written last, so a file that has one is complete.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from splade.datasets.text_collection import TextCollection
from splade.distributed import gather, n_processes, process_rank
from splade.encoding.sparse_model import SparseModel
from splade.errors import DataError
from splade.interop.anserini import Exported, SparseVector, keep_only, write_documents
from splade.progress import progress_bar
from splade.storage.atomic import JsonObject, read_json_object, write_json
from splade.vectors import SparseVectors

RECORDS_FOLDER = "anserini_shards"


def write_shards(
    folder: Path, model: SparseModel, documents: TextCollection, shard_size: int, factor: float
) -> Exported:
    """Write `folder/docs_anserini-00000.jsonl.gz` and so on; return what is in all of them.

    All processes must call this. Shards that an earlier run has made of the same documents are kept.

    Args:
        folder: what Anserini indexes.
        model: encodes the documents.
        documents: all of them.
        shard_size: documents of each file but the last.
        factor: as in `write_documents`.

    Raises:
        ConfigError: the factor is not positive.
    """
    settings: JsonObject = {
        "model": model.fingerprint.as_dict(),
        "max_length": model.documents.max_length,
        "collection": documents.digest(),
        "shard_size": shard_size,
        "factor": factor,
    }
    starts = range(0, len(documents), shard_size)
    done: dict[int, Exported] = {}
    own = range(process_rank(), len(starts), n_processes())
    lengths = {number: min(shard_size, len(documents) - starts[number]) for number in own}
    with progress_bar("encoding", total=sum(lengths.values()), unit="doc") as bar:
        for number in own:
            path = folder / f"docs_anserini-{number:05d}.jsonl.gz"
            record = folder.with_name(RECORDS_FOLDER) / f"{number:05d}.json"
            found = _finished(path, record, settings)
            if found is None:
                record.unlink(missing_ok=True)
                pairs = list(documents.between(starts[number], starts[number] + lengths[number]))
                encoded = model.documents.encode_pairs(pairs)
                found = write_documents(path, with_texts(pairs, encoded), model.tokens, factor)
                counts = {"n": found.n_written, "empty_ids": found.empty_ids, "mean_terms": found.mean_terms}
                write_json(record, {"settings": settings} | counts)
            done[number] = found
            bar.update(lengths[number])
    shards = dict(item for part in gather(done) for item in part.items())
    if process_rank() == 0:
        keep_only(folder, [shard.path.name for shard in shards.values()])
    n_written = sum(shard.n_written for shard in shards.values())
    mean_terms = sum(shard.mean_terms * shard.n_written for shard in shards.values()) / max(1, n_written)
    empty_ids = tuple(doc_id for number in sorted(shards) for doc_id in shards[number].empty_ids)
    return Exported(folder, n_written, empty_ids, mean_terms)


def _finished(path: Path, record: Path, settings: JsonObject) -> Exported | None:
    """Return what is in a file that an earlier run has made of the same, else None."""
    try:
        said = read_json_object(record)
        if said["settings"] != settings or not path.is_file():
            return None
        return Exported(path, said["n"], tuple(said["empty_ids"]), said["mean_terms"])
    except (DataError, KeyError, TypeError):
        return None


def with_texts(
    pairs: Iterable[tuple[str, str]], encoded: Iterable[tuple[list[str], SparseVectors]]
) -> Iterator[tuple[str, str, SparseVector]]:
    """Yield (id, text, (term_ids, weights)) of every (id, text)."""
    vectors = (vector for _, group in encoded for vector in group)
    for (text_id, text), vector in zip(pairs, vectors, strict=True):
        yield text_id, text, vector
