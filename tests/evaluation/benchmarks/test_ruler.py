"""RULER: each kind of input is parted where its question begins, and scored by its own rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ttt_core.errors import DocumentError
from ttt_core.evaluation.benchmarks.ruler import Ruler, split_input

NEEDLE = "One of the special magic numbers for calm-boat is: 7654321."
NIAH = (
    "Some special magic numbers are hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the numbers afterwards.\n"
    f"The hill is steep. {NEEDLE} The road is long.\n"
    "What are all the special magic numbers for calm-boat mentioned in the provided text?"
)
PREFIX = " The special magic numbers for calm-boat mentioned in the provided text are"
TRACKING = (
    "Memorize and track the chain(s).\n\nVAR ABC = 11111\nVAR DEF = VAR ABC\n"
    "Question: Find all variables that are assigned the value 11111 in the text above. "
    "Answer: they are: ABC DEF\n"
    "Memorize and track the chain(s).\n\nVAR UVW = 22222\nVAR XYZ = VAR UVW\n"
    "Question: Find all variables that are assigned the value 22222 in the text above."
)
ASKING = (
    "Answer the question based on the given documents. Only give me the answer.\n\n"
    "The following are given documents.\n\nDocument 1:\nThe lake froze.\nQuestion: of the day\n\n"
    "Answer the question based on the given documents. Only give me the answer.\n\n"
    "Question: What froze?"
)


def row(text: str, *outputs: str, **more: Any) -> dict[str, Any]:
    return {"index": 0, "input": text, "outputs": list(outputs), "length": 3000, **more}


def written(folder: Path, name: str, *rows: dict[str, Any]) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.mark.parametrize(
    ("text", "question"),
    [
        (NIAH, "What are all the special magic numbers for calm-boat"),
        (NIAH + PREFIX, "What are all the special magic numbers for calm-boat"),
        (NIAH.replace("are all", "is"), "What is the special magic numbers"),
        (NIAH.replace("\n", " "), "What are all the special magic numbers for calm-boat"),
        (TRACKING, "Question: Find all variables that are assigned the value 22222"),
        (ASKING, "Answer the question based on the given documents. Only"),
    ],
)
def test_an_input_is_parted_where_its_last_question_begins(text: str, question: str) -> None:
    parts = split_input(text)
    assert parts is not None
    assert parts[1].startswith(question)
    assert text.startswith(parts[0])
    assert text.endswith(parts[1])
    assert text.split() == " ".join(parts).split()


@pytest.mark.parametrize("text", ["", "The hill is steep.", "Question: What froze?"])
def test_what_is_no_document_with_a_question_is_not_parted(text: str) -> None:
    assert split_input(text) is None


def test_tasks_and_lengths_are_told_by_files_and_rows(tmp_path: Path) -> None:
    written(tmp_path, "4096/niah_single_1/validation.jsonl", row(NIAH, "7654321"))
    written(tmp_path, "4096/vt.jsonl", row(TRACKING, "UVW", "XYZ", length=4097))
    written(tmp_path, "8192/vt.jsonl", row(TRACKING, "UVW", "XYZ", length=4096))
    examples = {one.id: one.questions[0] for one in Ruler(tmp_path).all_examples()}
    assert {example_id: dict(question.groups) for example_id, question in examples.items()} == {
        "4096-niah_single_1-validation/0": {"task": "niah_single_1", "tokens": "up to 4096"},
        "4096-vt/0": {"task": "vt", "tokens": "up to 8192"},
        "8192-vt/0": {"task": "vt", "tokens": "up to 4096"},
    }


def test_needles_are_found_where_the_answers_stand(tmp_path: Path) -> None:
    path = written(tmp_path, "niah_single_1.jsonl", row(NIAH, "7654321"))
    (example,) = Ruler(path).all_examples()
    assert example.questions[0].needles == (NEEDLE,)
    assert NEEDLE in example.document
    (example,) = Ruler(written(tmp_path, "vt.jsonl", row(TRACKING, "UVW", "XYZ"))).all_examples()
    assert example.questions[0].needles == ("VAR UVW = 22222", "VAR XYZ = VAR UVW")
    (example,) = Ruler(written(tmp_path, "qa_1.jsonl", row(ASKING, "lake"))).all_examples()
    assert example.questions[0].needles == ()


def test_the_beginning_of_an_answer_closes_the_question(tmp_path: Path) -> None:
    path = written(tmp_path, "niah_single_1.jsonl", row(NIAH, "7654321", answer_prefix=PREFIX))
    (example,) = Ruler(path).all_examples()
    assert example.questions[0].text.endswith(f"in the provided text?{PREFIX}")


@pytest.mark.parametrize(
    ("task", "answer", "score"),
    [
        ("vt", "UVW and xyz", 1),  # Both of two, in either case.
        ("vt", "UVW", 0.5),  # One of two.
        ("vt", "ABC", 0),
        ("qa_1", "It was UVW.", 1),  # One suffices.
        ("qa_1", "ABC", 0),
    ],
)
def test_a_task_is_scored_by_its_rule(tmp_path: Path, task: str, answer: str, score: float) -> None:
    benchmark = Ruler(written(tmp_path, f"{task}.jsonl", row(TRACKING, "UVW", "XYZ")))
    (question,) = next(benchmark.all_examples()).questions
    assert benchmark.score(answer, question) == score


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"input": "The hill is steep."}, "'input': expected a text and one of RULER's questions"),
        ({"input": f"<s>[INST] {NIAH} [/INST]"}, "'input': expected no chat template"),
        ({"input": 1}, "'input': expected text"),
        ({"outputs": []}, "'outputs': expected a text or a list of them, found an empty list"),
        ({"outputs": [1]}, "'outputs': expected a list of texts, found int in it"),
        ({"index": "one"}, "'index': expected a whole number"),
        ({"length": None}, "'length': expected a whole number"),
    ],
)
def test_a_bad_row_is_named_with_its_field(tmp_path: Path, bad: dict[str, Any], said: str) -> None:
    good = row(NIAH, "7654321")
    path = written(tmp_path, "niah_single_1.jsonl", good, {**good, "index": 1, **bad})
    with pytest.raises(DocumentError, match=f"row 2 of .*field {said}"):
        list(Ruler(path).all_examples())


@pytest.mark.parametrize(
    ("task", "room"),
    [("niah_single_1", None), ("vt", 30), ("cwe", 120), ("fwe", 50), ("qa_2", 32)],
)
def test_answers_have_the_room_of_their_task(tmp_path: Path, task: str, room: int | None) -> None:
    text = {"niah_single_1": NIAH, "vt": TRACKING}.get(task, ASKING)
    (one,) = Ruler(written(tmp_path, f"{task}.jsonl", row(text, "1"))).all_examples()
    assert one.questions[0].max_new_tokens == room
    assert Ruler.max_new_tokens == 128
