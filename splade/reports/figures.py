"""Figures of an index and of the queries that search it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from splade.errors import DataError, printable
from splade.reports.figure_style import BLUE, HATCHES, ORANGE, drawn_figure, titled

MOST_WEIGHTS = 4_000_000
SHOWN_TERMS = 20


def plot_posting_lengths(
    posting_counts: np.ndarray,
    path: str | Path,
    n_documents: int | None = None,
    subject: str = "",
    png_alone: bool = False,
) -> None:
    """Draw how many documents each term occurs in, longest posting list first, on logarithmic axes.

    A learned sparse model should spread its postings: a flat beginning near the number of documents means terms that
    occur everywhere, which cost time at every query and distinguish nothing.

    Args:
        posting_counts: (vocab_size,) documents per term; unused terms are counted in the caption, not drawn.
        path: the PNG file to write; SVG and CSV go beside it.
        n_documents: when given, drawn as the upper limit.
        subject: which index it is, collection and model; the first line of the title.
        png_alone: write neither SVG nor data.

    Raises:
        DataError: no term occurs in any document.
    """
    counts = np.asarray(posting_counts)
    used = np.sort(counts[counts > 0])[::-1]
    if not len(used):
        raise DataError("the index holds no posting at all: every vector is empty, there is nothing to draw")
    ranks = np.arange(1, len(used) + 1)
    rows = list(zip(ranks.tolist(), used.tolist(), strict=True))
    with drawn_figure(Path(path), ("rank of the term", "documents"), rows, png_alone=png_alone) as figure:
        axes = figure.add_subplot()
        axes.loglog(ranks, used, color=BLUE, linewidth=1.8, label="documents that hold the term")
        axes.axhline(float(used.mean()), color=ORANGE, linestyle="--", linewidth=1.2, label=f"mean {used.mean():,.1f}")
        if n_documents is not None:
            label = f"all {n_documents:,} documents"
            axes.axhline(n_documents, color="black", linestyle=":", linewidth=1.2, label=label)
        axes.set_xlabel("terms, longest posting list first")
        axes.set_ylabel("documents per term")
        titled(axes, subject, f"{int(used.sum()):,} postings on {len(used):,} of {len(counts):,} terms")
        axes.legend(loc="lower left")


def plot_weights(weights: np.ndarray, path: Path, subject: str = "") -> None:
    """Draw how often which weight occurs in an index.

    Args:
        weights: (n_postings,) positive; of more than `MOST_WEIGHTS` every n-th is counted.
        path: the PNG file to write; SVG and CSV go beside it.
        subject: which index it is; the first line of the title.
    """
    step = -(-len(weights) // MOST_WEIGHTS)
    counted = np.asarray(weights[::step], np.float64)
    shares, edges = np.histogram(counted, bins=60, weights=np.full(len(counted), 100 / len(counted)))
    rows = list(zip(edges[:-1].tolist(), edges[1:].tolist(), shares.tolist(), strict=True))
    with drawn_figure(path, ("weight from", "weight to", "share of postings in percent"), rows) as figure:
        axes = figure.add_subplot()
        axes.stairs(shares, edges, fill=True, color=BLUE, alpha=0.75)
        mean, median = float(counted.mean()), float(np.median(counted))
        axes.axvline(mean, color=ORANGE, linestyle="--", linewidth=1.4, label=f"mean {mean:.2f}")
        axes.axvline(median, color="black", linestyle=":", linewidth=1.4, label=f"median {median:.2f}")
        axes.set_xlim(0, None)
        axes.set_xlabel("weight of a term in a document")
        axes.set_ylabel("share of all postings, %")
        titled(axes, subject, f"weights of {len(weights):,} postings")
        axes.legend()


def plot_terms_per_text(
    doc_lengths: np.ndarray, query_lengths: np.ndarray | None, path: Path, subject: str = ""
) -> None:
    """Draw how many terms documents and queries have, as shares of the texts with at most so many.

    Args:
        doc_lengths: (n_docs,) terms of each document.
        query_lengths: (n_queries,) terms of each query; None: not known, and not drawn.
        path: the PNG file to write; SVG and CSV go beside it.
        subject: which index it is; the first line of the title.
    """
    sides = [("documents", np.sort(doc_lengths), "-", BLUE)]
    if query_lengths is not None and len(query_lengths):
        sides.insert(0, ("queries", np.sort(query_lengths), "--", ORANGE))
    quantiles = np.linspace(0, 100, 101)
    columns = [np.percentile(lengths, quantiles) for _, lengths, _, _ in sides]
    rows = [
        (share, *values) for share, *values in zip(quantiles.tolist(), *(one.tolist() for one in columns), strict=True)
    ]
    header = ("share of the texts in percent", *(f"terms per text, {name}" for name, *_ in sides))
    with drawn_figure(path, header, rows) as figure:
        axes = figure.add_subplot()
        for (name, lengths, line, color), values in zip(sides, columns, strict=True):
            label = f"{len(lengths):,} {name}: mean {lengths.mean():.1f}, most {int(lengths[-1]):,}"
            axes.plot(values, quantiles, linestyle=line, color=color, drawstyle="steps-post", label=label)
        axes.set_xlim(0, None)
        axes.set_ylim(0, 102)
        axes.set_xlabel("terms with a weight, per text")
        axes.set_ylabel("texts with at most so many, %")
        titled(axes, subject, "terms per text")
        axes.legend(loc="lower right")


def plot_flops_per_term(
    p_query: np.ndarray, p_doc: np.ndarray, tokens: Sequence[str] | None, path: Path, subject: str = ""
) -> None:
    """Draw the terms that cost most: P(term in query) x P(term in document), what FLOPS is the sum of.

    Args:
        p_query: (vocab_size,) share of the queries that have the term.
        p_doc: the same of documents.
        tokens: names of the terms; None: their numbers.
        path: the PNG file to write; SVG and CSV, with all terms that cost anything, go beside it.
        subject: which index and queries; the first line of the title.

    Raises:
        DataError: no term is in a query and in a document.
    """
    costs = p_query * p_doc
    order = np.argsort(-costs, kind="stable")[: int((costs > 0).sum())]
    if not len(order):
        raise DataError("queries and documents share no term")
    names = [printable(tokens[term]) if tokens is not None else f"term {term}" for term in order.tolist()]
    rows = [
        (name, float(costs[term]), float(p_query[term]), float(p_doc[term]))
        for name, term in zip(names, order.tolist(), strict=True)
    ]
    total, shown = float(costs.sum()), order[:SHOWN_TERMS]
    header = ("term", "flops", "share of queries", "share of documents")
    with drawn_figure(path, header, rows, size=(7.0, 5.5)) as figure:
        axes = figure.add_subplot()
        places = np.arange(len(shown))
        axes.barh(places, costs[shown], color=BLUE, hatch=HATCHES[0])
        axes.set_yticks(places, names[: len(shown)], parse_math=False)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        for place, term in enumerate(shown):
            note = f" {costs[term] / total:.1%}: in {p_query[term]:.0%} of queries, {p_doc[term]:.0%} of documents"
            inside = costs[term] > 0.55 * costs[shown[0]]
            axes.text(
                *(costs[term], place, note + " " * int(inside)),
                va="center",
                ha="right" if inside else "left",
                color="white" if inside else "black",
                fontsize=7.5,
            )
        axes.set_xlabel("expected multiplications per query and document")
        part = costs[shown].sum() / total
        titled(axes, subject, f"FLOPS {total:.3f}; {len(shown)} of {len(order):,} shared terms make {part:.0%}")
