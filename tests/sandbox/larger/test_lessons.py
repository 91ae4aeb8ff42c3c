"""What the larger sandbox model is taught: right answers, on documents of no evaluation."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.examples import Question
from ttt_core.sandbox.larger.config import sized
from ttt_core.sandbox.larger.lessons import Lesson, Lessons
from ttt_core.sandbox.larger.quotes import QuoteLine
from ttt_core.sandbox.larger.short_logs import crop
from ttt_core.sandbox.tasks import get_task
from ttt_core.sandbox.tasks.seeds import stream
from ttt_core.sandbox.tasks.transaction_check import Anomaly, check_log
from ttt_core.sandbox.tasks.transaction_log import BUG_TYPES, entry_id, make_log
from ttt_core.sandbox.tasks.transactions import write_log

DATA = replace(sized("small").data, source_chars=300_000)
KINDS = ("log", "retrieval", "tracking", "text")


def draw(kind: str, seed: int, growth: float = 1.0) -> Lesson:
    lesson = getattr(Lessons(DATA, Random(seed)), kind)(growth)
    assert isinstance(lesson, Lesson)
    return lesson


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), growth=st.floats(0.1, 1.0))
def test_the_task_calls_every_answer_right(kind: str, seed: int, growth: float) -> None:
    lesson = draw(kind, seed, growth)
    assert len(lesson.answers) == len(lesson.example.questions) >= 1
    for question, answer in zip(lesson.example.questions, lesson.answers, strict=True):
        assert lesson.task.score(answer, question) == 1.0


@pytest.mark.parametrize("kind", ["retrieval", "text"])
@pytest.mark.parametrize("seed", range(8))
def test_answers_restate_what_the_document_says(kind: str, seed: int) -> None:
    lesson = draw(kind, seed)
    for answer in lesson.answers:
        assert all(line in lesson.example.document for line in answer.splitlines())


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    length=st.integers(4, 25),
    bug_type=st.sampled_from(BUG_TYPES),
)
def test_a_stretch_of_a_log_has_the_same_anomaly_and_no_other(
    seed: int, length: int, bug_type: str
) -> None:
    rng = Random(seed)
    [kind] = [each for each in BUG_TYPES if each == bug_type]
    log = crop(make_log(25, kind, Random(seed), Random(seed + 1)), length, rng)
    assert check_log(write_log(log)) == [Anomaly(bug_type, entry_id(log.bug))]
    # What an anomaly conflicts with is at most 8 entries before it.
    assert length <= len(log.entries) <= max(length, 9)


def test_logs_have_four_entries_and_more() -> None:
    drawn = [draw("log", seed).example.length for seed in range(200)]
    lengths = {length for length in drawn if length is not None}
    assert min(lengths) == 4
    assert max(lengths) == DATA.max_operations


@pytest.mark.parametrize(
    ("kind", "names", "lengths"),
    [
        ("log", ["transactions"], (16, 25)),
        ("retrieval", ["multi-key", "multi-query", "multi-value"], (100, 200)),
        ("tracking", ["variable-tracking"], (100, 200)),
    ],
)
def test_no_training_document_is_an_evaluation_document(
    kind: str, names: list[str], lengths: tuple[int, ...]
) -> None:
    trained = {draw(kind, seed).example.document for seed in range(100)}
    assert len(trained) > 90
    for name in names:
        for length in lengths:
            asked = {
                example.document
                for seed in range(5)
                for example in get_task(name).examples(length, split="score", seed=seed, count=2)
            }
            assert len(asked) == 10
            assert not trained & asked


@pytest.mark.parametrize("kind", ["log", "retrieval", "tracking"])
def test_training_draws_from_streams_of_its_own(kind: str) -> None:
    """Were the names the same, the same seed would give the evaluation's document."""
    lesson = draw(kind, 0)
    name = lesson.task.name
    assert name.endswith(", training")
    evaluated = name.removesuffix(", training")
    assert get_task(evaluated).name == evaluated
    assert (
        stream(name, "tune", 0, 0, "needle").random()
        != stream(evaluated, "tune", 0, 0, "needle").random()
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_quoted_line_is_the_only_one_with_the_word(seed: int) -> None:
    task = QuoteLine(DATA.source_chars)
    [example] = task.examples(20, split="tune", seed=seed, count=1)
    assert len(example.document.splitlines()) <= 20
    for question in example.questions:
        word = question.text.split("`")[1]
        lines = [line for line in example.document.splitlines() if word in line]
        assert [line.strip() for line in lines] == [question.references[0]]


def test_another_line_is_a_wrong_quote() -> None:
    question = Question(id="0", text="", references=("return left",))
    assert QuoteLine(1).score(" return left\n", question) == 1.0
    assert QuoteLine(1).score("return right", question) == 0.0
