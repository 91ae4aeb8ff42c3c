"""bAbI: a question knows only what stands before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttt_core.errors import DocumentError
from ttt_core.evaluation.benchmarks.babi import Babi
from ttt_core.examples import Split

STORY = (
    "1 Ann went to the attic.\n"
    "2 Bob took the lamp there.\n"
    "3 Where is Ann?\tattic\t1\n"
    "4 Ann went to the cellar.\n"
    "5 Where is Ann?\tcellar\t4\n"
    "6 Where is the lamp? \tporch\t2 1\n"
)


def written(folder: Path, text: str, name: str = "tiny_qa1_test.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_a_question_knows_only_the_facts_before_it(tmp_path: Path) -> None:
    first, second, third = Babi(written(tmp_path, STORY)).all_examples()
    assert first.document == "Ann went to the attic.\nBob took the lamp there."
    assert second.document == f"{first.document}\nAnn went to the cellar."
    assert third.document == second.document
    assert first.questions[0].text == "Where is Ann? Answer with one word only."
    assert [one.questions[0].references for one in (first, second, third)] == [
        ("attic",),
        ("cellar",),
        ("porch",),
    ]
    assert third.questions[0].needles == ("Bob took the lamp there.", "Ann went to the attic.")
    assert third.questions[0].groups == {"task": "qa1", "supporting facts": "2"}
    assert third.questions[0].chance == 1 / 3  # Attic, cellar, porch.
    assert third.questions[0].choices == ("attic", "cellar", "porch")


def test_line_1_begins_a_new_story(tmp_path: Path) -> None:
    text = "\ufeff" + (STORY + "\n" + STORY).replace("\n", "\r\n")
    examples = list(Babi(written(tmp_path, text)).all_examples())
    assert len({one.id for one in examples}) == 6
    assert [one.document for one in examples[:3]] == [one.document for one in examples[3:]]


def test_no_story_is_in_both_splits(tmp_path: Path) -> None:
    task = Babi(written(tmp_path, STORY * 100))

    def stories(split: Split) -> set[str]:
        drawn = task.examples(None, split=split, seed=0, count=300)
        return {str(example.source) for example in drawn}

    assert not stories("tune") & stories("score")
    assert len(stories("tune") | stories("score")) == 100
    assert stories("tune")


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("attic", 1),
        ("Ann is in the Attic.", 1),
        ("attics", 0),
        ("cellar", 0),
        ("attic, cellar or porch", 0),  # Naming all is no answer.
        ("", 0),
    ],
)
def test_the_right_place_alone_counts(tmp_path: Path, answer: str, score: float) -> None:
    task = Babi(written(tmp_path, STORY))
    (question,) = next(task.all_examples()).questions
    assert task.score(answer, question) == score


def test_an_answer_of_several_words_is_right_in_any_order(tmp_path: Path) -> None:
    task = Babi(written(tmp_path, "1 Ann took both.\n2 What has Ann?\tlamp,rope\t1\n"))
    (question,) = next(task.all_examples()).questions
    assert question.text.endswith("the words, commas between them, only.")
    assert task.score("A rope and a lamp", question) == 1
    assert task.score("lamp", question) == 0


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("south, west", 1),
        ("First go South, then West.", 1),
        ("west, south", 0),  # The way from elsewhere.
        ("south", 0),
        ("south, west, south", 0),
        ("s,w", 0),
    ],
)
def test_a_path_is_asked_for_in_words_and_right_in_its_order_alone(
    tmp_path: Path, answer: str, score: float
) -> None:
    story = "1 The attic is north of the hall.\n2 How do you go on?\ts,w\t1\n"
    task = Babi(written(tmp_path, story, "qa19_test.txt"))
    (question,) = next(task.all_examples()).questions
    assert question.references == ("south,west",)
    assert question.text.endswith("the directions in their order, commas between them, only.")
    assert task.score(answer, question) == score


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Ann went home.", "expected a number"),
        ("7", "expected a number"),
        ("7 Where?\tattic", "expected question, answer and supporting lines"),
        ("7 Where?\t\t1", "expected question, answer and supporting lines"),
        ("7 Where?\tattic\t8", "must be facts that stand before it"),
        ("7 Where?\tattic\t3", "must be facts that stand before it"),  # A question.
        ("7 Where?\tattic\tone", "must be facts that stand before it"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(DocumentError, match=f"line 7: .*{said}"):
        list(Babi(written(tmp_path, STORY + line + "\n")).all_examples())


@pytest.mark.parametrize(("task", "support"), [("qa1", 1), ("qa2", 2)])
def test_the_sample_loads_completely(data: Path, task: str, support: int) -> None:
    benchmark = Babi(data / f"babi_{task}_test.txt")
    examples = list(benchmark.all_examples())
    assert len({one.id for one in examples}) == 1000
    assert len({one.source for one in examples}) == 200
    for example in examples:
        (question,) = example.questions
        assert question.groups == {"task": task, "supporting facts": str(support)}
        assert set(question.needles) <= set(example.document.splitlines())
        assert question.chance == pytest.approx(1 / 6)
        assert benchmark.score(question.references[0], question) == 1
