"""Figures as text: no more digits than they are worth, and no zero that is none."""

from __future__ import annotations

import pytest

from ttt_core.evaluation.analysis.comparing import Versus
from ttt_core.evaluation.analysis.digits import (
    MINUS,
    NONE,
    amount,
    difference_with_interval,
    p_text,
    points,
    share,
    signed_points,
)


@pytest.mark.parametrize(
    ("value", "questions", "text"),
    [
        (0.87046, 21, "87"),  # Half a point over the root of 21 is 11 points.
        (0.87046, 2500, "87"),  # One point: not below it.
        (0.87046, 2501, "87.0"),
        (-0.0349, 21, f"{MINUS}3"),  # Below chance, say.
        (-0.0004, 21, "0"),
        (None, 5, NONE),
    ],
)
def test_scores_have_the_digits_of_their_number(
    value: float | None, questions: int, text: str
) -> None:
    assert points(value, questions) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.0349, 0.02, "+3"),
        (0.0349, 0.009, "+3.5"),
        (-0.0349, 0.02, f"{MINUS}3"),
        (-0.004, 0.02, "0"),
        (0.0004, 0.001, "0.0"),
        (0.034, None, "+3"),
        (0.034, 0.0, "+3"),
    ],
)
def test_differences_have_the_digits_of_their_error(
    value: float, error: float | None, text: str
) -> None:
    assert signed_points(value, error) == text


def test_interval_and_estimate_have_the_same_digits() -> None:
    one = Versus(
        difference=0.0349,
        low=-0.0051,
        high=0.07,
        p_value=0.1,
        p_corrected=0.1,
        comparisons=1,
        test="sign",
        wins=1,
        losses=0,
        questions=9,
        documents=9,
        unpaired=0,
        standard_error=0.005,
        detectable=None,
    )
    assert difference_with_interval(one) == f"+3.5 [{MINUS}0.5, +7.0]"


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0, "< 0.001"), (0.00099, "< 0.001"), (0.001, "= 0.0010"), (0.0312, "= 0.031"),
     (0.25, "= 0.25"), (0.99, "= 0.99"), (0.999, "= 1"), (1.0, "= 1")],
)  # fmt: skip
def test_p_is_never_zero(p: float, text: str) -> None:
    assert p_text(p) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, NONE), (0.0, "0"), (3.14159e12, "3.1e12"), (0.1234, "0.12"), (12.34, "12"),
     (1234.5, "1,234"), (0.0001234, "1.2e-4"), (9999.6, "10,000"), (0.999, "1.0")],
)  # fmt: skip
def test_amounts_have_two_digits(value: float | None, text: str) -> None:
    assert amount(value) == text


def test_shares_are_percentages() -> None:
    assert (share(0.806), share(None)) == ("81 %", NONE)
