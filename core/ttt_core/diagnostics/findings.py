"""What was found, in sentences: for the terminal, the page and whoever reads the JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ttt_core.diagnostics.heads import all_heads
from ttt_core.diagnostics.lemmas import demanded_lead

if TYPE_CHECKING:
    from ttt_core.diagnostics.diagnosis import Diagnosis
    from ttt_core.diagnostics.heads import Head
    from ttt_core.diagnostics.measure import Measurement

EPSILONS = (0.5, 0.1)
"""Shares that the rivals may keep: the needle has at least half, or at least nine tenths."""


def findings(diagnosis: Diagnosis) -> list[str]:
    """Return some plain sentences, the most important first."""
    return [
        *_needle(diagnosis),
        *_answers(diagnosis),
        *_masses(diagnosis),
        *_leads(diagnosis),
        *_dilution(diagnosis),
    ]


def _needle(d: Diagnosis) -> Iterator[str]:
    places = _places(d)
    if d.guessed:
        yield (
            f"The needle is a guess: the {places:,} places that share most words with the question "
            f"(BM25). Name it with --needle to be sure."
        )
    elif places > len(d.needles):
        yield (
            f"The needle stands in {places:,} places of the document; all of them count as needle."
        )
    if d.after is None:
        yield "There is no adapter, so there is no after: the base model answers."


def _answers(d: Diagnosis) -> Iterator[str]:
    if not d.true_answer:
        yield (
            "The true answer is not known, so only the last token before the answer was looked at; "
            "give it with --answer."
        )
        return
    given = "" if d.answer_given else " (the model's own, which the needle holds)"
    before = d.before.loss
    assert before is not None
    if d.after is None or d.after.loss is None:
        yield f"The true answer{given} costs {before:.3f} nats per token."
        return
    yield (
        f"The true answer{given} costs {before:.3f} nats per token before adapting and "
        f"{d.after.loss:.3f} after."
    )


def _masses(d: Diagnosis) -> Iterator[str]:
    heads = all_heads(d.before, d.after, d.peak)
    top = heads[0]
    where = f"At {query_name(d)}, the needle's mean mass over all heads is"
    before = float(d.before.by_query()[d.peak])
    if d.after is None:
        yield f"{where} {before:.1%}; {_name(top.layer, top.head)} gives it {top.before.mass:.1%}."
        return
    after = float(d.after.by_query()[d.peak])
    half = [sum(side >= 0.5 for side in sides) for sides in zip(*_pairs(d), strict=True)]
    yield f"{where} {before:.1%} before and {after:.1%} after."
    assert top.after is not None
    yield (
        f"{_name(top.layer, top.head).capitalize()} looks at it most: {top.before.mass:.1%} before "
        f"and {top.after.mass:.1%} after. Of {len(heads):,} heads, {half[0]:,} before and "
        f"{half[1]:,} after give it at least half."
    )
    moved = max(heads, key=lambda head: abs(head.gain))
    yield (
        f"Adapting changed {_name(moved.layer, moved.head)} most: {moved.gain * 100:+.1f} points "
        f"of its mass."
    )


def _leads(d: Diagnosis) -> Iterator[str]:
    top = all_heads(d.before, d.after, d.peak)[0]
    rivals = d.before.rivals
    demands = " and ".join(
        f"{demanded_lead(rivals, epsilon):.1f} for {1 - epsilon:.0%}" for epsilon in EPSILONS
    )
    yield (
        f"Should all {rivals:,} rivals score alike, a lead of so many nats would be enough: "
        f"{demands} of the mass. {_name(top.layer, top.head).capitalize()} {_lead(top)}."
    )


def _lead(head: Head) -> str:
    """Say what a head leads by, and over how many."""
    text = (
        f"leads by {head.before.lead:+.1f}, over what weighs as much as "
        f"{head.before.like_best:,.1f} rivals like the best one"
    )
    if head.after is None:
        return text
    return f"{text}, before, and by {head.after.lead:+.1f} over {head.after.like_best:,.1f} after"


def _dilution(d: Diagnosis) -> Iterator[str]:
    if not d.dilution:
        return
    first, last = d.dilution[0], d.dilution[-1]

    def mass(measurement: Measurement) -> float:
        return float(measurement.by_query()[d.peak])

    text = (
        f"From {first.n_tokens:,} to {last.n_tokens:,} tokens the mean mass goes from "
        f"{mass(first.before):.1%} to {mass(last.before):.1%} with the base model"
    )
    if first.after is not None and last.after is not None:
        text += (
            f", and from {mass(first.after):.1%} to {mass(last.after):.1%} with the whole "
            f"document's adapter"
        )
    yield f"{text}."
    if _places(d) > len(d.needles):
        yield (
            "The shorter pieces are cut around the needle's first place, and may hold no other: "
            "part of what they differ by is how often it stands there."
        )


def _places(d: Diagnosis) -> int:
    return sum(len(needle.places) for needle in d.needles)


def _pairs(d: Diagnosis) -> Iterator[tuple[float, float]]:
    for head in all_heads(d.before, d.after, d.peak):
        yield head.before.mass, head.after.mass if head.after else 0.0


def _name(layer: int, head: int) -> str:
    return f"head {head} of layer {layer}"


def query_name(d: Diagnosis) -> str:
    """Say which query the peak is."""
    if d.peak == 0:
        return "the last token before the answer"
    return f"the token that predicts token {d.peak + 1} of the answer's {len(d.answer_tokens)}"
