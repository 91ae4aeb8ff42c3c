"""The sentence at the end: for this model and these documents, adapt, or do not, or who knows.

The rule, fixed before any result was seen:

- Compared are all arms but the controls with the reference (in-context), over all tasks and
  lengths; p-values are corrected by Holm over these arms.
- *adapt*: some adapting arm is above the reference, corrected p < 0.05, on at least six documents.
- *don't adapt*: there are at least six documents, no adapting arm is above, and each of them is
  significantly below the reference or has an interval that ends below `RELEVANT`, two points.
- *not enough evidence*: else.
- An arm that does not adapt, and is significantly above the best adapting arm in their own paired
  comparison (Holm over such arms), is named in the same sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from ttt_core.config import Settings
from ttt_core.evaluation import pairing
from ttt_core.evaluation.comparing import Versus, between, correct
from ttt_core.evaluation.digits import difference_with_interval, p_text, share
from ttt_core.evaluation.statistics import FEWEST_DOCUMENTS

if TYPE_CHECKING:
    from ttt_core.evaluation.records import Cell

RELEVANT = 0.02
"""A gain in score below which adapting is not worth its trouble."""

Decision = Literal["adapt", "don't adapt", "not enough evidence"]


class Verdict(Settings):
    """What follows from the results for one model."""

    decision: Decision
    sentence: str
    reasons: tuple[str, ...]
    arm: str | None
    """The adapting arm that it is about: the best one."""
    better: tuple[str, ...]
    """Arms that do not adapt and are significantly better than it."""


def judge(
    model: str,
    arms: Mapping[str, Sequence[Cell]],
    reference: str | None,
    overall: Mapping[str, Versus],
    places: Mapping[str, Sequence[tuple[str, Versus]]],
) -> Verdict:
    """Apply the rule.

    Args:
        model: Its name, for the sentence.
        arms: All cells of the model by arm.
        reference: The arm that `overall` compares with.
        overall: By arm, over all tasks and lengths, corrected; controls are not among them.
        places: By arm, each task and length in words with its comparison.
    """
    candidates = {arm: one for arm, one in overall.items() if pairing.adapts(arm)}
    if not candidates or reference is None:
        return _none(model, reference)
    decision = _decide(list(candidates.values()))
    arm = _best(candidates)
    better = _better(arm, arms, reference)
    lead = f"for {model} and these documents: {decision}"
    sentence = f"{lead} ({_said(arm, candidates[arm], reference)}){_also(better, arm)}."
    return Verdict(
        decision=decision,
        sentence=sentence[0].upper() + sentence[1:],
        reasons=(
            *_why(decision, candidates[arm]),
            *_gated(arm, arms[arm]),
            *(() if candidates[arm].few else _where(arm, places.get(arm, ()))),
            *_others(candidates, arm),
        ),
        arm=arm,
        better=tuple(better),
    )


def _decide(candidates: Sequence[Versus]) -> Decision:
    if any(one.significant and one.difference > 0 for one in candidates):
        return "adapt"
    if any(one.few for one in candidates):
        return "not enough evidence"
    useless = [one.significant or one.high < RELEVANT for one in candidates]
    return "don't adapt" if all(useless) else "not enough evidence"


def _best(candidates: Mapping[str, Versus]) -> str:
    """The largest difference, significant ones first; of equals the first name."""
    return max(
        sorted(candidates),
        key=lambda arm: (
            candidates[arm].significant and candidates[arm].difference > 0,
            candidates[arm].difference,
        ),
    )


def _better(arm: str, arms: Mapping[str, Sequence[Cell]], reference: str) -> dict[str, Versus]:
    """Arms that neither adapt nor only check, and are significantly above `arm`."""
    names = [
        other
        for other in arms
        if other != reference and not pairing.adapts(other) and not pairing.is_control(other)
    ]
    found = correct([between(arms[other], arms[arm]) for other in names])
    return {
        name: one
        for name, one in zip(names, found, strict=True)
        if one and one.significant and one.difference > 0
    }


def _said(arm: str, one: Versus, reference: str) -> str:
    return (
        f"{arm} against {reference}: {difference_with_interval(one)} points, "
        f"p {p_text(one.p_corrected)}, {one.questions:,} questions on {one.documents:,} documents"
    )


def _also(better: Mapping[str, Versus], arm: str) -> str:
    if not better:
        return ""
    named = [f"{name} ({difference_with_interval(one)} points)" for name, one in better.items()]
    verb = "is" if len(named) == 1 else "are"
    return f"; but without adapting, {' and '.join(named)} {verb} significantly better than {arm}"


def _why(decision: Decision, one: Versus) -> tuple[str, ...]:
    if one.few:
        return (
            f"{one.documents} documents are no evidence; at least {FEWEST_DOCUMENTS} are needed.",
        )
    if decision == "not enough evidence" and one.detectable is not None:
        return (
            f"A difference below {100 * one.detectable:.0f} points would probably not have been "
            f"found with {one.documents} documents (80 % power after correction).",
        )
    return ()


def _gated(arm: str, cells: Sequence[Cell]) -> tuple[str, ...]:
    adapted = pairing.adapted_share(cells)
    if adapted is None:
        return ()
    return (f"{arm} decided to adapt in {share(adapted)} of the cases, else it kept the base.",)


def _where(arm: str, places: Sequence[tuple[str, Versus]]) -> tuple[str, ...]:
    notes = []
    for word, sign in (("better", 1), ("worse", -1)):
        found = [name for name, one in places if one.significant and one.difference * sign > 0]
        named = ", ".join(found) if found else "nowhere taken alone"
        notes.append(f"{arm} is significantly {word} on: {named}.")
    return tuple(notes)


def _others(candidates: Mapping[str, Versus], best: str) -> tuple[str, ...]:
    return tuple(
        f"{arm}: {difference_with_interval(one)} points, p {p_text(one.p_corrected)}."
        for arm, one in candidates.items()
        if arm != best
    )


def _none(model: str, reference: str | None) -> Verdict:
    missing = "no in-context arm to compare with" if reference is None else "no arm that adapts"
    return Verdict(
        decision="not enough evidence",
        sentence=f"For {model} and these documents: not enough evidence ({missing}).",
        reasons=(),
        arm=None,
        better=(),
    )
