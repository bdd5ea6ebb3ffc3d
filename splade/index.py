"""Task: encode a collection into an inverted index."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splade.config import Experiment, require, run_task
from splade.config.record import save_record
from splade.files import write_json


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
    """

    folder: Path
    n_docs: int
    n_postings: int
    n_bytes: int
    L0_d: float
    n_empty: int

    def summary(self) -> str:
        """Return two lines: size, and where it is."""
        empty = f", {self.n_empty} documents without any term" if self.n_empty else ""
        return (
            f"index of {self.n_docs} documents, {self.L0_d:.1f} terms each{empty}, {self.n_postings} postings, "
            f"{self.n_bytes / 1e6:.1f} MB\n  in {self.folder}"
        )


def index(experiment: Experiment) -> IndexResult:
    """Encode the collection data.COLLECTION_PATH into an inverted index in config.index_dir.

    A killed run goes on after the last part that was written; a finished one is left as it is.
    """
    require(experiment, "config.index_dir", "data.COLLECTION_PATH")
    from splade.datasets.collections import open_collection
    from splade.inverted_index import InvertedIndex
    from splade.models.checkpoint import load_for_inference
    from splade.pipeline import index_collection
    from splade.pipeline.device import pick_device, process_rank

    run = experiment.config
    collection = open_collection(str(experiment.data.COLLECTION_PATH))
    model = load_for_inference(experiment).to(pick_device())
    folder = Path(str(run.index_dir))
    rank, world_size = process_rank()
    made: InvertedIndex = index_collection(
        model, collection, folder, run.max_length, run.index_retrieve_batch_size, run.overwrite_final, rank, world_size
    )
    result = describe_index(made)
    if rank == 0:
        save_record(experiment, folder, "index")
        write_index_reports(made, folder)
    return result


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


def write_index_reports(made: "InvertedIndex", folder: Path) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Write `index_dist.json`, `index_stats.json` and `index_dist.png`."""
    from splade.inspection.figures import plot_posting_lengths

    counts = made.posting_counts
    used = np.flatnonzero(counts)
    write_json(folder / "index_dist.json", {int(term): int(counts[term]) for term in used}, indent=None)
    write_json(folder / "index_stats.json", {"L0_d": made.mean_terms})
    plot_posting_lengths(counts, folder / "index_dist.png", made.n_docs)


if __name__ == "__main__":
    run_task(index)
