"""The ledger: every combination of few words is a key, so that all keys are near duplicates."""

from __future__ import annotations

from collections import Counter
from math import isqrt

import pytest

from ttt_core.examples import Example
from ttt_core.sandbox.tasks.ledger import Ledger
from ttt_core.sandbox.words import nouns, places

TASK = Ledger()


def draw(length: int, seed: int = 0) -> Example:
    return next(TASK.examples(length, split="score", seed=seed, count=1))


def keys(example: Example) -> list[list[str]]:
    return [line.partition(":")[0].split() for line in example.document.splitlines()]


@pytest.mark.parametrize("length", [16, 64, 100, 2048, 9025])
def test_keys_fill_a_square_of_words(length: int) -> None:
    """n keys take between sqrt(n) and sqrt(n) + 1 words of each kind, and share them evenly."""
    read = keys(draw(length))
    side = isqrt(length - 1) + 1
    assert len({tuple(key) for key in read}) == length
    for word in (0, 1):
        uses = Counter(key[word] for key in read)
        assert len(uses) == side
        assert max(uses.values()) <= side
    # Inside the largest full square, every word is used with every other one.
    assert sorted(Counter(key[0] for key in read).values())[-isqrt(length) :] >= [isqrt(length)]


def test_lines_stay_in_order_while_the_ledger_grows() -> None:
    one, two = draw(64), draw(300)
    rest = iter(two.document.splitlines())
    assert all(line in rest for line in one.document.splitlines())
    assert one.questions == two.questions


def test_values_are_places_and_nouns_in_equal_parts() -> None:
    values = [line.rpartition(" ")[2] for line in draw(2048).document.splitlines()]
    # 2,048 fair coins: 1,024 with a deviation of 23; five of them are 113.
    assert abs(sum(value in places() for value in values) - 1024) < 113
    assert {*values} <= {*places(), *nouns()}


def test_groups_tell_places_from_nouns() -> None:
    for question in draw(64).questions:
        value = question.references[0].rpartition(" ")[2]
        assert question.groups == {"value": "place" if value in places() else "noun"}


def test_uniform_guesses_score_as_chance_says() -> None:
    question = draw(64).questions[0]
    key = question.references[0].partition(":")[0]
    guesses = [f"{key}: {value}" for value in (*places(), *nouns())]
    scores = [TASK.score(guess, question) for guess in guesses]
    assert sum(scores) / len(scores) == pytest.approx(question.chance)


def test_the_value_of_a_similar_key_is_wrong() -> None:
    example = draw(64)
    asked = example.questions[0]
    key, value = asked.references[0].split(": ")
    others = [line for line in example.document.splitlines() if line != asked.references[0]]
    near = [line for line in others if {*key.split()} & {*line.partition(":")[0].split()}]
    assert len(near) == 14  # 7 others in the row and 7 in the column of a square of 64.
    for line in near:
        assert TASK.score(line, asked) == 0
        if line.rpartition(" ")[2] != value:
            assert TASK.score(f"{key}: {line.rpartition(' ')[2]}", asked) == 0
