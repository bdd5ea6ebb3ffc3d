"""What is written beside an index: posting-list lengths, mean terms, a figure."""

import logging
from collections.abc import Sequence

import numpy as np

from splade.datasets.text_collection import CONTENT_MARK
from splade.errors import BusyError, WriteError, printable
from splade.evaluation.checks import Finding, warning_messages
from splade.inverted_index import InvertedIndex, open_index
from splade.reports.figures import plot_posting_lengths
from splade.storage.atomic import write_json
from splade.storage.locks import FolderLock

logger = logging.getLogger(__name__)

_LONGEST_NAME = 40  # of a collection or a model in a title


def write_index_report(postings: InvertedIndex, findings: Sequence[Finding] = ()) -> None:
    """Write `index_dist.json`, `index_stats.json` and `index_dist.png` to the folder of an index.

    A folder that cannot be written to holds a finished index: it goes without. While another process writes to the
    folder, that one also writes the report.
    """
    folder = postings.path.parent
    try:
        with FolderLock(folder):
            postings = open_index(folder)  # the report is of the index that is there
            counts = postings.posting_counts
            lengths = {int(term): int(counts[term]) for term in np.flatnonzero(counts)}
            stats = {"L0_d": postings.mean_terms, "warnings": warning_messages(findings)}
            write_json(folder / "index_dist.json", lengths, indent=None)
            write_json(folder / "index_stats.json", stats)
            plot_posting_lengths(counts, folder / "index_dist.png", postings.n_docs, index_title(postings), True)
    except (BusyError, WriteError) as error:
        logger.warning("no report of the index: %s", error)


def index_title(postings: InvertedIndex) -> str:
    """Return collection and model of an index for the title of a figure; of a path the end, which tells them apart."""
    collection = str(postings.metadata.get("source", "")).partition(f" {CONTENT_MARK}")[0]
    names = [collection, str(postings.metadata.get("model", ""))]
    shown = [printable(name if len(name) <= _LONGEST_NAME else f"...{name[-_LONGEST_NAME:]}") for name in names]
    return ", ".join(filter(None, shown))
