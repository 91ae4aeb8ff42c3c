"""The figures of a report; without matplotlib there are none, and the report says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from statistics import fmean

from ttt_core.evaluation.analysis.comparing import Versus
from ttt_core.evaluation.analysis.costs import Costs
from ttt_core.evaluation.analysis.pairing import is_control
from ttt_core.evaluation.analysis.summary import ModelSummary, Row
from ttt_core.evaluation.report.sheet import Sheet
from ttt_core.pages import Svg
from ttt_core.pages.figures import Estimate, Series, forest, lines, scatter

_MOST_ROWS = 60
"""More rows make no picture."""


def add_scores(sheet: Sheet, task: str, rows: Sequence[Row]) -> None:
    """Score against true tokens, or scores side by side where there is one length only."""
    done = [row for row in rows if row.score is not None]
    if not done or not _can_draw(sheet):
        return
    if len({row.length for row in rows}) > 1:
        sheet.add_figure(_against_tokens(task, done), f"{task}: score against length; 95 % bands.")
        return
    estimates = [_estimate(row) for row in done[:_MOST_ROWS]]
    figure = forest(estimates, alt=f"Scores of {len(estimates)} arms on {task}", x_label="points")
    sheet.add_figure(figure, f"{task}: score by arm, with 95 % intervals.")


def add_forest(sheet: Sheet, rows: Sequence[tuple[str, Versus]], *, what: str) -> None:
    """Differences with their intervals; full circles are significant after correction."""
    if not rows or not _can_draw(sheet):
        return
    estimates = [
        Estimate(name, 100 * v.difference, 100 * v.low, 100 * v.high, strong=v.significant)
        for name, v in rows[:_MOST_ROWS]
    ]
    left_out = len(rows) - len(estimates)
    more = f" {left_out} further rows are in the table only." if left_out > 0 else ""
    figure = forest(estimates, alt=f"Forest plot: {what}", x_label=f"points: {what}")
    caption = f"{what[0].upper()}{what[1:]}; full circles are significant after correction.{more}"
    sheet.add_figure(figure, caption)


def add_costs(sheet: Sheet, model: ModelSummary) -> None:
    """Score against FLOPs and against seconds, one point an arm."""
    if not _can_draw(sheet):
        return
    kinds: dict[str, Callable[[Costs], float | None]] = {
        "FLOPs": lambda costs: costs.flops_many,
        "seconds": lambda costs: costs.seconds_many,
    }
    for unit, cost in kinds.items():
        series = _against_cost(model, cost)
        if series:
            label = f"{unit} for one document and ten questions"
            figure = scatter(
                series,
                alt=f"Score against {unit} for {len(series)} arms of {model.model}",
                x_label=label,
                y_label="score, points",
            )
            sheet.add_figure(figure, f"Score over all tasks, with 95 % intervals, against {label}.")


def _can_draw(sheet: Sheet) -> bool:
    if find_spec("matplotlib"):
        return True
    sheet.add_text("(A figure is left out: pip install 'context-ttt[eval]' brings matplotlib.)")
    return False


def _against_tokens(task: str, rows: Sequence[Row]) -> Svg:
    by_arm: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.tokens):
        by_arm.setdefault(row.arm, []).append(row)
    series = [_line(arm, found) for arm, found in by_arm.items() if not is_control(arm)]
    return lines(
        [*series, _chance(rows)],
        alt=f"Score on {task} against tokens of the document for {len(series)} arms",
        x_label="tokens of the document",
        y_label="score, points",
        log_x=all(row.tokens > 0 for row in rows),
        y_range=(-2.0, 102.0),
    )


def _line(arm: str, rows: Sequence[Row]) -> Series:
    return Series(
        arm,
        [row.tokens for row in rows],
        [100 * (row.score or 0.0) for row in rows],
        [100 * (row.low or 0.0) for row in rows],
        [100 * (row.high or 0.0) for row in rows],
    )


def _chance(rows: Sequence[Row]) -> Series:
    """Chance is the questions', so any arm that answered knows it."""
    by_tokens = {row.tokens: 100 * row.chance for row in rows}
    places = sorted(by_tokens)
    return Series("chance", places, [by_tokens[place] for place in places], faint=True)


def _against_cost(model: ModelSummary, cost: Callable[[Costs], float | None]) -> list[Series]:
    """One point an arm: its average and mean cost; controls and unmeasured arms are left out."""
    series = []
    for one in model.averages:
        spent = [cost(row.costs) for row in model.rows if row.arm == one.arm and row.costs]
        known = [value for value in spent if value]
        if is_control(one.arm) or one.score is None or not known or len(known) < len(spent):
            continue
        ends = ([100 * (one.low or 0.0)], [100 * (one.high or 0.0)])
        series.append(Series(one.arm, [fmean(known)], [100 * one.score], *ends))
    return series


def _estimate(row: Row) -> Estimate:
    assert row.score is not None
    assert row.low is not None
    assert row.high is not None
    return Estimate(row.arm, 100 * row.score, 100 * row.low, 100 * row.high, strong=True)
