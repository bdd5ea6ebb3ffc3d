"""Task: the vectors of a collection as files."""

from pathlib import Path

from splade.config import Experiment
from splade.config.inputs import require_all
from splade.config.processes import processes_to_start
from splade.config.record import save_record
from splade.datasets.collections import open_collection
from splade.datasets.text_collection import TextCollection
from splade.distributed import all_or_none, held_by_first_process, n_processes, on_first_process, process_rank
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError
from splade.interop.vector_files import FORMS, PART_SIZE, Manifest, begin
from splade.progress import progress_bar
from splade.reports.summaries import TaskResult
from splade.storage.locks import FolderLock
from splade.tasks.model_loading import load_model
from splade.vectors import SparseVectors


def encode(experiment: Experiment) -> TaskResult:
    """Encode data.COLLECTION_PATH into parts in config.out_dir/vectors; `target` is their format, Parquet by default.

    A run that was interrupted goes on with the parts that are missing; several processes share them.
    """
    require_all(experiment, "encode")
    form = experiment.target or "parquet"
    if form not in FORMS:
        raise ConfigError(f"target={form}: splade.encode writes {', '.join(FORMS)}")
    collection = open_collection(str(experiment.data.COLLECTION_PATH))
    model, findings = load_model(experiment)
    folder = Path(str(experiment.config.out_dir)) / "vectors"
    manifest = on_first_process(
        lambda: Manifest(
            form=form,
            model=model.name,
            fingerprint=model.fingerprint.as_dict(),
            max_length=model.documents.max_length,
            source=collection.digest(),
            n_docs=len(collection),
            part_size=PART_SIZE,
        )
    )
    with held_by_first_process(lambda: FolderLock(folder)):
        on_first_process(lambda: begin(folder, manifest, experiment.config.overwrite))
        all_or_none(lambda: _write_parts(folder, manifest, model, collection))
        if process_rank() == 0:
            save_record(experiment, folder.parent, "encode")
    text = f"{manifest.n_docs} vectors in {manifest.n_parts} parts\n  in {folder}"
    return TaskResult(text=text, findings=tuple(findings))


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the encoding."""
    return processes_to_start(experiment, trains=False)


def _write_parts(folder: Path, manifest: Manifest, model: SparseModel, collection: TextCollection) -> None:
    """Write this process's share of the parts that are missing."""
    mine = range(process_rank(), manifest.n_parts, n_processes())
    wanted = [number for number in mine if not manifest.part(folder, number).is_file()]
    with progress_bar("encoding", total=sum(len(manifest.rows(number)) for number in wanted), unit="doc") as bar:
        for number in wanted:
            rows, ids, parts = manifest.rows(number), [], []
            for some_ids, vectors in model.documents.encode_pairs(collection.between(rows.start, rows.stop)):
                ids += some_ids
                parts.append(vectors)
                bar.update(len(vectors))
            joined = SparseVectors.concatenate(parts, model.vocab_size)
            FORMS[manifest.form].write(manifest.part(folder, number), ids, joined, model.tokens)
