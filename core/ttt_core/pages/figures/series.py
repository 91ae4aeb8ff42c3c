"""Values against a quantity, with interval bands (`lines`), or one point a name (`scatter`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from ttt_core.errors import ConfigError
from ttt_core.pages.figures.canvas import add_legend, drawing, new_axes, style_of, to_svg
from ttt_core.pages.html import Svg
from ttt_core.pages.text import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_BANDS = 5
"""More bands than that hide each other; error bars take their place."""


@dataclass(frozen=True)
class Series:
    """One line, or one cloud of points.

    Attributes:
        name: In the legend.
        x: Where the values stand.
        y: The values, one for each of `x`.
        low: Lower ends of their intervals; empty: none are drawn.
        high: Upper ends of their intervals.
        faint: For references, such as chance: thin and without markers.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    faint: bool = False

    def __post_init__(self) -> None:
        ends = {len(self.low), len(self.high)} - {0}
        if (
            len(self.x) != len(self.y)
            or not ends <= {len(self.x)}
            or len(self.low) != len(self.high)
        ):
            raise ConfigError(
                f"x, y, low and high must have one value per point, not {len(self.x)}, "
                f"{len(self.y)}, {len(self.low)} and {len(self.high)}"
            )


def lines(
    series: Sequence[Series],
    *,
    alt: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    y_range: tuple[float, float] | None = None,
) -> Svg:
    """Draw lines with bands.

    Args:
        series: In the order of the legend.
        alt: What the figure shows, in words.
        x_label: What `x` counts.
        y_label: What `y` counts.
        log_x: Doubling is one step; all of `x` must be above zero then.
        y_range: Ends of the axis; None: as the values need it.
    """
    with drawing():
        figure, axes = new_axes(height=3.4)
        bands = sum(not one.faint for one in series) <= _MOST_BANDS
        for index, one in enumerate(series):
            _draw(axes, one, index, band=bands)
        if log_x:
            _double(axes, [x for one in series for x in one.x])
        if y_range:
            axes.set_ylim(*y_range)
        axes.set(xlabel=label(x_label), ylabel=label(y_label))
        axes.grid(visible=True)
        add_legend(figure, axes)
        return to_svg(figure, alt)


def scatter(
    series: Sequence[Series],
    *,
    alt: str,
    x_label: str,
    y_label: str,
    log_x: bool = True,
) -> Svg:
    """Draw the points of each series, with error bars where there are intervals."""
    with drawing():
        figure, axes = new_axes(height=3.4)
        for index, one in enumerate(series):
            style = {**style_of(index), "linestyle": "none"}
            errors = [_below(one), _above(one)] if one.low else None
            axes.errorbar(one.x, one.y, yerr=errors, label=label(one.name), elinewidth=1.0, **style)  # type: ignore[arg-type]
        if log_x and all(x > 0 for one in series for x in one.x):
            _decades(axes)
        axes.set(xlabel=label(x_label), ylabel=label(y_label))
        axes.grid(visible=True)
        add_legend(figure, axes)
        return to_svg(figure, alt)


def _draw(axes: Axes, one: Series, index: int, *, band: bool) -> None:
    if one.faint:
        axes.plot(
            one.x, one.y, label=label(one.name), color="#808890", linestyle=":", linewidth=1.2
        )
        return
    style = style_of(index)
    if one.low and not band:
        errors = [_below(one), _above(one)]
        axes.errorbar(one.x, one.y, errors, label=label(one.name), ms=4.5, elinewidth=0.8, **style)  # type: ignore[arg-type]
        return
    axes.plot(one.x, one.y, label=label(one.name), markersize=4.5, **style)  # type: ignore[arg-type]
    if one.low:
        axes.fill_between(one.x, one.low, one.high, color=style["color"], alpha=0.14, linewidth=0)


def _decades(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x:g}" if 1e-3 <= x < 1e4 else f"{x:.0e}".replace("e+", "e"))
    )
    axes.xaxis.set_minor_formatter(NullFormatter())


def _double(axes: Axes, values: Sequence[float]) -> None:
    """Scale by doublings; where there are few lengths, each one has its own tick."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    distinct = sorted({round(x) for x in values})
    if 0 < len(distinct) <= 7 and all(b >= 1.4 * a for a, b in pairwise(distinct)):
        axes.set_xticks(distinct)


def _below(one: Series) -> list[float]:
    return [max(y - low, 0.0) for y, low in zip(one.y, one.low, strict=True)]


def _above(one: Series) -> list[float]:
    return [max(high - y, 0.0) for y, high in zip(one.y, one.high, strict=True)]
