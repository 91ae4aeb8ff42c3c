"""Values by row and column as colours (`heatmap`), and along one axis (`strip`); all vectors."""

from __future__ import annotations

from collections.abc import Sequence

from ttt_core.errors import ConfigError
from ttt_core.pages.figures.canvas import COLOURS, drawing, new_axes, to_svg
from ttt_core.pages.html import Svg
from ttt_core.pages.text import label


def heatmap(
    values: Sequence[Sequence[float]],
    *,
    alt: str,
    x_label: str,
    y_label: str,
    colour_label: str,
    limits: tuple[float, float] | None = None,
    diverging: bool = False,
) -> Svg:
    """Draw values of shape (n_rows, n_columns), the first row on top.

    Args:
        values: Those that are not finite stay empty.
        alt: What the figure shows, in words.
        x_label: What the columns are.
        y_label: What the rows are.
        colour_label: What the values are.
        limits: Values of the ends of the colours; None: as the values need it. Give the same ones
            to figures that are compared.
        diverging: Colours for differences, with zero in the middle.

    Raises:
        ConfigError: There are no values, or rows of different lengths.
    """
    import numpy as np

    if not values or not values[0] or len({len(row) for row in values}) != 1:
        raise ConfigError("a heatmap needs rows of the same number of values, at least one")
    array = np.ma.masked_invalid(np.asarray(values, dtype=float))
    low, high = limits or _limits(float(array.min()), float(array.max()), diverging=diverging)
    with drawing():
        figure, axes = new_axes(height=min(7.0, 1.3 + 0.2 * array.shape[0]))
        # pcolormesh, as imshow would put a bitmap into the page.
        mesh = axes.pcolormesh(
            array, cmap="PuOr_r" if diverging else "viridis", vmin=low, vmax=high
        )
        axes.invert_yaxis()
        _number(axes.set_xticks, array.shape[1])
        _number(axes.set_yticks, array.shape[0])
        axes.set(xlabel=label(x_label), ylabel=label(y_label))
        bar = figure.colorbar(mesh, ax=axes, label=label(colour_label))
        bar.solids.set_rasterized(False)  # type: ignore[union-attr]
        return to_svg(figure, alt)


def strip(
    positions: Sequence[float],
    heights: Sequence[float] = (),
    *,
    alt: str,
    x_label: str,
    y_label: str = "",
    x_range: tuple[float, float] | None = None,
    marked: Sequence[tuple[float, float]] = (),
) -> Svg:
    """Draw a stroke at each position along one axis.

    Args:
        positions: Where.
        heights: How high; empty: all alike, and no vertical axis.
        alt: What the figure shows, in words.
        x_label: What the positions count.
        y_label: What the heights are.
        x_range: Ends of the axis; None: as the positions need it.
        marked: First and last position of pieces to shade, such as a needle.

    Raises:
        ConfigError: `heights` has another length than `positions`.
    """
    if heights and len(heights) != len(positions):
        raise ConfigError(f"{len(heights)} heights for {len(positions)} positions")
    with drawing():
        figure, axes = new_axes(height=2.0 if heights else 1.0)
        for start, end in marked:
            axes.axvspan(start, end, color=COLOURS[1], alpha=0.35, linewidth=1.0)
        axes.vlines(list(positions), 0.0, list(heights) or 1.0, color=COLOURS[0], linewidth=0.8)
        if x_range:
            axes.set_xlim(*x_range)
        axes.set_ylim(bottom=0.0)
        axes.set(xlabel=label(x_label), ylabel=label(y_label))
        if not heights:
            axes.yaxis.set_visible(False)
        return to_svg(figure, alt)


def _limits(low: float, high: float, *, diverging: bool) -> tuple[float, float]:
    if diverging:
        far = max(abs(low), abs(high)) or 1.0
        return -far, far
    return low, high if high > low else low + 1.0


def _number(set_ticks: object, count: int) -> None:
    """Number cells in their middle, few enough to be read."""
    step = -(-count // 16)
    numbers = list(range(0, count, step))
    assert callable(set_ticks)
    set_ticks([number + 0.5 for number in numbers], [str(number) for number in numbers])
