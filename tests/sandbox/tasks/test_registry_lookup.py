"""The registry as a task: asked records stay, all other lines may be added between them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.errors import ConfigError
from ttt_core.examples import Example
from ttt_core.sandbox.registry import max_lines
from ttt_core.sandbox.tasks.registry_lookup import RegistryLookup
from ttt_core.sandbox.words import places

TASK = RegistryLookup()


def draw(length: int, *, seed: int = 0, questions: int = 32) -> Example:
    task = RegistryLookup(questions=questions)
    return next(task.examples(length, split="score", seed=seed, count=1))


def is_subsequence(some: list[str], of: list[str]) -> bool:
    rest = iter(of)
    return all(line in rest for line in some)


@settings(max_examples=10)
@given(short=st.integers(32, 400), more=st.integers(1, 400), seed=st.integers(0, 2**32))
def test_longer_registries_have_the_lines_of_shorter_ones_in_their_order(
    short: int, more: int, seed: int
) -> None:
    one, two = draw(short, seed=seed), draw(short + more, seed=seed)
    assert len(one.document.splitlines()) == short
    assert len(two.document.splitlines()) == short + more
    assert is_subsequence(one.document.splitlines(), two.document.splitlines())
    assert one.questions == two.questions


def test_keys_are_distinct_up_to_the_longest_registry() -> None:
    lines = draw(max_lines()).document.splitlines()
    assert len({line.partition(":")[0] for line in lines}) == len(lines) == max_lines()
    with pytest.raises(ConfigError, match="length in lines must be between 1 and"):
        draw(max_lines() + 1)


def test_asked_lines_are_spread_over_the_document() -> None:
    example = draw(2048)
    lines = example.document.splitlines()
    found = [lines.index(question.needles[0]) for question in example.questions]
    assert min(found) < 512
    assert max(found) > 1536


@pytest.mark.parametrize(("length", "questions", "asked"), [(64, 32, 32), (8, 32, 8), (64, 1, 1)])
def test_asks_as_many_questions_as_there_are_lines_for(
    length: int, questions: int, asked: int
) -> None:
    assert len(draw(length, questions=questions).questions) == asked


def test_uniform_guesses_score_as_chance_says() -> None:
    question = draw(64).questions[0]
    key = question.references[0].partition(":")[0]
    scores = [TASK.score(f"{key}: {place}", question) for place in places()]
    assert sum(scores) / len(scores) == pytest.approx(question.chance)


def test_the_record_has_to_be_restated() -> None:
    question = draw(64).questions[0]
    key, value = question.references[0].split(": ")
    assert TASK.score(f" {key}:  {value}\n", question) == 1
    assert TASK.score(value, question) == 0
    assert TASK.score(f"{key}: {value} {value}", question) == 0


def test_at_least_one_question_is_asked() -> None:
    with pytest.raises(ConfigError, match="questions must be at least 1"):
        RegistryLookup(questions=0)
