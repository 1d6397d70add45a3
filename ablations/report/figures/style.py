"""Style and output of every picture: one palette, legends next to the data, identical bytes for identical results."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from cnnjepa.ablations.report.figures.text import FONTS

# Okabe and Ito's palette (jfly.uni-koeln.de/color), which people with any of the usual colour deficiencies can
# distinguish. Yellow is left out, because it is hard to see on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_SERIES = len(PALETTE)
"""More series than this cannot be distinguished, so they are not coloured."""

BETTER, WORSE, QUIET, BASELINE = "#009E73", "#D55E00", "#7F7F7F", "#000000"

_STYLE: dict[Any, Any] = {
    "font.family": FONTS,
    "text.parse_math": False,  # a `$` in a name is a dollar sign
    "svg.hashsalt": "cnnjepa",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}


@dataclass(frozen=True)
class Picture:
    """A drawn picture."""

    name: str
    """File name without extension."""
    caption: str
    """A sentence that describes the picture."""
    svg: bytes
    png: bytes


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure of this size in inches, in the style of the report."""
    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def picture(figure: Figure, name: str, caption: str) -> Picture:
    """Return the figure as SVG and PNG, both without date and versions."""
    with matplotlib.rc_context(_STYLE):
        svg, png = io.BytesIO(), io.BytesIO()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is computed once, not once per format
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
    return Picture(name, caption, svg.getvalue(), png.getvalue())
