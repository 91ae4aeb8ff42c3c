"""Line retrieval: the prompt parted where it asks, and the last number counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ttt_core.errors import DocumentError
from ttt_core.evaluation.benchmarks.line_retrieval import LineRetrieval

HEAD = "Below is a record of lines. Now the record start:\n\n"
LINES = "".join(f"line calm-{n}: REGISTER_CONTENT is <{n * 111}>\n" for n in range(1, 6))
ASKED = "Now the record is over. Tell me what is the <REGISTER_CONTENT> in line calm-4?"
ROW = {
    "prompt": f"{HEAD}{LINES}\n{ASKED} ",
    "correct_line": "line calm-4: REGISTER_CONTENT is <444>\n",
    "expected_number": 444,
}


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_prompt_is_parted_where_it_asks(tmp_path: Path) -> None:
    (example,) = LineRetrieval(written(tmp_path, ROW)).all_examples()
    (question,) = example.questions
    assert example.document == (HEAD + LINES).rstrip()
    assert question.text == ASKED
    assert f"{example.document}\n\n{question.text}" == str(ROW["prompt"]).strip()
    assert question.references == ("444",)
    assert question.needles == ("line calm-4: REGISTER_CONTENT is <444>",)
    assert question.groups == {"position": "4th fifth", "lines": "5"}
    assert question.chance == 1 / 50_000


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("444", 1),
        ("In line calm-4 it is <444>.", 1),
        ("<00444>", 1),
        ("444, in line calm-4", 0),  # The last number is 4: the official rule.
        ("4,444", 1),  # The last digits in a row are 444: the same rule, to its favour.
        ("four hundred", 0),
        ("", 0),
        ("9" * 10_000, 0),
    ],
)
def test_the_last_number_counts(tmp_path: Path, answer: str, score: float) -> None:
    task = LineRetrieval(written(tmp_path, ROW))
    (question,) = next(task.all_examples()).questions
    assert task.score(answer, question) == score


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", HEAD + LINES),
        ("prompt", 5),
        ("correct_line", "line calm-9: REGISTER_CONTENT is <999>"),
        ("correct_line", "line calm"),
        ("expected_number", "many"),
        ("expected_number", True),
        ("expected_number", None),
    ],
)
def test_a_bad_row_is_named_with_its_field(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(DocumentError, match=f"row 2 of .*field '{field}': expected"):
        list(LineRetrieval(written(tmp_path, ROW, {**ROW, field: value})).all_examples())


def test_the_sample_loads_completely(data: Path) -> None:
    task = LineRetrieval(data / "longchat_lines_200.jsonl")
    examples = list(task.all_examples())
    assert len(examples) == 50
    for example in examples:
        (question,) = example.questions
        assert example.document.count(question.needles[0]) == 1
        assert f"<{question.references[0]}>" in question.needles[0]
        assert task.score(question.needles[0], question) == 1
        assert question.groups["lines"] == "200"
