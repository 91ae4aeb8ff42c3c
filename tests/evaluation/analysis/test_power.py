"""Power: by hand, and by simulation with the very test that is used."""

from __future__ import annotations

import math
import random

import pytest

from ttt_core.errors import ConfigError
from ttt_core.evaluation.analysis.power import (
    detectable,
    detectable_by,
    documents_needed,
    standard_error,
    student,
)
from ttt_core.evaluation.analysis.statistics import permutation_test


def test_standard_error_by_hand() -> None:
    # Documents' sums of deviations from 2: (1 - 2) + (1 - 2) = -2 and (3 - 2) * 2 = 2; N = 4:
    # 2/1 * (4 + 4) / 16 = 1.
    assert standard_error([[[1.0, 1.0], [3.0, 3.0]]]) == pytest.approx(1.0)
    # One question each: the usual s / sqrt(n); values 0, 1, 2 have s = 1.
    assert standard_error([[[0.0], [1.0], [2.0]]]) == pytest.approx(1 / math.sqrt(3))
    # The mean of two independent tasks of the same error: error / sqrt(2).
    task = [[0.0], [1.0], [2.0]]
    assert standard_error([task, task]) == pytest.approx(1 / math.sqrt(6))


def test_detectable_difference_by_hand() -> None:
    # Two documents, one degree of freedom: t(.975) + t(.8) = 12.7062 + 1.3764.
    assert detectable([[[1.0, 1.0], [3.0, 3.0]]]) == pytest.approx(14.0826, abs=1e-4)
    # At .05 / 10: t(.9975) = 127.3213.
    found = detectable([[[1.0, 1.0], [3.0, 3.0]]], alpha=0.005)
    assert found == pytest.approx(127.3213 + 1.3764, abs=1e-4)


@pytest.mark.parametrize(
    ("probability", "degrees", "t"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.3027),
        (0.975, 5, 2.5706),
        (0.975, 10, 2.2281),
        (0.995, 9, 3.2498),
        (0.8, 9, 0.8834),
        (0.975, 100_000, 1.9600),
        (0.5, 4, 0.0),
    ],
)
def test_quantiles_of_student_are_those_of_the_tables(
    probability: float, degrees: int, t: float
) -> None:
    assert student(probability, degrees) == pytest.approx(t, abs=1e-4)


def test_documents_needed_by_hand() -> None:
    strata = [[[1.0, 1.0], [3.0, 3.0]]]
    # Half of the detectable difference takes four times the two documents.
    found = detectable(strata)
    assert found is not None
    assert documents_needed(strata, found) == 2
    assert documents_needed(strata, -found / 2) == 8
    assert documents_needed(strata, found / 2 * 1.01) == 8


@pytest.mark.parametrize("strata", [[[[1.0, 0.0]]], [[[0.5], [0.5]]], []])
def test_power_is_not_known_without_variance(strata: list[list[list[float]]]) -> None:
    assert detectable(strata) is None
    assert documents_needed(strata, 0.1) is None


def test_what_is_detectable_is_detected_in_four_of_five() -> None:
    generator, found, rounds = random.Random(0), 0, 200
    pilot = [[[generator.gauss(0, 1)] for _ in range(400)]]
    error = standard_error(pilot)
    assert error is not None
    true = 2.87380 * error * math.sqrt(400 / 40)  # t(.975) + t(.8) for 40 documents.
    for _ in range(rounds):
        found += permutation_test([[[generator.gauss(true, 1)] for _ in range(40)]]) < 0.05
    assert 0.72 <= found / rounds <= 0.88


@pytest.mark.parametrize(("documents", "comparisons"), [(8, 1), (10, 5), (20, 20)])
def test_few_documents_find_what_is_said_they_find(documents: int, comparisons: int) -> None:
    """By the normal approximation two or three of five would be found here, not four."""
    generator, alpha = random.Random(1), 0.05 / comparisons
    error = math.sqrt(1 / documents)  # Values have a standard deviation of 1.
    true = detectable_by(error, documents, alpha=alpha)
    assert true is not None

    def significant() -> bool:
        strata = [[[generator.gauss(true, 1)] for _ in range(documents)]]
        return permutation_test(strata) < alpha

    assert 0.7 <= sum(significant() for _ in range(200)) / 200 <= 0.92


def test_arguments_that_cannot_be_are_refused() -> None:
    strata = [[[0.0], [1.0]]]
    with pytest.raises(ConfigError, match="difference of zero"):
        documents_needed(strata, 0.0)
    with pytest.raises(ConfigError, match="power < 1"):
        detectable(strata, power=1.0)
