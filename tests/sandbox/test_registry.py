"""The generated documents: seeded, answerable, and graded strictly."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_core.sandbox import Question, is_correct, make_registry, value_correct
from ttt_core.sandbox.registry import make_question, max_lines
from ttt_core.sandbox.words import adjectives, nouns, places

SEEDS = st.integers(0, 2**32)


@given(lines=st.integers(1, 300), seed=SEEDS, questions=st.integers(0, 40))
def test_every_question_is_answered_by_exactly_one_line(
    lines: int, seed: int, questions: int
) -> None:
    registry = make_registry(lines, seed=seed, questions=questions)
    assert len(registry.questions) == min(lines, questions)
    for question in registry.questions:
        assert registry.text.splitlines().count(question.answer) == 1
        assert registry.text.count(f"{question.key}: ") == 1
        assert is_correct(question.answer, question)
        assert question.key in question.text
        assert question.value not in question.text


@given(lines=st.integers(1, 300), seed=SEEDS)
def test_text_is_the_records_line_by_line(lines: int, seed: int) -> None:
    registry = make_registry(lines, seed=seed)
    assert registry.text.endswith("\n")
    read = tuple(tuple(line.split(": ")) for line in registry.text.splitlines())
    assert read == registry.records
    assert len({key for key, _ in registry.records}) == lines
    assert len({question.key for question in registry.questions}) == len(registry.questions)


@given(lines=st.integers(2, 100), seed=SEEDS)
def test_seed_decides_the_registry(lines: int, seed: int) -> None:
    assert make_registry(lines, seed=seed) == make_registry(lines, seed=seed)
    assert make_registry(lines, seed=seed).text != make_registry(lines, seed=seed + 1).text


def test_questions_fall_on_all_parts_of_the_document() -> None:
    registry = make_registry(2048, seed=0, questions=512)
    lines = {key: index for index, (key, _) in enumerate(registry.records)}
    mean = sum(lines[question.key] for question in registry.questions) / 512
    assert 900 < mean < 1150


def test_long_registries_have_distinct_keys_that_share_their_words() -> None:
    keys = [key for key, _ in make_registry(2048, seed=1).records]
    assert len(set(keys)) == 2048
    assert len({key.split()[0] for key in keys}) <= len(adjectives()) < 2048
    assert max_lines() >= 4096


@pytest.mark.parametrize(("lines", "questions"), [(0, 1), (-1, 1), (10**6, 1), (8, -1)])
def test_refuses_what_it_cannot_generate(lines: int, questions: int) -> None:
    with pytest.raises(ValueError, match="must"):
        make_registry(lines, seed=0, questions=questions)


OSLO = make_question("amber falcon", "Oslo")


@pytest.mark.parametrize(
    ("answer", "joint", "value"),
    [
        ("amber falcon: Oslo", True, True),
        ("  amber  falcon:\tOslo\n", True, True),
        ("amber fox: Oslo", False, True),
        ("Oslo", False, True),
        ("amber falcon: Rome", False, False),
        ("amber falcon: Oslo Rome", False, False),
        ("amber falcon", False, False),
        ("amber falcon: oslo", False, False),
        ("", False, False),
    ],
)
def test_grading(answer: str, joint: bool, value: bool) -> None:
    assert is_correct(answer, OSLO) is joint
    assert value_correct(answer, OSLO) is value


@given(
    st.sampled_from(make_registry(64, seed=3).questions),
    st.sampled_from(make_registry(64, seed=3).questions),
)
def test_another_records_answer_is_wrong(asked: Question, other: Question) -> None:
    assert is_correct(other.answer, asked) == (other.key == asked.key)


def test_words_are_distinct_and_single() -> None:
    words = [*adjectives(), *nouns(), *places()]
    assert len(set(words)) == len(words)
    assert all(word.isalpha() and word.isascii() for word in words)


def test_importing_the_sandbox_loads_no_torch() -> None:
    code = "import sys, ttt_core.sandbox; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
