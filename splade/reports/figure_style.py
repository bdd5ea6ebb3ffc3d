"""How all figures look, and how they are written: PNG, SVG, and the data beside them.

Lines differ in style and marker and bars in hatching as well as in colour, so that a print in black and white says the
same. The colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import csv
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from splade.storage.atomic import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.hashsalt": "splade",
}
BLUE, ORANGE, GREEN, PURPLE, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"
LINES = tuple(
    {"color": color, "linestyle": line, "marker": marker}
    for color, line, marker in (
        (BLUE, "-", "o"),
        (ORANGE, "--", "s"),
        (GREEN, "-.", "^"),
        (PURPLE, ":", "D"),
        (BLACK, (0, (5, 1)), "v"),
        ("#56B4E9", (0, (1, 1)), "P"),
        ("#E69F00", (0, (3, 1, 1, 1)), "X"),
    )
)
HATCHES = ("", "///")
Row = Sequence[str | float | int | None]


def line_style(number: int) -> dict[str, object]:
    """Return colour, line and marker of the line with a number, from 0; they repeat after seven."""
    return dict(LINES[number % len(LINES)])


@contextmanager
def drawn_figure(
    path: Path,
    header: Sequence[str],
    rows: Sequence[Row],
    size: tuple[float, float] = (7.0, 4.5),
    png_alone: bool = False,
) -> Iterator["Figure"]:
    """Give a figure to draw on; afterwards write it, whole or not at all.

    Args:
        path: of the PNG file; SVG and CSV lie beside it under the same name.
        header: names of the columns of the data, with units.
        rows: the data that is drawn.
        size: inches.
        png_alone: write neither SVG nor data.
    """
    logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)  # it tells of fonts that it has listed
    # Figure and FigureCanvasAgg instead of pyplot: no global state, no display needed.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):  # type: ignore[arg-type]  # its keys are a list of literals
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None, "Creator": None})):
            with replacing(path.with_suffix(suffix)) as temporary:
                figure.savefig(temporary, format=suffix[1:], metadata=metadata)
            if png_alone:
                return
            figure.set_layout_engine("none")  # what is laid out stays where it is
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path.with_suffix(".csv"), text.getvalue())


def titled(axes: "Axes", *lines: str) -> None:
    """Set the title of axes: lines that are not empty, taken as they are."""
    axes.set_title("\n".join(filter(None, lines)), parse_math=False)
