"""LongBench v2: the official prompt, the official reading of answers, and clean splits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ttt_core.errors import DocumentError
from ttt_core.evaluation.benchmarks import benchmark_names, get_benchmark
from ttt_core.evaluation.benchmarks.longbench_v2 import LongBenchV2, extract_letter
from ttt_core.examples import Split, Task

ROW = {
    "_id": "a1",
    "domain": "Single-Document QA",
    "sub_domain": "Novel",
    "difficulty": "easy",
    "length": "short",
    "question": " Who keeps the lamp? ",
    "choice_A": "The cook",
    "choice_B": "The pilot ",
    "choice_C": "The widow",
    "choice_D": "Nobody",
    "answer": "C",
    "context": "\nThe widow keeps the lamp.\n",
}


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ids(task: Task, split: Split, seed: int, count: int) -> list[str]:
    return [one.id for one in task.examples(None, split=split, seed=seed, count=count)]


def test_document_and_question_are_the_official_prompt(tmp_path: Path) -> None:
    (example,) = LongBenchV2(written(tmp_path, ROW)).all_examples()
    (question,) = example.questions
    assert f"{example.document}\n\n{question.text}" == (
        "Please read the following text and answer the question below.\n\n"
        "<text>\nThe widow keeps the lamp.\n</text>\n\n"
        "What is the correct answer to this question: Who keeps the lamp?\nChoices:\n"
        "(A) The cook\n(B) The pilot\n(C) The widow\n(D) Nobody\n\n"
        'Format your response as follows: "The correct answer is (insert answer here)".'
    )
    assert (example.id, question.references, question.chance) == ("a1", ("C",), 0.25)
    assert question.choices == ("A", "B", "C", "D")
    assert question.groups == {
        "domain": "Single-Document QA",
        "sub_domain": "Novel",
        "difficulty": "easy",
        "length": "short",
    }


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("The correct answer is (B).", "B"),
        ("**The correct answer is (B)**", "B"),
        ("The correct answer is *(B)*", "B"),
        ("The correct answer is B", "B"),
        ("So. The correct answer is A... no: The correct answer is (D)", "D"),  # Brackets first.
        ("The correct answer is (A) or (B). The correct answer is (C)", "A"),
        ("The correct answer is (E)", None),
        ("the correct answer is (B)", None),  # The official rule minds case.
        ("The correct answer is: (B)", None),
        ("(B)", None),
        ("", None),
    ],
)
def test_letters_are_read_by_the_official_rule(answer: str, letter: str | None) -> None:
    assert extract_letter(answer) == letter


def test_only_the_right_letter_scores(tmp_path: Path) -> None:
    task = LongBenchV2(written(tmp_path, ROW))
    (question,) = next(task.all_examples()).questions
    scores = [task.score(f"The correct answer is ({letter})", question) for letter in "ABCD"]
    assert scores == [0, 0, 1, 0]
    assert task.score("I do not know", question) == 0


@pytest.mark.parametrize("field", sorted(ROW))
def test_a_bad_row_is_named_with_its_field(tmp_path: Path, field: str) -> None:
    for bad in (
        {**ROW, field: 7},
        {**ROW, field: "  "},
        {k: v for k, v in ROW.items() if k != field},
    ):
        with pytest.raises(DocumentError, match=f"row 2 of .*field '{field}': expected"):
            list(LongBenchV2(written(tmp_path, {**ROW, "_id": "a0"}, bad)).all_examples())


def test_an_answer_that_is_no_letter_is_refused_unquoted(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="one of A, B, C, D, found a str") as caught:
        list(LongBenchV2(written(tmp_path, {**ROW, "answer": "widow"})).all_examples())
    assert "widow" not in str(caught.value)


def test_splits_are_disjoint_complete_and_the_same_for_every_seed(tmp_path: Path) -> None:
    task = LongBenchV2(
        written(tmp_path, *({**ROW, "_id": str(n), "context": str(n)} for n in range(200)))
    )
    tune, score = set(ids(task, "tune", 0, 200)), set(ids(task, "score", 0, 200))
    assert not tune & score
    assert len(tune | score) == 200
    # A tenth is 20 with a standard deviation of sqrt(200 * .1 * .9) = 4.2.
    assert 4 <= len(tune) <= 36
    assert set(ids(task, "tune", 7, 200)) == tune


def test_the_seed_orders_and_the_count_extends(tmp_path: Path) -> None:
    task = LongBenchV2(
        written(tmp_path, *({**ROW, "_id": str(n), "context": str(n)} for n in range(50)))
    )
    drawn = ids(task, "score", 1, 20)
    assert ids(task, "score", 1, 20) == drawn
    assert ids(task, "score", 1, 5) == drawn[:5]
    assert ids(task, "score", 2, 20) != drawn
    assert ids(task, "score", 1, 0) == []
    shuffled = LongBenchV2(
        written(tmp_path, *({**ROW, "_id": str(n), "context": str(n)} for n in range(49, -1, -1)))
    )
    assert ids(shuffled, "score", 1, 20) == drawn


def test_questions_about_one_document_are_on_one_side(tmp_path: Path) -> None:
    rows = [{**ROW, "_id": str(n), "context": str(n // 2)} for n in range(100)]
    task = LongBenchV2(written(tmp_path, *rows))
    documents = {one.source for one in task.all_examples()}
    assert len(documents) == 50
    tune = task.examples(None, split="tune", seed=0, count=100)
    score = task.examples(None, split="score", seed=0, count=100)
    assert not {one.source for one in tune} & {one.source for one in score}


@pytest.mark.parametrize("split", ["tune", "score"])
@pytest.mark.parametrize("rows", [0, 1])
def test_a_split_without_examples_is_said(tmp_path: Path, split: Split, rows: int) -> None:
    task = LongBenchV2(written(tmp_path, *[ROW] * rows))
    if rows and split == "score":
        assert ids(task, split, 0, 1) == ["a1"]
        return
    with pytest.raises(
        DocumentError, match=rf"rows\.jsonl has no example for .*'{split}', and {rows}"
    ):
        ids(task, split, 0, 1)
    assert ids(task, split, 0, 0) == []


def test_one_id_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="example 2 has the id of an earlier one"):
        ids(LongBenchV2(written(tmp_path, ROW, ROW)), "score", 0, 1)


def test_there_is_no_length_axis(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no length axis; expected None, got 64"):
        list(LongBenchV2(written(tmp_path, ROW)).examples(64, split="score", seed=0, count=1))


def test_every_name_is_a_task_and_a_wrong_one_is_helped(tmp_path: Path) -> None:
    for name in benchmark_names():
        task = get_benchmark(name, tmp_path)
        assert isinstance(task, Task)
        assert task.name == name
    with pytest.raises(
        ValueError, match=r"unknown benchmark 'longbench_v2'; did you mean 'longbench-v2'"
    ):
        get_benchmark("longbench_v2", tmp_path)


def test_making_every_benchmark_loads_no_torch_and_reads_nothing() -> None:
    code = (
        "import sys; from ttt_core.evaluation.benchmarks import benchmark_names, get_benchmark\n"
        "for name in benchmark_names(): get_benchmark(name, 'nowhere')\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'jieba', 'rouge'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_sample_loads_completely(data: Path) -> None:
    examples = list(LongBenchV2(data / "longbench_v2_sample.jsonl").all_examples())
    assert len({one.id for one in examples}) == 33
    groups = [one.questions[0].groups for one in examples]
    assert Counter(group["difficulty"] for group in groups) == {"hard": 25, "easy": 8}
    assert Counter(group["length"] for group in groups) == {"short": 31, "medium": 2}
    assert len({group["domain"] for group in groups}) == 6
