# ruff: noqa: RUF001  (full-width punctuation)
"""Words in common: by hand, and what holds for any two texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_core.evaluation.metrics import best_of, qa_f1, qa_f1_ascii, qa_f1_chinese
from ttt_core.evaluation.metrics.qa_f1 import normalised

WORDS = st.lists(st.sampled_from(["red", "blue", "Red!", "the", "sea", "9,000"]), max_size=6)


def test_articles_punctuation_and_case_do_not_count() -> None:
    assert normalised("  The U.S. is a\tcountry, an old one! ") == "us is country old one"


def test_f1_of_a_worked_example() -> None:
    # cat sat on mat / cat on mats: 2 in common; P = 2/4, R = 2/3; 2PR/(P+R) = (2/3)/(7/6) = 4/7.
    assert qa_f1("The cat sat on the mat.", "A cat on mats") == pytest.approx(4 / 7)


def test_a_word_counts_as_often_as_both_have_it() -> None:
    # very very good / very good good: very and good once each: P = R = 2/3.
    assert qa_f1("very very good", "very good good") == pytest.approx(2 / 3)


def test_nothing_left_scores_nothing() -> None:
    assert qa_f1("", "Rome") == qa_f1("The a an.", "Rome") == qa_f1("The", "the") == 0


def test_accents_count_except_for_zero_scrolls() -> None:
    assert qa_f1("Café in Tromsø", "cafe in Tromso") == pytest.approx(1 / 3)
    assert qa_f1_ascii("Café in Tromsø", "cafe in Tromso") == 1
    assert qa_f1_ascii("Straße", "strasse") == qa_f1_ascii("Łódź", "Lodz") == 1


def test_chinese_words_are_found_and_punctuation_left_out() -> None:
    # 我 爱 北京 天安门 / 北京 天安门: 2 in common; P = 2/4, R = 2/2; 2PR/(P+R) = 1/1.5 = 2/3.
    assert qa_f1_chinese("我爱北京天安门。", "北京，天安门！") == pytest.approx(2 / 3)


def test_the_best_reference_counts() -> None:
    assert best_of(qa_f1, "fifty five", ["55", "fifty-five", "five"]) == pytest.approx(2 / 3)
    assert best_of(qa_f1, "fifty five", []) == 0


@given(WORDS, WORDS)
def test_f1_is_a_share_and_the_same_both_ways(left: list[str], right: list[str]) -> None:
    one, other = " ".join(left), " ".join(right)
    assert qa_f1(one, other) == pytest.approx(qa_f1(other, one))
    assert 0 <= qa_f1(one, other) <= 1
    assert qa_f1(one, one) == (1 if normalised(one) else 0)
