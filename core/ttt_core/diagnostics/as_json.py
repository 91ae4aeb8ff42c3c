"""A diagnosis as JSON: all figures, by layer and head; what is not finite is null."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ttt_core.diagnostics.findings import EPSILONS, findings
from ttt_core.diagnostics.heads import all_heads
from ttt_core.diagnostics.lemmas import demanded_lead, margin_for

if TYPE_CHECKING:
    from ttt_core.diagnostics.diagnosis import Diagnosis
    from ttt_core.diagnostics.dilution import DilutionPoint
    from ttt_core.diagnostics.heads import Head, HeadSide
    from ttt_core.diagnostics.measure import Measurement, Quantity
    from ttt_core.diagnostics.needle import Needle
    from ttt_core.diagnostics.strips import Section

_QUANTITIES: tuple[Quantity, ...] = ("mass", "margin", "lead", "own")


def diagnosis_json(d: Diagnosis) -> dict[str, Any]:
    """Return all that was found; grids are lists of layers, each a list of heads."""
    rivals = d.before.rivals
    return {
        "question": d.question,
        "findings": findings(d),
        "needles": [_needle(needle) for needle in d.needles],
        "needle_tokens": d.n_needle_tokens,
        "true_answer": {
            "text": d.true_answer,
            "given": d.answer_given,
            "tokens": list(d.answer_tokens),
        },
        "attention": {
            "counted": "all keys a query sees: prefix, own tail, sinks",
            "rivals": rivals,
            "demanded_lead": {f"{e:g}": _finite(demanded_lead(rivals, e)) for e in EPSILONS},
            "needed_margin": {f"{e:g}": margin_for(1 - e) for e in EPSILONS},
            "peak_query": d.peak,
            "before": _side(d.before, d.peak),
            "after": None if d.after is None else _side(d.after, d.peak),
        },
        "heads": [_head(head) for head in all_heads(d.before, d.after, d.peak)[:20]],
        "dilution": [_point(point, d.peak) for point in d.dilution],
        "sections": [_section(section) for section in d.strip],
    }


def _needle(needle: Needle) -> dict[str, Any]:
    places = [list(place) for place in needle.places]
    return {"text": needle.text, "guessed": needle.guessed, "places": places}


def _side(side: Measurement, peak: int) -> dict[str, Any]:
    return {
        "loss": side.loss,
        "losses": list(side.losses),
        "likeliest": list(side.likeliest),
        "mass_by_query": _finite(side.by_query().tolist()),
        "mean": {name: _finite(side.grid(name).tolist()) for name in _QUANTITIES},
        "last_before_answer": {name: _finite(side.grid(name, 0).tolist()) for name in _QUANTITIES},
        "peak": {name: _finite(side.grid(name, peak).tolist()) for name in _QUANTITIES},
    }


def _head(head: Head) -> dict[str, Any]:
    after = None if head.after is None else _head_side(head.after)
    return {
        "layer": head.layer,
        "head": head.head,
        "before": _head_side(head.before),
        "after": after,
    }


def _head_side(side: HeadSide) -> dict[str, Any]:
    values = {**vars(side), "rivals_like_the_best": side.like_best}
    return {name: _finite(value) for name, value in values.items()}


def _point(point: DilutionPoint, peak: int) -> dict[str, Any]:
    rivals = point.before.rivals
    return {
        "n_tokens": point.n_tokens,
        "rivals": rivals,
        "demanded_lead": {f"{e:g}": _finite(demanded_lead(rivals, e)) for e in EPSILONS},
        "before": _at_length(point.before, peak),
        "after": None if point.after is None else _at_length(point.after, peak),
    }


def _at_length(side: Measurement, peak: int) -> dict[str, Any]:
    return {
        "loss": side.loss,
        "mass_by_query": _finite(side.by_query().tolist()),
        "peak": {name: _finite(side.grid(name, peak).tolist()) for name in _QUANTITIES},
    }


def _section(section: Section) -> dict[str, Any]:
    return {
        "tokens": [section.start, section.end],
        "before": section.before,
        "after": section.after,
        "recurrent": section.recurrent,
        "is_needle": section.is_needle,
    }


def _finite(value: Any) -> Any:
    """JSON has no infinities."""
    if isinstance(value, Sequence):
        return [_finite(each) for each in value]
    return value if math.isfinite(value) else None
