"""What a verdict means in plain words, what it costs, and what to do next.

For whoever reads nothing else: no statistics, no names of methods without a word on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ttt_core.evaluation.analysis.comparing import Versus
from ttt_core.evaluation.analysis.costs import MANY
from ttt_core.evaluation.analysis.digits import (
    amount,
    counted,
    difference_with_interval,
    points,
)
from ttt_core.evaluation.analysis.power import fewest_documents
from ttt_core.evaluation.analysis.verdict import RELEVANT

if TYPE_CHECKING:
    from ttt_core.evaluation.analysis.summary import Average, ModelSummary

WORTH_NAMING = 0.5
"""Share of the gain from adapting at which a cheaper arm is named beside it."""
_MOST_DOCUMENTS = 5_000
"""Beyond this nobody would measure, so no number is promised."""


def advise(model: ModelSummary) -> tuple[str, ...]:
    """Return sentences: what went wrong, the result in plain words, alternatives, and the next
    step."""
    return tuple(_sentences(model))


def _sentences(model: ModelSummary) -> Iterator[str]:
    silent = sorted({row.arm for row in model.rows if row.score is None})
    if silent:
        yield f"On some task or length, {', '.join(silent)} has no answer at all: see the failures."
    if model.verdict.fault:
        yield (
            "Next: please report this as a bug, with the folder of results. Binding an adapter "
            "that learned nothing must not change an answer."
        )
        return
    best = next((one for one in model.averages if one.arm == model.verdict.arm), None)
    if best is None or best.versus is None:
        if model.reference is None:
            yield "Next: let the model answer without adapting, too (--arm in-context)."
        elif not silent:
            yield "Next: let an arm that adapts answer, too (--arm qttt)."
        return
    yield _plainly(model, best, best.versus)
    yield from _alternatives(model, best, best.versus)
    yield _next(model, best.arm, best.versus)


def _plainly(model: ModelSummary, best: Average, one: Versus) -> str:
    arm, n = best.arm, max(one.questions, 1)
    base = next(a.score for a in model.averages if a.arm == model.reference)
    both = ""
    if not one.unpaired and best.score is not None and base is not None:
        both = f": {points(best.score, n)} points of 100 with it, {points(base, n)} without"
    if model.verdict.decision == "adapt":
        times = _times(model, arm, model.reference or "")
        cost = f", for {amount(times)} times the compute ({_AT})" if times else ""
        return f"In plain words: adapting ({arm}) helps{both}{cost}."
    if model.verdict.decision == "don't adapt":
        return f"In plain words: adapting ({arm}) brings nothing worth having here{both}."
    if not (one.wins or one.losses):
        return (
            f"In plain words: adapting ({arm}) changed no score, but these are too few documents "
            f"to tell that it never would."
        )
    return f"In plain words: this cannot tell whether adapting ({arm}) helps{_doubt(one)}."


def _doubt(one: Versus) -> str:
    """Why nothing is said, with an interval only where it is worth something."""
    if one.documents < fewest_documents(one.comparisons):
        return f": {counted(one.documents, 'document')} cannot show it"
    if not one.wins or one.low > 0 or one.high < 0:
        return f": what was seen, {difference_with_interval(one)} points, may still be chance"
    n = max(one.questions, 1)
    return (
        f"; its effect may be anything from {points(one.low, n)} to {points(one.high, n)} points "
        f"of 100"
    )


_AT = f"one document and {MANY} questions"


def _alternatives(model: ModelSummary, best: Average, one: Versus) -> Iterator[str]:
    """Name arms that, without adapting, get much of what it gets, or help where it does not."""
    for other in _not_adapting(model):
        against = other.versus
        if against is None or against.difference <= 0:
            continue
        if model.verdict.decision != "adapt":
            if not against.significant:
                continue
            times = _times(model, other.arm, model.reference or "")
            cost = f", for {amount(times)} times the compute ({_AT})" if times else ""
            yield (
                f"What does help, without adapting: {other.arm}, "
                f"{difference_with_interval(against)} points{cost}."
            )
            continue
        times = _times(model, other.arm, best.arm)
        if times and times < 1 and against.difference >= WORTH_NAMING * one.difference:
            yield (
                f"Weigh it against {other.arm}, which does not adapt: "
                f"{difference_with_interval(against)} points where {best.arm} has "
                f"{difference_with_interval(one)}, for {amount(times)} times its compute ({_AT})."
            )


def _not_adapting(model: ModelSummary) -> list[Average]:
    adapting = {row.arm for row in model.rows if row.adapted is not None}
    return [one for one in model.averages if one.arm not in adapting]


def _times(model: ModelSummary, arm: str, other: str) -> float | None:
    """FLOPs of an arm over those of another, on the tasks and lengths that both have."""
    mine, theirs = (
        {(r.task, r.length): r.costs.flops_many for r in model.rows if r.arm == name and r.costs}
        for name in (arm, other)
    )
    shared = mine.keys() & theirs.keys()
    below = math.fsum(theirs[place] for place in shared)
    return math.fsum(mine[place] for place in shared) / below if below else None


def _next(model: ModelSummary, arm: str, one: Versus) -> str:
    if model.verdict.decision == "adapt":
        options = f" with the options of {arm}" if ":" in arm else ""
        return (
            f"Next: adapt to documents like these (ttt ask, ttt adapt){options}; of other "
            f"documents, questions or models this says nothing."
        )
    if model.verdict.decision == "don't adapt":
        return (
            "Next: ask about documents like these without adapting (ttt ask --no-adapt); of other "
            "documents, questions or models this says nothing."
        )
    if any(a.arm == model.reference and a.score == 1 for a in model.averages):
        return (
            f"Next: longer documents or harder questions; {model.reference} answers all of these "
            f"rightly, so nothing is left to gain."
        )
    fewest = fewest_documents(one.comparisons)
    if one.documents < fewest:
        arms = "1 arm is" if one.comparisons == 1 else f"{one.comparisons} arms are"
        return (
            f"Next: more documents (--seeds, --examples). With {one.documents:,} no result can be "
            f"significant when {arms} compared; it takes {fewest} at least, and more for a small "
            f"effect."
        )
    needed = _needed(one)
    effect = "as seen" if abs(one.difference) > RELEVANT else f"of {100 * RELEVANT:.0f} points"
    about = f": about {needed:,} would do for an effect {effect}" if needed else ""
    return f"Next: more documents (--seeds, --examples){about}; or fewer arms, or longer documents."


def _needed(one: Versus) -> int | None:
    """Documents at which the difference that was seen would probably be found, in two digits."""
    if not one.detectable:
        return None
    effect = max(abs(one.difference), RELEVANT)
    count = max(one.documents + 1, one.documents * (one.detectable / effect) ** 2)
    digits = 1 - math.floor(math.log10(count))
    return int(round(count, digits)) if count <= _MOST_DOCUMENTS else None
