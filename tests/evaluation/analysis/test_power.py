"""Power: by hand, and by simulation with the very test that is used."""

from __future__ import annotations

import math
import random

import pytest

from ttt_core.errors import ConfigError
from ttt_core.evaluation.analysis.power import detectable, documents_needed, standard_error
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
    # z(.975) + z(.8) = 1.95996 + 0.84162 = 2.80159.
    assert detectable([[[1.0, 1.0], [3.0, 3.0]]]) == pytest.approx(2.80159, abs=1e-4)
    # At .05 / 10: z(.9975) = 2.80703.
    found = detectable([[[1.0, 1.0], [3.0, 3.0]]], alpha=0.005)
    assert found == pytest.approx(2.80703 + 0.84162, abs=1e-4)


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
    true = 2.80159 * error * math.sqrt(400 / 40)  # For 40 documents.
    for _ in range(rounds):
        found += permutation_test([[[generator.gauss(true, 1)] for _ in range(40)]]) < 0.05
    assert 0.72 <= found / rounds <= 0.88


def test_arguments_that_cannot_be_are_refused() -> None:
    strata = [[[0.0], [1.0]]]
    with pytest.raises(ConfigError, match="difference of zero"):
        documents_needed(strata, 0.0)
    with pytest.raises(ConfigError, match="power < 1"):
        detectable(strata, power=1.0)
