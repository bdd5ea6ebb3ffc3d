"""Task: add documents to an index and delete some."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.datasets.collections import open_collection
from splade.errors import ConfigError, DataError, shown
from splade.evaluation.checks import Finding
from splade.interop.vector_files import VectorFiles
from splade.interop.vector_groups import Group
from splade.inverted_index import InvertedIndex, update_documents
from splade.reports.index_report import write_index_report
from splade.reports.summaries import TaskResult
from splade.retrieval.collection_index import Index
from splade.storage.locks import FolderLock
from splade.storage.paths import resolve_path
from splade.storage.text_files import iterate_lines
from splade.tasks.index import check_index
from splade.tasks.model_loading import load_model_of_index, own_terms


def update(experiment: Experiment) -> TaskResult:
    """Delete documents (`delete`) from config.index_dir, then add the collection `add` to it.

    To an index whose vectors have their own terms, vectors over these terms are added.
    """
    require(experiment, "config.index_dir")
    if experiment.add is None and experiment.delete is None:
        raise ConfigError("nothing to do: give add=COLLECTION, delete=[ID,ID,...], or both")
    folder = Path(str(experiment.config.index_dir))
    deleted = [] if experiment.delete is None else _doc_ids(experiment.delete)
    terms = own_terms(experiment)
    if terms is not None:
        return _update_own_vectors(experiment, folder, deleted, terms)
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
        return _result(folder, index.postings, findings, before, deleted)


def _result(
    folder: Path, postings: InvertedIndex, findings: list[Finding], n_before: int, deleted: list[str]
) -> TaskResult:
    findings += check_index(postings)
    write_index_report(postings, findings)
    n_added = postings.n_docs - n_before + len(deleted)
    text = f"{len(deleted)} documents deleted, {n_added} added; the index holds {postings.n_docs}\n  in {folder}"
    return TaskResult(text=text, findings=tuple(findings))


def _update_own_vectors(experiment: Experiment, folder: Path, deleted: list[str], terms: list[str]) -> TaskResult:
    _check_known(InvertedIndex.open(folder), deleted)
    added: Iterable[Group] = [] if experiment.add is None else VectorFiles(experiment.add, terms)
    save_record(experiment, folder, "update")
    before = InvertedIndex.open(folder).n_docs
    update_documents(folder, deleted, added)
    return _result(folder, InvertedIndex.open(folder), [], before, deleted)


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
