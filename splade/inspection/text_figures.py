"""Pictures of texts and scores, drawn on axes that are given: bags of words, what each token gave, why a score."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from splade.inspection.explanation import Explanation
from splade.inspection.term_differences import TermDifference
from splade.inspection.traced_text import TracedText
from splade.reports.figure_style import BLUE, HATCHES, ORANGE, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_bag(axes: "Axes", traced: TracedText, top: int = 25, title: str = "") -> None:
    """Draw the heaviest terms as bars: the text's own plain, the model's expansion in another colour and hatched."""
    bag = traced.bag(top)
    for own, color, hatch, label in ((True, BLUE, HATCHES[0], "in the text"), (False, ORANGE, HATCHES[1], "expansion")):
        chosen = [(place, weight) for place, (token, weight, _) in enumerate(bag) if (token in traced.own) == own]
        if chosen:
            places, weights = zip(*chosen, strict=True)
            axes.barh(places, weights, color=color, hatch=hatch, edgecolor="white", label=label)
    _name_rows(axes, [token for token, _, _ in bag])
    axes.set_xlabel("weight")
    axes.legend(loc="lower right")
    titled(axes, title)


def draw_tokens(axes: "Axes", traced: TracedText, top: int = 25, title: str = "") -> None:
    """Draw what each input token gives to the heaviest terms; a dot marks what pooling took.

    The tokens stand from top to bottom in the order of the text, the terms from left to right, heaviest first.
    """
    if traced.parts is None or traced.unpooled is None:
        raise ValueError("the tokens behind this vector are not known")
    heaviest = np.argsort(-traced.weights, kind="stable")[:top]
    picture = axes.imshow(traced.unpooled[:, heaviest], cmap="Greys", aspect="auto", vmin=0)
    rows, columns = np.nonzero(traced.parts[:, heaviest])
    axes.plot(columns, rows, linestyle="", marker="o", markersize=4, color=ORANGE)
    terms = [traced.vocabulary[int(traced.term_ids[i])] for i in heaviest]
    axes.set_xticks(range(len(terms)), terms, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(traced.inputs)), traced.inputs, fontsize=8, parse_math=False)
    axes.grid(visible=False)
    axes.set_xlabel("term of the vector, heaviest first")
    axes.set_ylabel("input token")
    axes.figure.colorbar(picture, ax=axes, label="weight that the token gives", pad=0.01)
    titled(axes, title)


def draw_score(axes: "Axes", explanation: Explanation, top: int = 15, title: str = "") -> None:
    """Draw what each shared term adds to a score, with both weights."""
    parts = explanation.contributions[:top]
    axes.barh(range(len(parts)), [part.score for part in parts], color=BLUE)
    for place, part in enumerate(parts):
        note = f" {part.query_weight:.2f} × {part.doc_weight:.2f}, {part.score / explanation.score:.1%}"
        axes.text(part.score, place, note, va="center", fontsize=8)
    _name_rows(axes, [part.token for part in parts])
    axes.margins(x=0.3)
    axes.set_xlabel("part of the score: query weight × document weight")
    titled(axes, title)


def draw_differences(
    axes: "Axes", rows: Sequence[TermDifference], names: tuple[str, str], top: int = 15, title: str = ""
) -> None:
    """Draw both values of the terms that differ most, as percentages of their sums."""
    shown = rows[:top]
    places = np.arange(len(shown))
    sides = ((-0.2, [row.first for row in shown]), (0.2, [row.second for row in shown]))
    for (shift, values), name, color, hatch in zip(sides, names, (BLUE, ORANGE), HATCHES, strict=True):
        shares = [100 * value for value in values]
        axes.barh(places + shift, shares, 0.4, color=color, hatch=hatch, edgecolor="white", label=name)
    _name_rows(axes, [row.token for row in shown])
    axes.set_xlabel("share, %")
    axes.legend(loc="lower right")
    titled(axes, title)


def _name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Name the rows of a bar chart, the first one on top."""
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
