"""One arm against another as a plain value, corrected for all comparisons of its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ttt_core.config import Settings
from ttt_core.evaluation.analysis import pairing, power, statistics

if TYPE_CHECKING:
    from ttt_core.evaluation.analysis.pairing import Keep
    from ttt_core.evaluation.records import Cell

LEVEL = power.LEVEL


class Versus(Settings):
    """Score less the other's score on the same questions, in units of score."""

    difference: float
    low: float
    high: float
    p_value: float
    """Two-sided, of this comparison alone."""
    p_corrected: float
    """By Holm, over the comparisons of the table."""
    comparisons: int
    """How many those are."""
    test: str
    wins: int
    losses: int
    questions: int
    documents: int
    unpaired: int
    """Documents (at a length) that only one of the two answered; they are not in here."""
    standard_error: float | None
    detectable: float | None
    """True difference that would have been found with 80 % power; None: the variance is not known,
    or there are too few documents for any to be found after correction."""

    @property
    def few(self) -> bool:
        """Whether there are too few documents for evidence."""
        return self.documents < statistics.FEWEST_DOCUMENTS

    @property
    def significant(self) -> bool:
        """Whether the arms differ, after correction, on documents enough."""
        return self.p_corrected < LEVEL and not self.few


def versus(
    arm: str,
    reference: str | None,
    mine: Sequence[Cell],
    theirs: Sequence[Cell],
    keep: Keep | None = None,
) -> Versus | None:
    """Compare with the reference; None for itself, for controls, and where nothing is paired."""
    if arm == reference or pairing.is_control(arm):
        return None
    return between(mine, theirs, keep)


def between(
    mine: Sequence[Cell], theirs: Sequence[Cell], keep: Keep | None = None
) -> Versus | None:
    """Compare two arms, uncorrected; None where nothing is paired."""
    pairs = pairing.pair(mine, theirs, keep)
    if not pairs.strata:
        return None
    found = statistics.compare(pairs.strata)
    error = power.standard_error(pairs.strata)
    return Versus(
        difference=found.difference,
        low=found.low,
        high=found.high,
        p_value=found.p_value,
        p_corrected=found.p_value,
        comparisons=1,
        test=found.test,
        wins=found.wins,
        losses=found.losses,
        questions=found.questions,
        documents=found.documents,
        unpaired=pairs.unpaired,
        standard_error=error,
        detectable=_detectable(error, found.documents, 1),
    )


def correct(table: Sequence[Versus | None]) -> list[Versus | None]:
    """Correct all comparisons of a table together; power is given at the strictest level."""
    there = [one for one in table if one is not None]
    adjusted = iter(statistics.holm([one.p_value for one in there]))
    return [None if one is None else _adjust(one, next(adjusted), len(there)) for one in table]


def _adjust(one: Versus, p_corrected: float, comparisons: int) -> Versus:
    found = _detectable(one.standard_error, one.documents, comparisons)
    return one.model_copy(
        update={"p_corrected": p_corrected, "comparisons": comparisons, "detectable": found}
    )


def _detectable(error: float | None, documents: int, comparisons: int) -> float | None:
    if documents < power.fewest_documents(comparisons):
        return None
    return power.detectable_by(error, documents, alpha=LEVEL / comparisons)
