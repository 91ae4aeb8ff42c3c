"""The gate: whether what was learned is used, and the sentences that say why.

A document's adapter must show a gain on clozes that were held out. What is learned for a question
cannot be judged so: no cloze asks it. There the clozes guard against harm only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ttt_core.config import AdaptationConfig
from ttt_core.report import ProbeResult


class Measured(NamedTuple):
    """What an adapter did.

    Attributes:
        probe: The held-out clozes before and after; None: there are too few.
        drift: Divergence from the base on generic questions, nats per token.
        ending_loss: See `ttt_core.drift`, nats; None: there are no quotes.
        fewer_right: p-value of continuing fewer of the clozes exactly than before.
    """

    probe: ProbeResult | None
    drift: float
    ending_loss: float | None
    fewer_right: float = 1.0


class Verdict(NamedTuple):
    """Whether to use what was learned, and why."""

    adopt: bool
    reasons: tuple[str, ...]


def judge(config: AdaptationConfig, measured: Measured, *, for_question: bool = False) -> Verdict:
    """Judge what was learned on a document.

    Args:
        config: Levels and limits.
        measured: What it did.
        for_question: It was learned for one question.
    """
    if not config.gate:
        return Verdict(True, ("the gate is off (gate=False)",))
    shown = _harmless(config, measured) if for_question else _gained(config, measured.probe)
    if not shown.adopt:
        return shown
    limits = tuple(_exceeded(config, measured))
    return Verdict(not limits, (*shown.reasons, *limits))


def _gained(config: AdaptationConfig, probe: ProbeResult | None) -> Verdict:
    """A document's adapter: less loss, and more clozes continued exactly."""
    assert probe is not None
    gain, right = _loss(probe), _exact(probe)
    level = f"not significant at {config.significance:g}"
    # "not <" and not ">=": a comparison with NaN must never adapt.
    if not probe.p_value < config.significance:
        return Verdict(False, (gain, level))
    if not probe.right_p_value < config.significance:
        return Verdict(False, (gain, right, f"exact continuations: {level}"))
    return Verdict(True, (gain, right))


def _harmless(config: AdaptationConfig, measured: Measured) -> Verdict:
    """A question's adapter: not significantly more loss, nor fewer clozes continued exactly."""
    probe = measured.probe
    if probe is None:
        return Verdict(True, ("too few held-out clozes to look for harm",))
    gain = _loss(probe)
    # One-sided the other way: the share of chance results that would be at least as bad.
    if not 1 - probe.p_value >= config.significance:
        return Verdict(False, (gain, f"significantly worse at {config.significance:g}"))
    if not measured.fewer_right >= config.significance:
        fewer = (
            f"continued exactly: {probe.right_before:.0%} before, {probe.right_after:.0%} after, "
            f"significantly fewer at {config.significance:g}"
        )
        return Verdict(False, (gain, fewer))
    return Verdict(True, (gain, "no significant harm to held-out clozes"))


def _exceeded(config: AdaptationConfig, measured: Measured) -> Iterator[str]:
    """Say which limits are exceeded."""
    drift, ending = measured.drift, measured.ending_loss
    if not drift <= config.max_drift:
        yield f"drift {drift:.2f} nats per token is above max_drift={config.max_drift:g}"
    if ending is not None and not ending <= config.max_ending_loss:
        yield (
            f"answers would not end as they did: ending loss {ending:.2f} nats is above "
            f"max_ending_loss={config.max_ending_loss:g}"
        )


def _loss(probe: ProbeResult) -> str:
    return (
        f"held-out gain {probe.gain:+.3f} nats per token on {probe.clozes} clozes, "
        f"p = {probe.p_value:.3g}"
    )


def _exact(probe: ProbeResult) -> str:
    return (
        f"continued exactly: {probe.right_before:.0%} before, {probe.right_after:.0%} after, "
        f"p = {probe.right_p_value:.3g}"
    )
