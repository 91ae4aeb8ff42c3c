"""Summaries: figures by hand, for the two libraries whose figures differ."""

from __future__ import annotations

import sys

import pytest

from ttt_core.evaluation.metrics import rouge_geometric_mean, rouge_l, rouge_l_chinese


def test_rouge_l_of_one_sentence() -> None:
    # the cat sat / the cat ran: "the cat" in order, 2 of 3 words each: P = R = F = 2/3.
    assert rouge_l("the cat sat", "the cat ran") == pytest.approx(2 / 3, abs=1e-7)


def test_rouge_l_counts_each_word_once_and_sentences_in_any_order() -> None:
    # Different words: the cat sat dog ran / the dog ran a cat, 5 each. "the cat sat" shares "the"
    # with one sentence and "cat" with the other, "the dog ran" shares all three: the cat dog ran,
    # so P = R = F = 4/5.
    right = "the cat sat. the dog ran."
    assert rouge_l("the dog ran. a cat.", right) == pytest.approx(4 / 5, abs=1e-7)


def test_rouge_l_of_itself_is_the_highest_there_is() -> None:
    assert rouge_l("one two three", "one two three") == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("empty", ["", "...", " . "])
def test_rouge_l_of_no_words_is_nothing(empty: str) -> None:
    assert rouge_l(empty, "one two three") == 0


def test_rouge_l_has_room_for_more_words_than_python_lets_a_function_call_itself() -> None:
    # Only "end" in common: P = R = F = 1/601. The library calls itself 1,201 times.
    before = sys.getrecursionlimit()
    answer = " ".join([*(f"a{i}" for i in range(600)), "end"])
    assert rouge_l(answer, answer.replace("a", "b")) == pytest.approx(1 / 601, abs=1e-7)
    assert sys.getrecursionlimit() == before


def test_rouge_l_of_chinese_counts_words() -> None:
    # 我 爱 北京 天安门 / 北京 天安门: 2 in order; P = 2/4, R = 2/2; F = 2/3. (By letters: 10/12.)
    assert rouge_l_chinese("我爱北京天安门", "北京天安门") == pytest.approx(2 / 3, abs=1e-7)


def test_geometric_mean_of_three_rouges() -> None:
    # Words: 5 of 6 in common. Pairs: the-cat, on-the and the-mat of 5. In order: 5 of 6.
    mean = rouge_geometric_mean("the cat sat on the mat", ["The cat lay on the mat."])
    assert mean == pytest.approx((5 / 6 * 3 / 5 * 5 / 6) ** (1 / 3))


def test_each_rouge_takes_its_own_best_reference() -> None:
    # The second reference has all 6 words, but only "sat on the mat" in order: 1, 3/5 and 4/6.
    # Of each the best of both: 1, 3/5, 5/6, whose product is 1/2.
    references = ["the cat lay on the mat", "sat on the mat cat the"]
    mean = rouge_geometric_mean("the cat sat on the mat", references)
    assert mean == pytest.approx(0.5 ** (1 / 3))


def test_no_pair_of_words_in_common_scores_nothing() -> None:
    assert rouge_geometric_mean("general kenobi", ["commander kenobi"]) == 0
    assert rouge_geometric_mean("", ["commander kenobi"]) == 0
    assert rouge_geometric_mean("general kenobi", ["General Kenobi!"]) == pytest.approx(1)
