"""From cells to plain values: scores, differences and costs by task, length and arm, and a verdict.

Everything that is left out of a mean is stated: failed cells, cells that are not there, and pairs
of which one is missing. What the figures mean is in `statistics`; who is compared, in `pairing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from ttt_core.config import Settings
from ttt_core.evaluation.analysis import pairing, statistics
from ttt_core.evaluation.analysis.breakdown import GroupRow, break_down
from ttt_core.evaluation.analysis.comparing import Versus, correct, versus
from ttt_core.evaluation.analysis.costs import Costs, costs
from ttt_core.evaluation.analysis.verdict import Verdict, judge

if TYPE_CHECKING:
    from ttt_core.evaluation.records import Cell, CellTiming


class Row(Settings):
    """One arm on one task at one length, or on all of it where `length` is None."""

    task: str
    length: int | None
    arm: str
    score: float | None
    """Mean over the questions; None: every cell failed."""
    low: float | None
    high: float | None
    chance: float
    above_chance: float | None
    """(score - chance) / (1 - chance); None where chance is certain, or nothing was answered."""
    questions: int
    documents: int
    tokens: float
    """Mean tokens of the documents as the reference arm reads them; its own, without one."""
    fewest_tokens: int
    most_tokens: int
    adapted: float | None
    """Share of decisions to adapt; None: the arm decides nothing."""
    versus: Versus | None
    """Compared with the reference; None: it is the reference, a control, or nothing is paired."""
    costs: Costs | None
    failures: dict[str, int]
    """Failed cells by the error's class."""


class Average(Settings):
    """One arm over tasks: the mean of the tasks' means."""

    arm: str
    score: float | None
    low: float | None
    high: float | None
    tasks: tuple[str, ...]
    questions: int
    documents: int
    versus: Versus | None


class ModelSummary(Settings):
    """Everything about one model."""

    model: str
    reference: str | None
    rows: tuple[Row, ...]
    groups: tuple[GroupRow, ...]
    averages: tuple[Average, ...]
    missing: tuple[str, ...]
    lr_zero: str
    """Whether the arm with learning rate zero answered as the reference; empty: no such arm."""
    verdict: Verdict


class Summary(Settings):
    """Everything about all models; empty where nothing is scored."""

    models: tuple[ModelSummary, ...]


def summarise(cells: Iterable[Cell], timings: Mapping[str, CellTiming] | None = None) -> Summary:
    """Sum up the cells of the `score` split; the same cells give the same values."""
    return Summary(
        models=tuple(
            _model(name, found, timings or {}) for name, found in pairing.by_model(cells).items()
        )
    )


def _model(name: str, cells: Sequence[Cell], timings: Mapping[str, CellTiming]) -> ModelSummary:
    arms = pairing.by_arm(cells)
    reference = pairing.reference_of(arms)
    lr_zero, fault = _lr_zero(arms, reference)
    rows = _rows(arms, reference, timings)
    averages = _averages(arms, reference)
    return ModelSummary(
        model=name,
        reference=reference,
        rows=rows,
        groups=break_down(arms, reference),
        averages=averages,
        missing=pairing.missing(arms),
        lr_zero=lr_zero,
        verdict=judge(
            name,
            arms,
            reference,
            _overall(averages),
            _places(rows),
            fault=lr_zero if fault else "",
        ),
    )


def _overall(averages: Sequence[Average]) -> dict[str, Versus]:
    return {one.arm: one.versus for one in averages if one.versus}


def _places(rows: Sequence[Row]) -> dict[str, list[tuple[str, Versus]]]:
    """Where each arm was compared, in words."""
    places: dict[str, list[tuple[str, Versus]]] = {}
    for row in rows:
        if row.versus:
            name = row.task if row.length is None else f"{row.task} at length {row.length:,}"
            places.setdefault(row.arm, []).append((name, row.versus))
    return places


def _rows(
    arms: Mapping[str, Sequence[Cell]],
    reference: str | None,
    timings: Mapping[str, CellTiming],
) -> tuple[Row, ...]:
    """One family of comparisons a task: all its arms and lengths."""
    rows: list[Row] = []
    places = {(c.key.task, c.key.length) for found in arms.values() for c in found}
    tasks = sorted({task for task, _ in places})
    for task in tasks:
        table = []
        for length in sorted((n for t, n in places if t == task), key=lambda n: n or 0):
            here = {
                arm: [c for c in found if (c.key.task, c.key.length) == (task, length)]
                for arm, found in arms.items()
            }
            table += [
                _row(task, length, arm, reference, found, here.get(reference or "", ()), timings)
                for arm, found in here.items()
                if found
            ]
        corrected = correct([row.versus for row in table])
        rows += [r.model_copy(update={"versus": v}) for r, v in zip(table, corrected, strict=True)]
    return tuple(rows)


def _row(
    task: str,
    length: int | None,
    arm: str,
    reference: str | None,
    cells: Sequence[Cell],
    theirs: Sequence[Cell],
    timings: Mapping[str, CellTiming],
) -> Row:
    answered = [question for cell in cells for question in cell.questions]
    values = pairing.scores(cells)
    score = statistics.mean(values) if answered else None
    low, high = statistics.bootstrap_interval(values) if answered else (None, None)
    chance = fmean(question.chance for question in answered) if answered else 0.0
    above = (score - chance) / (1 - chance) if score is not None and chance < 1 else None
    tokens = [cell.n_tokens for cell in theirs or cells]
    return Row(
        task=task,
        length=length,
        arm=arm,
        score=score,
        low=low,
        high=high,
        chance=chance,
        above_chance=above,
        questions=len(answered),
        documents=sum(map(len, values)),
        tokens=fmean(tokens),
        fewest_tokens=min(tokens),
        most_tokens=max(tokens),
        adapted=pairing.adapted_share(cells),
        versus=versus(arm, reference, cells, theirs),
        costs=costs(cells, timings),
        failures=dict(sorted(Counter(c.failure.kind for c in cells if c.failure).items())),
    )


def _averages(arms: Mapping[str, Sequence[Cell]], reference: str | None) -> tuple[Average, ...]:
    made = []
    theirs = arms.get(reference or "", ())
    corrected = correct([versus(arm, reference, cells, theirs) for arm, cells in arms.items()])
    for (arm, cells), against in zip(arms.items(), corrected, strict=True):
        values = pairing.scores(cells)
        low, high = statistics.bootstrap_interval(values) if values else (None, None)
        made.append(
            Average(
                arm=arm,
                score=statistics.mean(values) if values else None,
                low=low,
                high=high,
                tasks=tuple(sorted({cell.key.task for cell in cells if cell.questions})),
                questions=sum(len(cell.questions) for cell in cells),
                documents=sum(map(len, values)),
                versus=against,
            )
        )
    return tuple(made)


def _lr_zero(arms: Mapping[str, Sequence[Cell]], reference: str | None) -> tuple[str, bool]:
    """Say whether arms with learning rate zero answered as the reference; and if one did not."""
    notes, fault = [], False
    for arm in [arm for arm in arms if pairing.base_name(arm) == "lr-zero" and reference]:
        asked, same = pairing.same_answers(arms[arm], arms[reference or ""])
        if not asked:
            notes.append(f"{arm}: no question was answered by it and by {reference}")
        elif asked == same:
            notes.append(
                f"{arm} answered all {asked:,} questions exactly as {reference}, as it must"
            )
        else:
            fault = True
            differing = f"{asked - same:,} of {asked:,} questions"
            notes.append(f"{arm} answered {differing} unlike {reference}: a fault")
    return "; ".join(notes), fault
