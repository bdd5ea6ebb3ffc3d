"""What is written beside an index: posting-list lengths, mean terms, a figure."""

from collections.abc import Sequence

import numpy as np

from splade.evaluation.checks import Finding, warning_messages
from splade.inverted_index import InvertedIndex
from splade.reports.figures import plot_posting_lengths
from splade.storage.atomic import write_json


def write_index_report(postings: InvertedIndex, findings: Sequence[Finding] = ()) -> None:
    """Write `index_dist.json`, `index_stats.json` and `index_dist.png` to the folder of an index."""
    folder, counts = postings.path.parent, postings.posting_counts
    used = np.flatnonzero(counts)
    write_json(folder / "index_dist.json", {int(term): int(counts[term]) for term in used}, indent=None)
    write_json(folder / "index_stats.json", {"L0_d": postings.mean_terms, "warnings": warning_messages(findings)})
    plot_posting_lengths(counts, folder / "index_dist.png", postings.n_docs)
