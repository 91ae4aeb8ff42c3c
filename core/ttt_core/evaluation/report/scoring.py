"""Scores and differences: the main tables, with the figures that show them, and the break-downs."""

from __future__ import annotations

from itertools import groupby

from ttt_core.evaluation.analysis.comparing import Versus
from ttt_core.evaluation.analysis.digits import (
    NONE,
    amount,
    difference_with_interval,
    p_text,
    points,
    share,
)
from ttt_core.evaluation.analysis.power import fewest_documents
from ttt_core.evaluation.analysis.summary import Average, ModelSummary, Row
from ttt_core.evaluation.report import drawings
from ttt_core.evaluation.report.sheet import Sheet
from ttt_core.pages import Strong

Table = tuple[list[str], list[list[str]]]

_FEW = "\N{DAGGER}"
_VERSUS = ["difference [95 %]", "p (Holm)", "found from"]
_NOTE = (
    "Scores and differences are in points of 100, with 95 % intervals in brackets. Bold: the arm "
    "differs from the reference after correction for all comparisons of the table. 'Found from': "
    "the smallest true difference that this many documents would have shown with 80 % power; a "
    "dash where that is not known, or nothing could have been found. "
    f"{_FEW}: fewer than six documents, whose interval is no evidence."
)


def add_scores(sheet: Sheet, model: ModelSummary) -> None:
    """The averages, then each task with its table and figures."""
    sheet.add_heading(f"Scores: {model.model}")
    sheet.add_text(_NOTE)
    against = model.reference or "no reference: there are no differences"
    sheet.add_table(*average_table(model), caption=f"All tasks; reference: {against}")
    drawings.add_forest(
        sheet,
        [(one.arm, one.versus) for one in model.averages if one.versus],
        what=f"difference from {model.reference}, all tasks",
    )
    if model.lr_zero:
        sheet.add_text(f"Check: {model.lr_zero}.")
    for task, found in groupby(model.rows, key=lambda row: row.task):
        rows = list(found)
        sheet.add_heading(f"{task} ({model.model})", 3)
        header, lines = score_table(rows)
        align = "".join("l" if name == "arm" else "r" for name in header)
        sheet.add_table(header, lines, caption=_reach(rows), align=align)
        drawings.add_scores(sheet, task, rows)
        drawings.add_forest(
            sheet,
            [(_place(row), row.versus) for row in rows if row.versus],
            what=f"difference from {model.reference} on {task}",
        )


def _reach(rows: list[Row]) -> str:
    """Say which rows cannot be bold, however wide their lead."""
    compared = max((row.versus.comparisons for row in rows if row.versus), default=0)
    if not compared:
        return ""
    return (
        f"{compared:,} comparisons: rows with fewer than {fewest_documents(compared)} documents "
        f"cannot be significant."
    )


def average_table(model: ModelSummary) -> Table:
    """Return header and rows over all tasks; what is significant after correction is `Strong`."""
    rows = [
        [
            _mark(one.arm, one.documents),
            _with_interval(one),
            *_versus(one.versus),
            str(len(one.tasks)),
            f"{one.questions:,} / {one.documents:,}",
        ]
        for one in model.averages
    ]
    return ["arm", "score [95 %]", *_VERSUS, "tasks", "questions / documents"], rows


def score_table(rows: list[Row]) -> Table:
    """Return header and rows of one task; what is significant after correction is `Strong`."""
    header = ["length", "tokens", "arm", "score [95 %]", "above chance", *_VERSUS]
    header += ["adapted", "questions / documents"]
    return header, [_score_row(row) for row in rows]


def add_breakdown(sheet: Sheet, model: ModelSummary) -> None:
    """Groups of questions, folded away: they are many and small."""
    for (task, group), found in groupby(model.groups, key=lambda row: (row.task, row.group)):
        part = sheet.add_details(f"{task} by {group} ({model.model})")
        part.add_table(
            [group, "arm", "score", *_VERSUS, "questions / documents"],
            [
                [
                    row.value,
                    _mark(row.arm, row.documents),
                    points(row.score, row.questions),
                    *_versus(row.versus),
                    f"{row.questions:,} / {row.documents:,}",
                ]
                for row in found
            ],
            align="llrrrrr",
        )


def _score_row(row: Row) -> list[str]:
    n = max(row.questions, 1)
    return [
        NONE if row.length is None else f"{row.length:,}",
        _tokens(row),
        _mark(row.arm, row.documents),
        _with_interval(row),
        points(row.above_chance, n),
        *_versus(row.versus),
        share(row.adapted),
        f"{row.questions:,} / {row.documents:,}",
    ]


def _with_interval(one: Row | Average) -> str:
    n = max(one.questions, 1)
    low, high = points(one.low, n), points(one.high, n)
    # What is the same for each question, such as chance, has no interval.
    return points(one.score, n) + (f" [{low}, {high}]" if one.low != one.high else "")


def _versus(one: Versus | None) -> list[str]:
    if one is None:
        return [NONE] * len(_VERSUS)
    text = difference_with_interval(one)
    if one.unpaired:
        text += f" ({one.questions:,} pairs)"
    found = NONE if one.detectable is None else amount(100 * one.detectable)
    return [Strong(text) if one.significant else text, _p(one), found]


def _p(one: Versus) -> str:
    return p_text(one.p_corrected).removeprefix("= ")


def _mark(arm: str, documents: int) -> str:
    from ttt_core.evaluation.analysis.statistics import FEWEST_DOCUMENTS

    return f"{arm} {_FEW}" if documents < FEWEST_DOCUMENTS else arm


def _tokens(row: Row) -> str:
    if row.fewest_tokens == row.most_tokens:
        return f"{row.most_tokens:,}"
    return f"{row.tokens:,.0f} ({row.fewest_tokens:,} to {row.most_tokens:,})"


def _place(row: Row) -> str:
    return row.arm if row.length is None else f"{row.arm}, {row.length:,}"
