"""Figures as inline SVG, drawn by matplotlib without pyplot, the same bytes every time.

Ink is the page's own colour, so that they can be read in light and dark; nothing is painted behind
them. Names come from anywhere: they are never read as markup or as mathematics.
"""

from ttt_core.pages.figures.estimates import Estimate, forest
from ttt_core.pages.figures.grid import heatmap, strip
from ttt_core.pages.figures.series import Series, lines, scatter

__all__ = ["Estimate", "Series", "forest", "heatmap", "lines", "scatter", "strip"]
