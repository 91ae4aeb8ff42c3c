"""What all figures share: sizes, colours, and how a matplotlib figure becomes inline SVG."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from ttt_core.extras import library
from ttt_core.pages.html import Svg
from ttt_core.pages.text import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the page's own text colour; no other colour of ours is so close to black."""

COLOURS = (
    "#2a7fd4", "#e0702a", "#2a9d5c", "#c24a9a", "#8f6ad8", "#b8860b", "#15a0a8", "#d04545",
)  # fmt: skip
"""Told apart on white and on black, and in most kinds of colour blindness; then come styles."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
WIDTH = 7.6
"""Inches; the page scales figures down to the window."""

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ttt",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "legend.frameon": False,
}


def style_of(index: int) -> dict[str, str]:
    """Colour, marker and dashes of the series with this number; 56 look different."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
    }


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with our settings, whatever the user's matplotlibrc says, and leave no trace.

    Raises:
        MissingLibraryError: matplotlib is not installed.
    """
    matplotlib = library("matplotlib", "matplotlib", "drawing a figure")
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Glyphs that matplotlib's own font lacks: the browser's font draws them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_axes(*, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of `height` inches and its axes. Only inside `drawing()`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def add_legend(figure: Figure, axes: Axes) -> None:
    """Put the names below the axes, where they hide no data, and make room for them."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    width = 0.075 * max(map(len, labels)) + 0.7  # Inches of the longest name and its mark.
    columns = max(1, min(4, len(labels), int(WIDTH / width)))
    rows = -(-len(labels) // columns)
    figure.set_size_inches(WIDTH, figure.get_size_inches()[1] + 0.2 * rows)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def to_svg(figure: Figure, alt: str) -> Svg:
    """Return the figure as an `<svg>` element whose ids clash with no other figure's."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace("xlink:href", "href").replace(
        ' xmlns:xlink="http://www.w3.org/1999/xlink"', ""
    )
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>f{mark}-", text)
    text = text.replace(INK, "currentColor")
    shown = escape(clean(alt))
    opening = f'<svg role="img" aria-label="{shown}"'
    # "<svg ...>" begins the text; the title is what browsers show below the pointer.
    text = re.sub(r"^<svg([^>]*)>", lambda m: f"{opening}{m[1]}>\n <title>{shown}</title>", text)
    return Svg(text, alt)
