"""What an adaptation did and why: plain frozen values, stored with the adapter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ttt_core.config import Parametrization, Settings, SupervisionName

Decision = Literal["adapted", "kept_base"]


class LearningRateTrial(Settings):
    """One rung of the learning-rate ladder."""

    learning_rate: float
    steps: int
    gain: float | None
    """Held-out improvement after the trial, nats per token; None: the loss was not finite."""


class ProbeResult(Settings):
    """The paired test on clozes that were never trained on nor used to choose anything."""

    clozes: int
    before: float
    """Mean loss, nats per token, of the base; of the document's adapter, where training for a
    question began with it."""
    after: float
    """Mean loss of the adapted model."""
    right_before: float
    """Share of clozes continued exactly, token for token, by the same model."""
    right_after: float
    """Likewise the adapted model."""
    right_p_value: float
    """One-sided exact sign test on the clozes that changed sides (McNemar)."""
    gain: float
    """Mean paired improvement (before - after)."""
    z: float
    """Gain over its standard error."""
    p_value: float
    """One-sided test of the gain, normal approximation."""


class AdaptationReport(Settings):
    """Everything a person would ask about one adaptation."""

    decision: Decision
    reasons: tuple[str, ...]
    parametrization: Parametrization
    supervision: SupervisionName
    document_tokens: int
    fallback: bool = False
    """Whether the supervision found nothing of its own in the document (no quote, no question worth
    learning), and something simpler was trained on; see there."""
    kept_document: bool = False
    """Whether training for the question was refused, and the adapter is the document's own."""
    steps: int = 0
    """Optimiser steps behind the kept weights."""
    steps_run: int = 0
    """Optimiser steps computed, trials and steps after the best one included."""
    positions: int = 0
    """Tokens computed forward and backward, over all steps run."""
    probed_tokens: int = 0
    """Tokens computed forward only, to judge."""
    losses: tuple[float, ...] = ()
    """Training loss of each step of the chosen run, nats per token."""
    attention: str = ""
    """The attention path that was trained through; see `RuntimeConfig.attention`."""
    activation_bytes: int = 0
    """What a training pass keeps for its backward pass, weights not counted."""
    learning_rate: float | None = None
    trials: tuple[LearningRateTrial, ...] = ()
    probe: ProbeResult | None = None
    drift: float | None = None
    """KL(base || adapted) on generic questions behind the document, nats per token."""
    ending_loss: float | None = None
    """How much less likely answers end as the base's do, nats; see `ttt_core.drift`."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Wall-clock seconds of `prepare`, `tune`, `train` and `probe`."""
    flops: float = 0.0
    """Estimate in the paper's terms; see `ttt_core.flops`."""
    thinking_tokens: int = 0
    """How many thinking tokens the same FLOPs would have bought."""
