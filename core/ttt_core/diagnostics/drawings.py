"""The figures of a diagnosis, each with its caption."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ttt_core.diagnostics.findings import EPSILONS
from ttt_core.diagnostics.heads import all_heads
from ttt_core.diagnostics.lemmas import demanded_lead
from ttt_core.pages.figures import Series, heatmap, lines, strip

if TYPE_CHECKING:
    from ttt_core.diagnostics.diagnosis import Diagnosis
    from ttt_core.diagnostics.dilution import DilutionPoint
    from ttt_core.diagnostics.measure import Measurement, Quantity
    from ttt_core.pages import Svg
    from ttt_core.report import AdaptationReport


def masses(d: Diagnosis, query: int | None, where: str) -> Iterator[tuple[Svg, str]]:
    """Draw the mass on the needle by layer and head: before, after, difference.

    Args:
        d: What was found.
        query: See `Measurement.grid`.
        where: The same in words.
    """
    before = d.before.grid("mass", query)
    after = None if d.after is None else d.after.grid("mass", query)
    top = max(float(grid.max()) for grid in (before, after) if grid is not None)
    limits = (0.0, top or 1.0)
    yield _heatmap(before.tolist(), "before", where, limits)
    if after is not None:
        yield _heatmap(after.tolist(), "after", where, limits)
        yield _heatmap((after - before).tolist(), "after minus before", where, None)


def _heatmap(
    values: list[list[float]], name: str, where: str, limits: tuple[float, float] | None
) -> tuple[Svg, str]:
    title = f"Mass on the needle {where}, {name}"
    figure = heatmap(
        values,
        alt=f"{title}: a cell a layer (down) and head (across).",
        x_label="head",
        y_label="layer",
        colour_label="mass",
        limits=limits,
        diverging=limits is None,
    )
    return figure, f"{title}."


def dilution(d: Diagnosis) -> Iterator[tuple[Svg, str]]:
    """Draw mass and lead against length, with the lead that is demanded."""
    points, top = d.dilution, all_heads(d.before, d.after, d.peak)[0]
    lengths = [point.n_tokens for point in points]
    sides = _curves(points)
    cell = (top.layer, top.head)

    def of_top(name: Quantity) -> list[Series]:
        where = f"head {top.head} of layer {top.layer}"
        return [
            Series(f"{where}, {side}", lengths, [float(m.grid(name, d.peak)[cell]) for m in curve])
            for side, curve in sides
        ]

    mean = [
        Series(f"mean of all heads, {side}", lengths, [float(m.by_query()[d.peak]) for m in curve])
        for side, curve in sides
    ]
    title = "Mass on the needle against the document's length"
    yield (
        lines([*of_top("mass"), *mean], alt=f"{title}.", x_label="tokens", y_label="mass",
              log_x=True, y_range=(0.0, 1.0)),
        f"{title}, where the needle is needed most.",
    )  # fmt: skip
    demands = [
        Series(f"enough for {1 - epsilon:.0%}", lengths,
               [demanded_lead(p.before.rivals, epsilon) for p in points])
        for epsilon in EPSILONS
    ]  # fmt: skip
    title = "Lead over the best rival against the document's length"
    yield (
        lines([*of_top("lead"), *demands], alt=f"{title}.", x_label="tokens", y_label="nats",
              log_x=True),
        f"{title}, and what would be enough in the worst case, where all rivals score alike.",
    )  # fmt: skip


def _curves(points: tuple[DilutionPoint, ...]) -> list[tuple[str, list[Measurement]]]:
    curves = [("before", [point.before for point in points])]
    after = [point.after for point in points if point.after is not None]
    return [*curves, ("after", after)] if after else curves


def document(d: Diagnosis) -> Iterator[tuple[Svg, str]]:
    """Draw where attention goes in the document, and where its text comes back."""
    middles = [(section.start + section.end) / 2 for section in d.strip]
    ends = (float(d.strip[0].start), float(d.strip[-1].end))
    marked = [(float(a), float(b)) for needle in d.needles for a, b in needle.places]
    rows = [("before", [section.before for section in d.strip])]
    if d.after is not None:
        rows.append(("after", [section.after or 0.0 for section in d.strip]))
    for name, heights in rows:
        title = f"Attention on each part of the document, {name}"
        yield (
            strip(middles, heights, alt=f"{title}; the needle is shaded.", x_label="token",
                  y_label="mass", x_range=ends, marked=marked),
            f"{title}; mean over layers, heads and the answer's tokens. The needle is shaded.",
        )  # fmt: skip
    title = "Where the text comes back"
    yield (
        strip(middles, [s.recurrent for s in d.strip], alt=f"{title}.", x_label="token",
              y_label="share", x_range=ends, marked=marked),
        f"{title}: share of each part's tokens whose next one could be copied from an earlier "
        f"occurrence of the same words.",
    )  # fmt: skip


def losses(report: AdaptationReport) -> Iterator[tuple[Svg, str]]:
    """Draw the training loss of the chosen run."""
    if len(report.losses) < 2:
        return
    curve = Series("training loss", list(range(1, len(report.losses) + 1)), list(report.losses))
    kept = f"; the weights after step {report.steps} were kept" if report.steps else ""
    yield (
        lines([curve], alt="Training loss by step.", x_label="step", y_label="nats per token"),
        f"Training loss of the chosen run{kept}.",
    )
