"""Identities that tell cells apart, and lines that say all of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_core.evaluation.records import (
    Cell,
    CellKey,
    Choice,
    QuestionResult,
    content_hash,
    to_line,
)
from ttt_core.examples import Example, Question

KEY = CellKey(
    model="m",
    weights="w",
    task="t",
    length=4,
    split="score",
    seed=0,
    example="e",
    content="c",
    arm="a",
    settings={"steps": 3},
)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "n"),
        ("weights", "v"),
        ("task", "u"),
        ("length", None),
        ("split", "tune"),
        ("seed", 1),
        ("example", "f"),
        ("content", "d"),
        ("arm", "b"),
        ("settings", {"steps": 4}),
        ("version", 2),
    ],
)
def test_all_of_a_key_counts(field: str, value: object) -> None:
    assert KEY.model_copy(update={field: value}).digest != KEY.digest


def test_arms_on_the_same_questions_are_a_pair_whatever_their_settings() -> None:
    other = KEY.model_copy(update={"arm": "b", "settings": {}})
    assert other.pair == KEY.pair
    assert KEY.model_copy(update={"split": "tune"}).pair != KEY.pair


@given(text=st.text(), score=st.floats(0, 1))
def test_a_line_is_ascii_ends_once_and_says_all(text: str, score: float) -> None:
    cell = Cell(key=KEY, questions=(QuestionResult(id="q", text=text, score=score),))
    line = to_line(cell)
    assert line.isascii()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert Cell.model_validate(json.loads(line)) == cell


def test_half_of_a_surrogate_pair_can_be_written() -> None:
    cell = Cell(key=KEY, questions=(QuestionResult(id="q", text="\ud83d", score=0.0),))
    assert Cell.model_validate(json.loads(to_line(cell))) == cell


def test_what_one_and_many_questions_cost() -> None:
    asked = (
        QuestionResult(id="1", text="", score=1.0, flops=10.0),
        QuestionResult(id="2", text="", score=0.0, flops=30.0),
    )
    cell = Cell(key=KEY, document_flops={"read": 100.0, "adapt": 50.0}, questions=asked)
    # Once: 100 + 50; a question: (10 + 30) / 2 = 20.
    assert cell.flops(1) == 170.0
    assert cell.flops(10) == 350.0
    assert cell.score == 0.5
    assert Cell(key=KEY).score is None


def example(**changes: Any) -> Example:
    fields: dict[str, Any] = {
        "id": "q",
        "text": "where?",
        "references": ("here", "there"),
        "choices": (),
    }
    document = changes.pop("document", "text")
    return Example("e", document, (Question(**{**fields, **changes}),))


@pytest.mark.parametrize(
    "changes",
    [
        {"document": "texts"},
        {"id": "p"},
        {"text": "when?"},
        {"references": ("here",)},
        {"references": ("here", "there", "everywhere")},
        {"references": ("herethere",)},
        {"choices": ("there",)},
        {"max_new_tokens": 7},
    ],
)
def test_changed_data_are_other_data(changes: dict[str, Any]) -> None:
    assert content_hash(example(**changes)) != content_hash(example())
    assert content_hash(example()) == content_hash(example())


def test_lines_of_before_there_were_sources_are_read() -> None:
    """And their keys stay: a run goes on where it was."""
    cell = Cell(key=KEY, questions=(QuestionResult(id="q", text="", score=0.0),))
    value = json.loads(to_line(cell))
    del value["source"]
    assert Cell.model_validate(value) == cell
    expected = "4ce31525e166ccc3ffb58a6766f470b09dd5807934787040a4645bee67ebb541"
    assert content_hash(example()) == expected


def test_choices_of_before_they_named_the_model_are_read() -> None:
    choice = Choice(
        task="t", arm="a", option="o", scores={"1": 0.5}, examples=1, questions=2, chosen="1"
    )
    value = json.loads(to_line(choice))
    del value["model"], value["weights"]
    assert Choice.model_validate(value) == choice


def test_decisions_are_those_of_the_document_and_of_its_questions() -> None:
    told = QuestionResult(id="q", text="", score=0.0, details={"decision": "kept_base"})
    cell = Cell(key=KEY, details={"decision": "adapted"}, questions=(told,))
    assert cell.decisions == ["adapted", "kept_base"]
    assert Cell(key=KEY, details={"way": "template"}).decisions == []
