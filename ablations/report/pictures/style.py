"""How every picture looks and is written: one palette, legends beside the data, the same bytes every time."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from cnnjepa.ablations.report.pictures.text import FONTS

# Okabe and Ito's palette (jfly.uni-koeln.de/color): told apart by people with any of the usual colour deficiencies.
# Yellow is left out, which print on white loses.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_SERIES = len(PALETTE)
"""More series than this cannot be told apart, so they are not coloured."""

BETTER, WORSE, QUIET, BASELINE = "#009E73", "#D55E00", "#7F7F7F", "#000000"

_STYLE: dict[Any, Any] = {
    "font.family": FONTS,
    "text.parse_math": False,  # a `$` in a name is a dollar
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
    """File name without ending."""
    caption: str
    """A sentence on what is shown."""
    svg: bytes
    png: bytes


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of so many inches, in the house's style."""
    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def picture(figure: Figure, name: str, caption: str) -> Picture:
    """The figure as SVG and PNG, without date or versions in either."""
    with matplotlib.rc_context(_STYLE):
        svg, png = io.BytesIO(), io.BytesIO()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, not once a format
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
    return Picture(name, caption, svg.getvalue(), png.getvalue())
