"""Task: add documents to an index and delete some."""

from collections.abc import Sequence
from pathlib import Path

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.datasets.collections import open_collection
from splade.errors import ConfigError, DataError, shown
from splade.evaluation.checks import Finding
from splade.inverted_index import InvertedIndex
from splade.reports.index_report import write_index_report
from splade.reports.summaries import TaskResult
from splade.retrieval.collection_index import Index
from splade.storage.locks import FolderLock
from splade.storage.paths import resolve_path
from splade.storage.text_files import iterate_lines
from splade.tasks.index import check_index
from splade.tasks.model_loading import load_model_of_index


def update(experiment: Experiment) -> TaskResult:
    """Delete documents (`delete`) from config.index_dir, then add the collection `add` to it."""
    require(experiment, "config.index_dir")
    if experiment.add is None and experiment.delete is None:
        raise ConfigError("nothing to do: give add=COLLECTION, delete=[ID,ID,...], or both")
    folder = Path(str(experiment.config.index_dir))
    deleted = [] if experiment.delete is None else _doc_ids(experiment.delete)
    added, model = None, None
    findings: list[Finding] = []
    _check_known(InvertedIndex.open(folder), deleted)  # before a model is loaded
    if experiment.add is not None:
        added = open_collection(experiment.add)
        model, findings = load_model_of_index(experiment)
    Index.open(folder, model)
    with FolderLock(folder):
        index = Index.open(folder, model)  # as the last writer has left it
        save_record(experiment, folder, "update")  # now: an index that has changed is not followed by an error
        before = len(index)
        index.update(deleted, added)
        findings += check_index(index.postings)
        write_index_report(index.postings, findings)
    n_added = len(index) - before + len(deleted)
    text = f"{len(deleted)} documents deleted, {n_added} added; the index holds {len(index)}\n  in {folder}"
    return TaskResult(text=text, findings=tuple(findings))


def _check_known(postings: InvertedIndex, doc_ids: Sequence[str]) -> None:
    known = postings.known_doc_ids(doc_ids)
    unknown = [doc_id for doc_id in doc_ids if doc_id not in known]
    if unknown:
        raise DataError(
            f"delete: {len(unknown)} of {len(doc_ids)} documents are not in the index, which holds {postings.n_docs}: "
            f"{', '.join(map(shown, unknown[:5]))}{' ...' if len(unknown) > 5 else ''}; nothing was changed"
        )


def _doc_ids(named: list[str]) -> list[str]:
    """Return document ids, each once; a file among them stands for its lines.

    Raises:
        DataError: there are none.
    """
    doc_ids: list[str] = []
    for name in named:
        is_file = Path(name).expanduser().is_file()
        doc_ids += [line for _, line in iterate_lines(resolve_path(name))] if is_file else [name]
    doc_ids = list(dict.fromkeys(doc_id for doc_id in doc_ids if doc_id))
    if not doc_ids:
        raise DataError(f"delete={named}: there are no document ids in it")
    return doc_ids
