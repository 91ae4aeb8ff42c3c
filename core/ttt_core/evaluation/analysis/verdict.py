"""The sentence at the end: for this model and these documents, adapt, or do not, or who knows.

The rule, fixed before any result was seen:

- Compared are all arms but the controls with the reference (in-context), over all tasks and
  lengths; p-values are corrected by Holm over these arms.
- *adapt*: some adapting arm is above the reference, corrected p < 0.05, on at least six documents.
- *don't adapt*: there are at least six documents, no adapting arm is above, and each of them is
  significantly below the reference or has an interval that ends below `RELEVANT`, two points.
- Where no score was better at all, no resampling can find a gain, so the interval's end says
  nothing. There the most that could be gained takes its place: where none of n documents gains, at
  most 1 - 0.05^(1/n) of all documents do (95 %), by what the reference leaves to gain.
- *not enough evidence*: else; and whenever the arm with learning rate zero answers unlike the
  reference, since then something is broken.
- An arm that does not adapt, and is significantly above the best adapting arm in their own paired
  comparison (Holm over such arms), is named in the same sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from ttt_core.config import Settings
from ttt_core.evaluation.analysis import pairing
from ttt_core.evaluation.analysis.comparing import Versus, between, correct
from ttt_core.evaluation.analysis.digits import counted, difference_with_interval, p_text, share
from ttt_core.evaluation.analysis.statistics import FEWEST_DOCUMENTS, mean

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
    fault: str = ""
    """What shows that no figure can be relied on; empty: nothing."""


def judge(
    model: str,
    arms: Mapping[str, Sequence[Cell]],
    reference: str | None,
    overall: Mapping[str, Versus],
    places: Mapping[str, Sequence[tuple[str, Versus]]],
    *,
    fault: str = "",
) -> Verdict:
    """Apply the rule.

    Args:
        model: Its name, for the sentence.
        arms: All cells of the model by arm.
        reference: The arm that `overall` compares with.
        overall: By arm, over all tasks and lengths, corrected; controls are not among them.
        places: By arm, each task and length in words with its comparison.
        fault: What shows that no figure can be relied on; empty: nothing.
    """
    candidates = {arm: one for arm, one in overall.items() if pairing.adapts(arms[arm])}
    if fault:
        return _none(model, f"{fault}, so no figure here can be relied on", fault=fault)
    if reference is None:
        return _none(model, "no in-context arm to compare with")
    if not candidates:
        return _none(model, "no arm that adapts, or none with answers")
    left = 1 - mean(pairing.scores(arms[reference]))
    decision = _decide(list(candidates.values()), left)
    arm = _best(candidates)
    better = _better(arm, arms, reference)
    lead = f"for {model} and these documents: {decision}"
    sentence = f"{lead} ({_said(arm, candidates[arm], reference)}){_also(better, arm)}."
    return Verdict(
        decision=decision,
        sentence=sentence[0].upper() + sentence[1:],
        reasons=(
            *_why(decision, candidates[arm], left, reference),
            *_unpaired(arm, candidates[arm], reference),
            *_gated(arm, arms[arm]),
            *_picked(arm, candidates),
            *(() if candidates[arm].few else _where(arm, places.get(arm, ()))),
            *_others(candidates, arm),
        ),
        arm=arm,
        better=tuple(better),
    )


def _decide(candidates: Sequence[Versus], left: float) -> Decision:
    if any(one.significant and one.difference > 0 for one in candidates):
        return "adapt"
    if any(one.few for one in candidates):
        return "not enough evidence"
    useless = [one.significant or _most(one, left) < RELEVANT for one in candidates]
    return "don't adapt" if all(useless) else "not enough evidence"


def _most(one: Versus, left: float) -> float:
    """How much could be gained, by the end of the interval or, where nothing was, at most."""
    return one.high if one.wins else (1 - 0.05 ** (1 / one.documents)) * left


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
        if other != reference and not pairing.adapts(arms[other]) and not pairing.is_control(other)
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
        f"p {p_text(one.p_corrected)}, {counted(one.questions, 'question')} on "
        f"{counted(one.documents, 'document')}"
    )


def _also(better: Mapping[str, Versus], arm: str) -> str:
    if not better:
        return ""
    named = [f"{name} ({difference_with_interval(one)} points)" for name, one in better.items()]
    verb = "is" if len(named) == 1 else "are"
    return f"; but without adapting, {' and '.join(named)} {verb} significantly better than {arm}"


def _why(decision: Decision, one: Versus, left: float, reference: str) -> tuple[str, ...]:
    if one.few:
        verb = "is" if one.documents == 1 else "are"
        return (
            f"{counted(one.documents, 'document')} {verb} no evidence; at least "
            f"{FEWEST_DOCUMENTS} are needed.",
        )
    if not left:
        return (
            f"{reference} is right on every question, so nothing is left to gain here; try longer "
            f"documents or harder questions.",
        )
    if not (one.wins or one.significant):
        what = "was better" if one.losses else "differed"
        return (
            f"No score {what} on any of {one.documents:,} documents; that alone leaves room for "
            f"a gain of up to {100 * _most(one, left):.0f} points (95 %).",
        )
    if decision == "not enough evidence" and one.detectable is not None:
        return (
            f"A difference below {100 * one.detectable:.0f} points would probably not have been "
            f"found with {one.documents} documents (80 % power after correction).",
        )
    return ()


def _unpaired(arm: str, one: Versus, reference: str) -> tuple[str, ...]:
    if not one.unpaired:
        return ()
    return (
        f"{one.unpaired:,} documents (each length counted) are left out, since only one of {arm} "
        f"and {reference} answered on them: failures may hide there.",
    )


def _gated(arm: str, cells: Sequence[Cell]) -> tuple[str, ...]:
    adapted = pairing.adapted_share(cells)
    if adapted is None:
        return ()
    kept = {decision for cell in cells for decision in cell.decisions} - {"adapted"}
    before = "what the document alone had taught" if kept == {"kept_document"} else "the base"
    return (f"{arm} decided to adapt in {share(adapted)} of the cases, else it kept {before}.",)


def _picked(arm: str, candidates: Mapping[str, Versus]) -> tuple[str, ...]:
    """Whoever is named for being first has had luck, too, which no correction of p takes away."""
    if len(candidates) < 2 or candidates[arm].difference <= 0:
        return ()
    return (
        f"{arm} was picked as the best of {len(candidates)} arms that adapt, by these scores: its "
        f"p-value is corrected for that, its difference is not and flatters it; other seeds tell.",
    )


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


def _none(model: str, why: str, *, fault: str = "") -> Verdict:
    return Verdict(
        decision="not enough evidence",
        sentence=f"For {model} and these documents: not enough evidence ({why}).",
        reasons=(),
        arm=None,
        better=(),
        fault=fault,
    )
