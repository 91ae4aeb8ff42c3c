"""The statistics: hand-computed values, coverage by simulation, and no evidence out of nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.errors import ConfigError
from ttt_core.evaluation.analysis.statistics import (
    FEWEST_DOCUMENTS,
    bootstrap_interval,
    compare,
    holm,
    mean,
    permutation_test,
    sign_test,
)

VALUES = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0])
STRATA = st.lists(
    st.lists(st.lists(VALUES, min_size=1, max_size=4), min_size=1, max_size=5),
    min_size=1,
    max_size=3,
)


def singles(values: Sequence[float]) -> list[list[float]]:
    """A task whose documents have one question each."""
    return [[value] for value in values]


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 * 1/2
        (5, 0, 2 / 32),
        (6, 0, 2 / 64),
        (8, 1, 2 * (1 + 9) / 512),
        (2, 7, 2 * (1 + 9 + 36) / 512),
        (4, 4, 1.0),  # 2 * (1 + 8 + 28 + 56 + 70) / 256 is above 1.
        (15, 5, 2 * (1 + 20 + 190 + 1140 + 4845 + 15504) / 2**20),  # 0.0414
    ],
)
def test_sign_test_by_hand(wins: int, losses: int, p: float) -> None:
    assert sign_test(wins, losses) == pytest.approx(p)


def test_permutation_test_by_hand() -> None:
    # Shares 3, 2, 1 (over 3): of the 8 signs only +++ and --- reach 6, so p = 2/8.
    assert permutation_test([singles([3.0, 2.0, 1.0])]) == 2 / 8
    # Shares 3, -1, 1: sums are 3 with ++-... |sum| >= 3 for +++ (3), +-- (3), ++- (1)? By hand:
    # signs of (3, 1, 1): 5, 3, 3, 1 and their opposites; observed 3 - 1 + 1 = 3: 6 of 8 reach it.
    assert permutation_test([singles([3.0, -1.0, 1.0])]) == 6 / 8


def test_permutation_test_flips_documents_and_not_questions() -> None:
    # Twenty wins on one document are one piece of luck: 2 of 2 signs reach it.
    assert permutation_test([[[1.0] * 20]]) == 1.0
    assert permutation_test([[[1.0] * 20, [1.0] * 20]]) == 2 / 4


@settings(max_examples=30)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=12))
def test_on_right_and_wrong_the_permutation_test_is_the_sign_test(values: list[float]) -> None:
    p = sign_test(values.count(1.0), values.count(-1.0))
    assert permutation_test([singles(values)]) == pytest.approx(p)


def test_many_documents_are_sampled_about_right_and_never_p_zero() -> None:
    values = [1.0] * 15 + [-1.0] * 5
    assert permutation_test([singles(values)]) == pytest.approx(sign_test(15, 5), abs=0.01)
    assert permutation_test([singles([1.0] * 60)]) == 1 / 10_000


@settings(max_examples=30)
@given(STRATA)
def test_swapping_arms_turns_everything_round(strata: list[list[list[float]]]) -> None:
    there = compare(strata)
    back = compare([[[-v for v in d] for d in s] for s in strata])
    assert back.difference == pytest.approx(-there.difference)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert back.p_value == pytest.approx(there.p_value)
    assert (back.wins, back.losses) == (there.losses, there.wins)


@settings(max_examples=30)
@given(STRATA)
def test_intervals_lie_around_the_estimate_within_the_values(
    strata: list[list[list[float]]],
) -> None:
    low, high = bootstrap_interval(strata, resamples=200)
    flat = [v for s in strata for d in s for v in d]
    assert min(flat) - 1e-9 <= low <= high <= max(flat) + 1e-9
    assert bootstrap_interval(strata, resamples=200) == (low, high)


def test_tasks_count_the_same_whatever_their_size() -> None:
    # Means 1 and 0; their mean is 1/2, though nine of ten questions are of the second task.
    strata = [singles([1.0]), singles([0.0] * 9)]
    assert mean(strata) == 0.5
    assert compare(strata).questions == 10


def test_questions_count_the_same_within_a_task() -> None:
    # Three questions of 1 on one document, one of 0 on the other: 3/4, not 1/2.
    assert mean([[[1.0, 1.0, 1.0], [0.0]]]) == 0.75


def test_one_value_has_an_interval_without_width_and_is_flagged() -> None:
    found = compare([[[1.0]]])
    assert (found.low, found.high, found.p_value, found.few) == (1.0, 1.0, 1.0, True)


def test_fewer_documents_than_six_cannot_be_significant() -> None:
    for documents in range(1, 8):
        found = compare([[[1.0] * 30 for _ in range(documents)]])
        assert found.few == (documents < FEWEST_DOCUMENTS)
        assert found.few == (found.p_value > 0.05)


def test_right_and_wrong_with_a_question_a_document_is_the_sign_test() -> None:
    assert compare([singles([1, 0, -1])]).test == "sign"
    assert compare([singles([1, 0.5])]).test == "permutation"
    assert compare([[[1, 0], [1, 1]]]).test == "permutation"


def coverage(*, documents: int, questions: int, ragged: bool = False) -> float:
    """How often the interval holds the true mean of 0.1; documents have luck of their own."""
    generator, hits, rounds = random.Random(0), 0, 300
    for index in range(rounds):
        stratum = []
        for number in range(documents):
            luck = generator.gauss(0.1, 0.3)
            size = questions + (number % 3 if ragged else 0)
            stratum.append([luck + generator.gauss(0, 0.3) for _ in range(size)])
        low, high = bootstrap_interval([stratum], resamples=400, seed=index)
        hits += low <= 0.1 <= high
    return hits / rounds


@pytest.mark.parametrize(
    ("questions", "ragged"), [(1, False), (4, False), (4, True)], ids=["1", "4", "4 to 6"]
)
def test_intervals_hold_the_truth_about_as_often_as_they_say(questions: int, ragged: bool) -> None:
    # 95 % of 300 rounds has a standard error of 1.3 points; few documents make it too narrow.
    assert 0.90 <= coverage(documents=20, questions=questions, ragged=ragged) <= 0.985


def test_intervals_over_three_documents_are_no_evidence() -> None:
    assert coverage(documents=3, questions=4) < 0.9


def test_questions_of_unlucky_documents_are_no_independent_evidence() -> None:
    """False alarms at 5 %: with the document as unit they stay there, however many questions."""
    generator, alarms, rounds = random.Random(1), 0, 400
    for _ in range(rounds):
        bias = [generator.gauss(0, 0.5) for _ in range(10)]
        stratum = [[generator.gauss(b, 0.1) for _ in range(30)] for b in bias]
        alarms += permutation_test([stratum]) < 0.05
    assert 0.02 <= alarms / rounds <= 0.085


def test_holm_by_hand() -> None:
    # Sorted .01, .02, .03, .5 times 4, 3, 2, 1: .04, .06, .06, .5; the third may not fall below.
    assert holm([0.5, 0.02, 0.01, 0.03]) == pytest.approx([0.5, 0.06, 0.04, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_helps_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert [a for _, a in pairs] == sorted(adjusted)


@pytest.mark.parametrize("strata", [[], [[]], [[[]]], [[[1.0], []]]])
def test_no_values_are_refused(strata: list[list[list[float]]]) -> None:
    with pytest.raises(ConfigError, match="at least one value"):
        compare(strata)
