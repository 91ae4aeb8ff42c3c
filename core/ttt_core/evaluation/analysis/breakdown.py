"""Scores by groups of questions, such as LongBench-v2's domain and difficulty, over all lengths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ttt_core.config import Settings
from ttt_core.evaluation.analysis import pairing, statistics
from ttt_core.evaluation.analysis.comparing import Versus, correct, versus

if TYPE_CHECKING:
    from ttt_core.evaluation.records import Cell, QuestionResult


class GroupRow(Settings):
    """One arm on the questions of one group, over all lengths."""

    task: str
    group: str
    value: str
    arm: str
    score: float
    questions: int
    documents: int
    versus: Versus | None


def break_down(arms: Mapping[str, Sequence[Cell]], reference: str | None) -> tuple[GroupRow, ...]:
    """Sum up each group; a family of comparisons is one group of one task, values and arms."""
    found = {
        (cell.key.task, group, value)
        for cells in arms.values()
        for cell in cells
        for question in cell.questions
        for group, value in question.groups.items()
    }
    rows: list[GroupRow] = []
    for task, group in sorted({(task, group) for task, group, _ in found}):
        values = sorted(value for t, g, value in found if (t, g) == (task, group))
        table = [row for value in values for row in _group(arms, reference, task, group, value)]
        corrected = correct([row.versus for row in table])
        rows += [r.model_copy(update={"versus": v}) for r, v in zip(table, corrected, strict=True)]
    return tuple(rows)


def _group(
    arms: Mapping[str, Sequence[Cell]], reference: str | None, task: str, group: str, value: str
) -> Iterable[GroupRow]:
    def keep(question: QuestionResult) -> bool:
        return question.groups.get(group) == value

    theirs = [cell for cell in arms.get(reference or "", ()) if cell.key.task == task]
    for arm, cells in arms.items():
        mine = [cell for cell in cells if cell.key.task == task]
        values = pairing.scores(mine, keep)
        if values:
            yield GroupRow(
                task=task,
                group=group,
                value=value,
                arm=arm,
                score=statistics.mean(values),
                questions=sum(len(document) for document in values[0]),
                documents=len(values[0]),
                versus=versus(arm, reference, mine, theirs, keep),
            )
