"""Figures of an index."""

from pathlib import Path

import numpy as np

from splade.errors import DataError
from splade.storage.atomic import replacing


def plot_posting_lengths(
    posting_counts: np.ndarray, path: str | Path, n_documents: int | None = None, subject: str = ""
) -> None:
    """Draw how many documents each term occurs in, longest posting list first, on logarithmic axes.

    A learned sparse model should spread its postings: a flat beginning near the number of documents means terms that
    occur everywhere, which cost time at every query and distinguish nothing.

    Args:
        posting_counts: (vocab_size,) documents per term; unused terms are counted in the caption, not drawn.
        path: the PNG file to write, whole or not at all.
        n_documents: when given, drawn as the upper limit.
        subject: which index it is, collection and model; the first line of the title.

    Raises:
        DataError: no term occurs in any document.
    """
    # Figure and FigureCanvasAgg instead of pyplot: no global state, no display needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = np.asarray(posting_counts)
    used = np.sort(counts[counts > 0])[::-1]
    if not len(used):
        raise DataError("the index holds no posting at all: every vector is empty, there is nothing to draw")
    figure = Figure(figsize=(7.0, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.loglog(
        np.arange(1, len(used) + 1), used, color="tab:blue", linewidth=1.8, label="documents that hold the term"
    )
    axes.axhline(
        float(used.mean()), color="tab:orange", linestyle="--", linewidth=1.2, label=f"mean {used.mean():,.1f}"
    )
    if n_documents is not None:
        axes.axhline(n_documents, color="black", linestyle=":", linewidth=1.2, label=f"all {n_documents:,} documents")
    axes.set_xlabel("terms, longest posting list first")
    axes.set_ylabel("documents per term")
    size = f"{int(used.sum()):,} postings on {len(used):,} of {len(counts):,} terms"
    axes.set_title("\n".join(filter(None, [subject, size])), fontsize=11, parse_math=False)
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
