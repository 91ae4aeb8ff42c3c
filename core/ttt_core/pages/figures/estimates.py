"""A forest plot: one estimate with its interval a row, around a line of no difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ttt_core.pages.figures.canvas import COLOURS, INK, drawing, new_axes, to_svg
from ttt_core.pages.html import Svg
from ttt_core.pages.text import label


@dataclass(frozen=True)
class Estimate:
    """One row.

    Attributes:
        name: Left of it.
        value: The estimate.
        low: Lower end of its interval.
        high: Upper end of its interval.
        strong: Whether it is significant; others are drawn hollow.
    """

    name: str
    value: float
    low: float
    high: float
    strong: bool = False


def forest(rows: Sequence[Estimate], *, alt: str, x_label: str) -> Svg:
    """Draw estimates, the first one on top."""
    with drawing():
        figure, axes = new_axes(height=0.9 + 0.22 * len(rows))
        axes.axvline(0.0, color=INK, linewidth=0.8, alpha=0.6)
        for y, row in enumerate(rows):
            colour = COLOURS[0] if row.value >= 0 else COLOURS[1]
            face = colour if row.strong else "none"
            axes.plot([row.low, row.high], [y, y], color=colour, linewidth=1.3)
            axes.plot(row.value, y, "o", color=colour, markerfacecolor=face, markersize=5)
        axes.set_yticks(range(len(rows)), [label(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(label(x_label))
        axes.grid(visible=True, axis="x")
        return to_svg(figure, alt)
