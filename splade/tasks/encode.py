"""Task: the vectors of a collection as files."""

from pathlib import Path

from splade.cluster.part_jobs import EncodeParts
from splade.config import Experiment
from splade.config.inputs import require_all
from splade.config.processes import processes_to_start
from splade.config.record import save_record
from splade.datasets.collections import open_collection
from splade.distributed import held_by_first_process, on_first_process, process_rank
from splade.errors import ConfigError
from splade.interop.vector_files import FORMS, PART_SIZE, Manifest, begin, small_parts
from splade.reports.summaries import TaskResult
from splade.storage.locks import FolderLock
from splade.tasks.launching import open_runner
from splade.tasks.model_loading import load_model


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
            part_size=small_parts(len(collection)) if experiment.launcher == "ray" else PART_SIZE,
        )
    )
    with held_by_first_process(lambda: FolderLock(folder)):
        manifest = on_first_process(lambda: begin(folder, manifest, experiment.config.overwrite))
        open_runner(experiment).run(EncodeParts(experiment, model, collection, folder, manifest), manifest.n_parts)
        if process_rank() == 0:
            save_record(experiment, folder.parent, "encode")
    text = f"{manifest.n_docs} vectors in {manifest.n_parts} parts\n  in {folder}"
    return TaskResult(text=text, findings=tuple(findings))


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the encoding."""
    return processes_to_start(experiment, trains=False)
