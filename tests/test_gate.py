"""The gate: a document's adapter must have gained, a question's must do no harm."""

from __future__ import annotations

import math
from statistics import NormalDist, mean, stdev

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ttt_core import AdaptationConfig
from ttt_core.gate import Measured, Verdict, judge
from ttt_core.probe import ClozeScores, more_right, paired_test
from ttt_core.report import ProbeResult

CONFIG = AdaptationConfig()


def judged(
    probe: ProbeResult | None,
    drift: float,
    ending: float | None = 0.0,
    *,
    for_question: bool = False,
) -> Verdict:
    return judge(CONFIG, Measured(probe, drift, ending), for_question=for_question)


def probe(p_value: float, right_p_value: float = 0.001) -> ProbeResult:
    return ProbeResult(
        clozes=96, before=2.0, after=1.0, right_before=0.5, right_after=0.8,
        right_p_value=right_p_value, gain=1.0, z=3.0, p_value=p_value,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("p_value", "right_p_value", "drift", "adopt"),
    [
        (0.01, 0.01, 0.1, True),
        (0.05, 0.01, 0.1, False),
        (0.01, 0.05, 0.1, False),
        (0.01, 0.01, 2.1, False),
        (math.nan, 0.01, 0.1, False),
        (0.01, math.nan, 0.1, False),
        (0.01, 0.01, math.nan, False),
    ],
)
def test_a_document_must_gain_in_loss_and_in_exact_answers_and_not_drift(
    p_value: float, right_p_value: float, drift: float, adopt: bool
) -> None:
    assert judged(probe(p_value, right_p_value), drift).adopt is adopt


@pytest.mark.parametrize(
    ("p_value", "drift", "adopt"),
    [
        (0.5, 0.1, True),
        (0.95, 0.1, True),
        (0.951, 0.1, False),
        (0.5, 2.1, False),
        (math.nan, 0.1, False),
        (0.5, math.nan, False),
    ],
)
def test_a_question_must_do_no_harm(p_value: float, drift: float, adopt: bool) -> None:
    assert judged(probe(p_value), drift, for_question=True).adopt is adopt


@given(
    seed=st.integers(0, 999),
    size=st.integers(2, 96),
    shift=st.floats(-2, 2),
    flipped=st.floats(0, 1),
    for_question=st.booleans(),
)
def test_nothing_significantly_worse_is_adopted(
    seed: int, size: int, shift: float, flipped: float, for_question: bool
) -> None:
    """Neither by its losses nor by what it continues exactly, whatever the other says."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> torch.Tensor:
        return torch.rand(size, generator=generator)

    before = ClozeScores(draw() + 2, (draw() < 0.5).float())
    right = torch.where(draw() < flipped, torch.zeros(size), before.right)
    after = ClozeScores(before.losses + shift * draw(), right)
    result, fewer = paired_test(before, after), more_right(after, before)
    verdict = judge(CONFIG, Measured(result, 0.0, 0.0, fewer), for_question=for_question)
    costs = (after.losses - before.losses).tolist()
    error = stdev(costs) / math.sqrt(size)
    alike = 0.0 if mean(costs) > 0 else 0.5
    worse = 1 - NormalDist().cdf(mean(costs) / error) if error else alike
    unlearned = 0.5 ** int((after.right < before.right).sum())  # None is gained.
    harmful = min(worse, unlearned) < CONFIG.significance
    if harmful:
        assert not verdict.adopt
    elif for_question:
        assert verdict.adopt


def test_a_question_must_not_cost_exact_answers_though_the_loss_falls() -> None:
    """A flatter model loses less where it is wrong, and is right less often."""
    gained = Measured(probe(0.001, right_p_value=1.0), 0.0, 0.0, fewer_right=0.01)
    verdict = judge(CONFIG, gained, for_question=True)
    assert not verdict.adopt
    assert verdict.reasons[-1].endswith("significantly fewer at 0.05")
    unknown = gained._replace(fewer_right=math.nan)
    assert not judge(CONFIG, unknown, for_question=True).adopt


def test_without_clozes_a_question_is_judged_by_its_drift() -> None:
    assert judged(None, 0.1, for_question=True).adopt
    assert not judged(None, 3.0, for_question=True).adopt


@pytest.mark.parametrize("for_question", [False, True])
def test_an_open_gate_adopts_anything(for_question: bool) -> None:
    opened = AdaptationConfig(gate=False)
    verdict = judge(opened, Measured(None, math.nan, math.nan), for_question=for_question)
    assert verdict.adopt
    assert verdict.reasons == ("the gate is off (gate=False)",)


@pytest.mark.parametrize("for_question", [False, True])
@pytest.mark.parametrize(
    ("ending", "adopt"),
    [(None, True), (-3.0, True), (0.25, True), (0.26, False), (math.nan, False)],
)
def test_answers_must_end_as_they_did(
    ending: float | None, adopt: bool, for_question: bool
) -> None:
    verdict = judged(probe(0.01), 0.1, ending, for_question=for_question)
    assert verdict.adopt is adopt
    assert ("answers would not end" in verdict.reasons[-1]) is not adopt
