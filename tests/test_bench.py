"""The statistics behind the README's table."""

from __future__ import annotations

import numpy as np
import pytest

from bench.sandbox import bootstrap_interval


def test_a_constant_difference_has_no_width() -> None:
    assert bootstrap_interval(np.full((8, 32), 0.25)) == (0.25, 0.25)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Documents differ too (standard deviation 0.1), which a plain bootstrap would miss."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        means = 0.2 + 0.1 * rng.standard_normal((8, 1))
        low, high = bootstrap_interval(means + rng.standard_normal((8, 32)) * 0.5, seed=trial)
        covered += low <= 0.2 <= high
    assert covered >= 50


def test_few_documents_widen_it() -> None:
    rng = np.random.default_rng(1)
    many = rng.standard_normal((8, 32)) + rng.standard_normal((8, 1))
    low, high = bootstrap_interval(many)
    few_low, few_high = bootstrap_interval(many[:3])
    assert few_high - few_low > high - low
    assert many.mean() == pytest.approx((low + high) / 2, abs=(high - low) / 4)
