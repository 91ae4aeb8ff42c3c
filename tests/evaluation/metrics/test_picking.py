"""Classes, numbers, letters, percentages and orders: what is picked from an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_core.errors import DocumentError
from ttt_core.evaluation.metrics import (
    choice_accuracy,
    classification_score,
    concordance,
    count_score,
    exponential_similarity,
    retrieval_score,
)

CLASSES = ["Food", "Date", "City", "Other city", "Animal"]


def test_naming_more_classes_shares_the_point() -> None:
    assert classification_score("Type: Food", "Food", CLASSES) == 1
    assert classification_score("Food or Date", "Food", CLASSES) == 0.5
    assert classification_score("Food or Date", "Animal", CLASSES) == 0
    assert classification_score("none of them", "Food", CLASSES) == 0


def test_a_class_inside_the_right_one_is_no_rival() -> None:
    classes = ["city", "Other city", "Animal"]
    assert classification_score("Other city", "Other city", classes) == 1
    # The other way round it is: both are named, and "Other city" is not part of "city".
    assert classification_score("Other city", "city", classes) == 0.5


def test_only_the_right_number_scores_full() -> None:
    assert count_score("There are 12 paragraphs.", "12") == 1
    assert count_score("12 of 46", "12") == 0.5
    assert count_score("12, 12, 13, 14", "12") == 0.5
    assert count_score("112", "12") == count_score("a dozen", "12") == count_score("", "12") == 0


def test_the_paragraph_counts_by_its_number_in_both_languages() -> None:
    assert retrieval_score("Paragraph 7", "Paragraph 7") == 1
    assert retrieval_score("It is paragraph 7, not 8.", "Paragraph 7") == 0.5
    assert retrieval_score("答案是段落7", "段落7") == 1
    assert retrieval_score("Paragraph 17", "Paragraph 7") == 0
    with pytest.raises(DocumentError, match="number"):
        retrieval_score("Paragraph 7", "Paragraph seven")


def test_the_first_letter_that_stands_alone_is_the_choice() -> None:
    assert choice_accuracy("(C) because of B", "C") == 1
    assert choice_accuracy("ABBA, so D", "D") == 1
    assert choice_accuracy("A good question: C", "C") == 0  # Officially too.
    assert choice_accuracy("c", "C") == choice_accuracy("", "C") == choice_accuracy("E", "C") == 0
    with pytest.raises(DocumentError, match="A to D"):
        choice_accuracy("A", "the first")


def test_ten_points_off_halve_the_score() -> None:
    assert exponential_similarity("60%", "60%") == 1
    assert exponential_similarity("50%", "60%") == exponential_similarity("70%", "60%") == 0.5
    # 25 points: 2 ** -2.5 = 1 / (4 * sqrt(2)).
    assert exponential_similarity("85%", "60%") == pytest.approx(1 / (4 * 2**0.5))
    assert exponential_similarity("62.5%", "60%") == pytest.approx(0.5**0.25)
    assert exponential_similarity("sixty", "60%") == exponential_similarity("60", "60%") == 0
    with pytest.raises(DocumentError, match="percentage"):
        exponential_similarity("60%", "60")


def test_the_first_percentage_counts() -> None:
    # The paper's own example: 40% is read, not 60%, nor 50 or 20.
    answer = "Out of 50 reviews, 20 are positive and 30 are negative, so 40% of the reviews are "
    assert exponential_similarity(answer + "positive 60% are negative.", "40%") == 1


def test_the_share_of_pairs_in_order() -> None:
    assert concordance("3, 1, 2", "3, 1, 2") == 1
    assert concordance("2, 1, 3", "3, 1, 2") == 0
    # Pairs 1-2, 1-3, 2-3 of the right order: only 2 and 3 are swapped.
    assert concordance("1, 3, 2", "1, 2, 3") == pytest.approx(2 / 3)
    assert concordance("Order: Summary 1, Summary 3, Summary 2.", "1, 2, 3") == pytest.approx(2 / 3)
    assert concordance("1 3\n2", "1, 2, 3") == pytest.approx(2 / 3)
    assert concordance("01, 03, 02", "1, 2, 3") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "answer", ["", "none", "1, 2", "1, 2, 3, 4", "1, 2, 2", "1>2>3", "1" * 5000]
)
def test_what_is_no_permutation_scores_nothing(answer: str) -> None:
    # Without what is neither digit, comma nor space, the last one is the number 123.
    assert concordance(answer, "1, 2, 3") == 0


@given(st.permutations(range(1, 8)))
def test_an_order_and_its_reverse_share_one_point(order: list[int]) -> None:
    right = ", ".join(str(one) for one in range(1, 8))
    there = concordance(", ".join(str(one) for one in order), right)
    back = concordance(", ".join(str(one) for one in reversed(order)), right)
    assert there + back == pytest.approx(1)
