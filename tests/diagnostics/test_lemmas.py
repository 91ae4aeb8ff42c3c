"""The paper's lemmas, checked on hand-made attention."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.diagnostics.lemmas import (
    demanded_lead,
    log_mass_gain,
    margin_for,
    margin_gain,
    mass_of,
    most_mass,
    query_gradient,
)
from ttt_core.errors import ConfigError

SCORES = st.lists(st.floats(-8, 8), min_size=2, max_size=40)
MASSES = st.floats(0.01, 0.99)
FEW = settings(max_examples=60)


def attention(scores: list[float]) -> tuple[float, float, float]:
    """Mass, margin over all rivals and lead over the best one; the first key is the needle."""
    z = torch.tensor(scores, dtype=torch.float64)
    mass = z.softmax(0)[0].item()
    return mass, (z[0] - z[1:].logsumexp(0)).item(), (z[0] - z[1:].max()).item()


def drawn(seed: int, n_keys: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(8, generator=generator, dtype=torch.float64)
    keys = torch.randn(n_keys, 8, generator=generator, dtype=torch.float64)
    return query, keys, 8**-0.5


def test_figures_by_hand() -> None:
    """log(0.8 / 0.2) = log 4; 99 rivals and mass 0.9 need log(99 * 0.9 / 0.1) = log 891.

    Four rivals no more than log 2 below leave at most 1 / (1 + 4 / 2) = 1/3.
    """
    assert margin_for(0.8) == pytest.approx(math.log(4))
    assert demanded_lead(99, 0.1) == pytest.approx(math.log(891))
    assert most_mass(4, math.log(2)) == pytest.approx(1 / 3)
    assert most_mass(0, 0.0) == 1.0
    assert demanded_lead(0, 0.1) == -math.inf
    assert (mass_of(1000.0), mass_of(-1000.0)) == (1.0, 0.0)


@pytest.mark.parametrize("mass", [0.0, 1.0, -0.5, math.nan])
def test_masses_that_cannot_be_are_refused(mass: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        margin_for(mass)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        demanded_lead(10, mass)


@FEW
@given(SCORES, MASSES)
def test_retrieval_succeeds_exactly_where_the_margin_is_reached(
    scores: list[float], tau: float
) -> None:
    """Definition 2.1: both sides are the same condition."""
    mass, margin, _ = attention(scores)
    assert mass_of(margin) == pytest.approx(mass, rel=1e-9)
    assert margin_for(mass_of(margin_for(tau))) == pytest.approx(margin_for(tau))
    if abs(mass - tau) > 1e-9:
        assert (mass >= tau) == (margin >= margin_for(tau))


@FEW
@given(SCORES, st.floats(0, 6))
def test_close_rivals_dilute(scores: list[float], gap: float) -> None:
    """Lemma 2.2: whatever the other keys score, the bound holds."""
    mass, _, _ = attention(scores)
    close = sum(score >= scores[0] - gap for score in scores[1:])
    assert mass <= most_mass(close, gap) + 1e-12


@FEW
@given(st.integers(1, 200), st.floats(0, 6))
def test_the_dilution_bound_is_reached_by_rivals_exactly_at_the_gap(m: int, gap: float) -> None:
    mass, _, _ = attention([gap, *[0.0] * m])
    assert mass == pytest.approx(most_mass(m, gap), rel=1e-9)


def test_dilution_sends_the_mass_to_nothing_as_the_document_grows() -> None:
    """m = T/2 rivals at a gap that stays the same."""
    masses = [most_mass(length // 2, 3.0) for length in (64, 1024, 16384, 262144)]
    assert masses == sorted(masses, reverse=True)
    assert masses[-1] < 2e-4


@FEW
@given(SCORES, MASSES)
def test_the_demanded_lead_is_enough(scores: list[float], epsilon: float) -> None:
    """Lemma 2.3: raise the needle to the demanded lead and it has its mass."""
    rivals = scores[1:]
    needle = max(rivals) + demanded_lead(len(rivals), epsilon)
    mass, _, _ = attention([needle, *rivals])
    assert mass >= 1 - epsilon - 1e-12


@FEW
@given(st.integers(1, 500), MASSES)
def test_no_smaller_lead_is_enough_where_all_rivals_score_alike(n: int, epsilon: float) -> None:
    lead = demanded_lead(n, epsilon)
    assert attention([lead, *[0.0] * n])[0] == pytest.approx(1 - epsilon, rel=1e-9)
    assert attention([lead - 0.01, *[0.0] * n])[0] < 1 - epsilon


@FEW
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_the_gradient_is_autograds(seed: int, n_keys: int) -> None:
    """Proposition 3.1."""
    query, keys, scale = drawn(seed, n_keys)
    query.requires_grad_()
    (-(scale * keys @ query).log_softmax(0)[0]).backward()
    assert query.grad is not None
    torch.testing.assert_close(query_gradient(query.detach(), keys, 0, scale), query.grad)


@FEW
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_descent_raises_mass_and_margin_by_what_is_foretold(seed: int, n_keys: int) -> None:
    """Lemma 3.2, to first order: at rate r the error is O(r^2), so it falls by r against r."""
    query, keys, scale = drawn(seed, n_keys)
    gradient, rate = query_gradient(query, keys, 0, scale), 1e-5

    def state(q: torch.Tensor) -> tuple[float, float]:
        z = scale * keys @ q
        return z.log_softmax(0)[0].item(), (z[0] - z[1:].logsumexp(0)).item()

    before, after = state(query), state(query - rate * gradient)
    foretold = (
        log_mass_gain(query, keys, 0, scale, rate),
        margin_gain(query, keys, 0, scale, rate),
    )
    for was, now, expected in zip(before, after, foretold, strict=True):
        assert now - was == pytest.approx(expected, rel=1e-3, abs=1e-12)
    assert foretold[1] >= foretold[0] > 0
