"""Task: encode a collection into an inverted index."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splade.config import Experiment
from splade.config.inputs import require_all
from splade.config.jobs import Figures
from splade.config.processes import processes_to_start
from splade.config.record import save_record
from splade.datasets.collections import open_collection
from splade.distributed import on_first_process, process_rank
from splade.encoding.sparse_model import SparseModel
from splade.errors import CollapseError, ConfigError
from splade.evaluation.checks import Finding, check_vector_counts, raise_errors
from splade.evaluation.collapse import find_collapse
from splade.interop.vector_files import VectorFiles
from splade.inverted_index import InvertedIndex
from splade.inverted_index.own_terms import has_own_terms
from splade.reports.index_report import write_index_report
from splade.reports.summaries import TaskResult
from splade.retrieval.vector_index import index_own_vectors, index_vectors
from splade.tasks.dense_indexing import DenseIndexResult, index_dense
from splade.tasks.evaluation_sets import check_collection
from splade.tasks.launching import build_index
from splade.tasks.model_loading import load_model
from splade.vectors import SparseVectors

_MANY_DOCUMENTS = 8  # fewer may well say the same


@dataclass(frozen=True, kw_only=True)
class IndexResult(TaskResult):
    """A finished index."""

    postings: InvertedIndex

    def figures(self) -> list[Figures]:
        """Return the costs of the index."""
        made = self.postings
        return [Figures(costs={"n_docs": made.n_docs, "L0_d": made.mean_terms, "index_bytes": made.n_bytes})]


def index(experiment: Experiment) -> IndexResult | DenseIndexResult:
    """Encode the collection data.COLLECTION_PATH into an inverted index in config.index_dir.

    With data.VECTORS_PATH, index the vectors there, which this model, or another system over its vocabulary, has made;
    with data.VOCABULARY=own, those of a system with other terms.
    """
    run = experiment.config
    if run.matching_type == "dense":
        return index_dense(experiment)
    require_all(experiment, "index")
    if experiment.data.VECTORS_PATH is not None:
        if experiment.data.VOCABULARY == "own":
            return _report(experiment, _index_of_own_vectors(experiment), [])
        model, findings = load_model(experiment)
        return _report(experiment, _index_of_vectors(experiment, model), findings)
    if experiment.data.VOCABULARY == "own":
        raise ConfigError("data.VOCABULARY=own: vectors may have terms of their own, not texts; give data.VECTORS_PATH")
    collection = open_collection(str(experiment.data.COLLECTION_PATH))
    findings = on_first_process(lambda: check_collection(experiment, collection))
    model, about_model = load_model(experiment)
    findings += about_model + model.documents.check_truncation(text for _, text in collection)
    made = build_index(experiment, model, collection, Path(str(run.index_dir))).postings
    return _report(experiment, made, findings)


def _index_of_vectors(experiment: Experiment, model: SparseModel) -> InvertedIndex:
    vectors, run = VectorFiles(str(experiment.data.VECTORS_PATH), model.tokens), experiment.config
    said = vectors.manifest
    made_by, max_length = (None, None) if said is None else (said.fingerprint, said.max_length)
    return index_vectors(Path(str(run.index_dir)), model, vectors, made_by, max_length, run.overwrite)


def _index_of_own_vectors(experiment: Experiment) -> InvertedIndex:
    files, run = VectorFiles(str(experiment.data.VECTORS_PATH), ()), experiment.config
    if files.manifest is not None:
        raise ConfigError(
            f"{files.name}: splade.encode wrote it, with the terms of '{files.manifest.model}': leave "
            "data.VOCABULARY=own out"
        )
    source, terms = files.digest(), files.terms()
    vectors = VectorFiles(files.name, terms)
    return index_own_vectors(Path(str(run.index_dir)), vectors, terms, source, run.overwrite)


def _report(experiment: Experiment, made: InvertedIndex, findings: list[Finding]) -> IndexResult:
    findings = findings + check_index(made)
    if process_rank() == 0:
        save_record(experiment, Path(str(experiment.config.index_dir)), "index")
        write_index_report(made, findings)
    empty = f", {made.n_empty} documents without any term" if made.n_empty else ""
    text = (
        f"index of {made.n_docs} documents, {made.mean_terms:.1f} terms each{empty}, {made.n_postings} postings, "
        f"{made.n_bytes / 1e6:.1f} MB\n  in {made.path.parent}"
    )
    return IndexResult(text=text, findings=tuple(findings), postings=made)


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the encoding."""
    return 1 if experiment.data.VECTORS_PATH is not None else processes_to_start(experiment, trains=False)


def check_index(postings: InvertedIndex) -> list[Finding]:
    """Are the vectors of an index what a trained sparse encoder gives?

    Raises:
        CollapseError: all documents have the same vector.
        DataError: every document is empty.
    """
    counts = postings.n_docs, postings.n_empty, postings.mean_terms
    if postings.n_docs >= _MANY_DOCUMENTS and np.isin(postings.posting_counts, (0, postings.n_docs)).all():
        rows = [postings.vector(i) for i in (0, postings.n_docs // 2, postings.n_docs - 1)]
        collapse = find_collapse(SparseVectors.from_rows(rows, postings.vocab_size))
        if collapse == "all vectors are the same":
            raise CollapseError(
                f"all {postings.n_docs} documents have the same vector: nothing can be ranked. The texts are the same, "
                "or the model's training has failed"
            )
    vocab_size = None if has_own_terms(postings) else postings.vocab_size
    return raise_errors(check_vector_counts(*counts, vocab_size, "document"))
