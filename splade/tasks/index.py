"""Task: encode a collection into an inverted index."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.evaluation.checks import Finding, warning_messages
from splade.reports.summaries import warning_block
from splade.storage.atomic import write_json


@dataclass(frozen=True)
class IndexResult:
    """A finished index.

    Attributes:
        folder: where it is.
        n_docs: number of documents.
        n_postings: number of (term, document) pairs.
        n_bytes: size of the index file.
        L0_d: mean number of non-zero terms per document.
        n_empty: documents whose vector is zero, which no query can find.
        warnings: what looks wrong.
    """

    folder: Path
    n_docs: int
    n_postings: int
    n_bytes: int
    L0_d: float
    n_empty: int
    warnings: tuple[Finding, ...] = ()

    def summary(self) -> str:
        """Return size and place in two lines, then the warnings."""
        empty = f", {self.n_empty} documents without any term" if self.n_empty else ""
        lines = [
            f"index of {self.n_docs} documents, {self.L0_d:.1f} terms each{empty}, {self.n_postings} postings, "
            f"{self.n_bytes / 1e6:.1f} MB",
            f"  in {self.folder}",
        ]
        return "\n".join([*lines, *warning_block(self.warnings)])


def index(experiment: Experiment) -> IndexResult:
    """Encode the collection data.COLLECTION_PATH into an inverted index in config.index_dir.

    A killed run goes on after the last part that was written; a finished one is left as it is.
    """
    require(experiment, "config.index_dir", "data.COLLECTION_PATH")
    from splade.datasets.collections import open_collection
    from splade.distributed import n_processes, process_rank
    from splade.inverted_index import InvertedIndex
    from splade.models.load import load_for_inference
    from splade.pipeline import index_collection
    from splade.pipeline.checks import check_collection, check_index, check_max_length, check_settings, check_truncation

    run = experiment.config
    warnings = check_settings(experiment)
    collection = open_collection(str(experiment.data.COLLECTION_PATH))
    warnings += check_collection(experiment, collection)
    model = load_for_inference(experiment)
    warnings += check_max_length(model, run.max_length)
    warnings += check_truncation(model, collection, run.max_length)
    folder = Path(str(run.index_dir))
    rank, world_size = process_rank(), n_processes()
    made: InvertedIndex = index_collection(
        model, collection, folder, run.max_length, run.index_retrieve_batch_size, run.overwrite_final, rank, world_size
    )
    warnings += check_index(made)
    if rank == 0:
        save_record(experiment, folder, "index")
        write_index_reports(made, folder, warnings)
    return replace(describe_index(made), warnings=tuple(warnings))


def describe_index(made: "InvertedIndex") -> IndexResult:  # type: ignore[name-defined]  # noqa: F821
    """Collect the figures of an open index."""
    description = made.describe()
    return IndexResult(
        folder=made.path.parent,
        n_docs=made.n_docs,
        n_postings=made.n_postings,
        n_bytes=made.n_bytes,
        L0_d=made.mean_terms,
        n_empty=int(description["n_empty"]),
    )


def write_index_reports(
    made: "InvertedIndex",  # type: ignore[name-defined]  # noqa: F821
    folder: Path,
    warnings: Sequence[Finding] = (),
) -> None:
    """Write `index_dist.json`, `index_stats.json` and `index_dist.png`."""
    from splade.reports.figures import plot_posting_lengths

    counts = made.posting_counts
    used = np.flatnonzero(counts)
    write_json(folder / "index_dist.json", {int(term): int(counts[term]) for term in used}, indent=None)
    write_json(folder / "index_stats.json", {"L0_d": made.mean_terms, "warnings": warning_messages(warnings)})
    plot_posting_lengths(counts, folder / "index_dist.png", made.n_docs)
