"""What `ttt eval` prints when it is done: a table, the verdict, and what it means."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from ttt_core.cli import console

if TYPE_CHECKING:
    from pathlib import Path

    from ttt_core.evaluation.analysis.summary import ModelSummary, Row
    from ttt_core.evaluation.report.gathering import Findings

_MOST_FAILURES = 3


def show(findings: Findings, written: Path) -> None:
    """Print everything for a person; the last lines are those that matter most."""
    from ttt_core.evaluation.report.advice import advise

    for model in findings.summary.models:
        console.show(_table(model))
    _show_gaps(findings)
    for model in findings.summary.models:
        if model.lr_zero:
            console.show(Text(f"Check: {model.lr_zero}."))
        console.heading(model.verdict.sentence)
        for sentence in advise(model):
            console.show(Text(sentence))
    console.show(Text(f"The whole report: {written}"))


def as_json(findings: Findings, written: Path) -> dict[str, Any]:
    """The summary, each model with the advice that follows from it."""
    from ttt_core.evaluation.report.advice import advise

    models = [
        {**model.model_dump(mode="json"), "advice": list(advise(model))}
        for model in findings.summary.models
    ]
    return {"report": str(written), "models": models}


def _show_gaps(findings: Findings) -> None:
    """Say what is missing, and why: a mean does not show what it leaves out."""
    for model in findings.summary.models:
        for note in model.missing:
            console.show(Text(note))
    kinds = Counter(
        f"{cell.key.arm}: {cell.failure.message}" for cell in findings.cells if cell.failure
    )
    for message, count in sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))[
        :_MOST_FAILURES
    ]:
        console.show(Text(f"  {console.plain(message)} ({count:,} x)"))


def _table(model: ModelSummary) -> Table:
    """One line an arm, task and length; what is the same in all lines stands above, once."""
    tasks = {row.task for row in model.rows}
    lengths = {row.length for row in model.rows}
    on = f" on {next(iter(tasks))}" if len(tasks) == 1 else ""
    table = Table(
        title=Text(f"{model.model}{on}: mean score, in points of 100"),
        caption="difference: from in-context, with its 95 % interval; * significant after "
        "correction; n: questions / documents",
        box=SIMPLE,
    )
    shown = [name for name, kinds in (("task", tasks), ("length", lengths)) if len(kinds) > 1]
    for column in (*shown, "arm"):
        table.add_column(column, overflow="fold")
    for column in ("tokens", "score", "difference", "n"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in model.rows:
        place = {"task": row.task, "length": "" if row.length is None else f"{row.length:,}"}
        table.add_row(*(Text(place[name]) for name in shown), *_cells(row))
    return table


def _cells(row: Row) -> tuple[str | Text, ...]:
    from ttt_core.evaluation.analysis.digits import difference_with_interval, points

    versus = row.versus
    difference = difference_with_interval(versus) if versus else ""
    return (
        Text(row.arm),
        f"{row.tokens:,.0f}" if row.tokens else "",
        points(row.score, row.questions) if row.questions else "failed",
        difference + (" *" if versus and versus.significant else ""),
        f"{row.questions:,} / {row.documents:,}",
    )
