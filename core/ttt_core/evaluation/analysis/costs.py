"""What answers cost: FLOPs as counted, seconds as measured; once a document and per question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING

from ttt_core.config import Settings

if TYPE_CHECKING:
    from ttt_core.evaluation.records import Cell, CellTiming

MANY = 10
"""Questions on one document for the amortised figures."""


class Costs(Settings):
    """Of one arm: means over the documents for FLOPs, medians for seconds (None: not measured)."""

    flops_read: float
    """Reading the document, once."""
    flops_adapt: float
    """Everything else that is done once a document."""
    flops_question: float
    """For each question."""
    flops_one: float
    """Reading, adapting and one question."""
    flops_many: float
    """The same with ten questions."""
    seconds_document: float | None
    seconds_question: float | None
    seconds_one: float | None
    seconds_many: float | None
    timed: int
    """Cells behind the seconds."""


def costs(cells: Sequence[Cell], timings: Mapping[str, CellTiming]) -> Costs | None:
    """Sum up what cells cost; None where all of them failed."""
    done = [cell for cell in cells if cell.questions]
    if not done:
        return None
    read = fmean(cell.document_flops.get("read", 0.0) for cell in done)
    once = fmean(cell.flops(0) for cell in done)
    timed = [(c, timings[c.key.digest]) for c in done if c.key.digest in timings]
    document = [sum(t.document_seconds.values()) for _, t in timed]
    question = [_per_question(t) for _, t in timed]
    both = list(zip(document, question, strict=True))
    return Costs(
        flops_read=read,
        flops_adapt=once - read,
        flops_question=fmean(cell.flops(1) - cell.flops(0) for cell in done),
        flops_one=fmean(cell.flops(1) for cell in done),
        flops_many=fmean(cell.flops(MANY) for cell in done),
        seconds_document=_median(document),
        seconds_question=_median(question),
        seconds_one=_median([d + q for d, q in both]),
        seconds_many=_median([d + MANY * q for d, q in both]),
        timed=len(timed),
    )


def _per_question(timing: CellTiming) -> float:
    seconds = list(timing.question_seconds.values())
    return fmean(seconds) if seconds else 0.0


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None
