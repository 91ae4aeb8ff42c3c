"""LongICLBench: its wording around the demonstrations of `ManyShot`, and its reading of answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttt_core.errors import ConfigError, DocumentError
from ttt_core.evaluation.benchmarks.longicl import LongICL

LABELS = ("card_lost", "Refund_late", "top_up?")


def table(path: Path, rows: int, label: str = "category") -> Path:
    lines = [f"text,{label}"]
    lines += [f'"{path.stem} text, {name} {n}",{name}' for n in range(rows) for name in LABELS]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table(tmp_path / "banking77_train.csv", 5)
    table(tmp_path / "banking77_test.csv", 12)
    return tmp_path


def test_the_document_is_the_official_prompt_up_to_the_question(folder: Path) -> None:
    task = LongICL(folder)
    (example,) = task.examples(2, split="score", seed=0, count=1)
    head, *shown = example.document.rstrip("\n").split("\n")
    assert head == (
        "Given a customer service query, please predict the intent of the query. The predict "
        "answer must come from the demonstration examples with the exact format. "
        "The examples are as follows: "
    )
    # Two rounds of three labels, two lines each.
    assert len(shown) == 12
    labels = [line.removeprefix("intent category: ") for line in shown[1::2]]
    assert sorted(labels[:3]) == sorted(labels[3:]) == sorted(LABELS)
    assert all(line.startswith("service query: banking77_train text, ") for line in shown[::2])


def test_questions_come_from_the_test_file(folder: Path) -> None:
    task = LongICL(folder, questions=4)
    (example,) = task.examples(1, split="score", seed=0, count=1)
    assert len(example.questions) == 4
    for question in example.questions:
        assert question.text.startswith("service query: banking77_test text, ")
        assert question.text.endswith("\nintent category:")
        assert question.chance == 1 / 3
        assert question.references[0] in LABELS


@pytest.mark.parametrize(
    ("form", "score"),
    [
        ("{label}", 1),
        (" {label}\nservice query: another", 1),
        ("{lower}", 1),
        ("{label} service query: another", 1),
        ("{question} {label}\n", 1),  # The text restated, as base models do.
        ("the label is {label}", 0),
        ("", 0),
    ],
)
def test_answers_are_read_the_official_way(folder: Path, form: str, score: float) -> None:
    task = LongICL(folder)
    (example,) = task.examples(1, split="score", seed=0, count=1)
    question = next(one for one in example.questions if one.references == ("Refund_late",))
    answer = form.format(label="Refund_late", lower="refund_late", question=question.text)
    assert task.score(answer, question) == score


def test_a_single_file_is_shown_and_asked(tmp_path: Path) -> None:
    task = LongICL(table(tmp_path / "mine.csv", 40, label="label_text"))
    (example,) = task.examples(1, split="score", seed=0, count=1)
    assert example.document.startswith("Predict the label of a text.")
    texts = {question.text.splitlines()[0] for question in example.questions}
    assert texts
    assert not texts & set(example.document.splitlines())


def test_another_data_set_has_another_wording(tmp_path: Path) -> None:
    table(tmp_path / "goemotions_train.csv", 5)
    table(tmp_path / "goemotions_test.csv", 12)
    (example,) = LongICL(tmp_path).examples(1, split="score", seed=0, count=1)
    assert example.document.startswith("Given a comment, please predict the emotion category")
    assert example.questions[0].text.endswith("\nemotion category:")


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'banking77'"):
        LongICL(tmp_path, dataset="banking7")
    with pytest.raises(DocumentError, match="split 'train'"):
        list(LongICL(tmp_path).examples(1, split="score", seed=0, count=1))
    (tmp_path / "empty.csv").write_text("text,category\n")
    with pytest.raises(DocumentError, match="has no rows"):
        list(LongICL(tmp_path / "empty.csv").examples(1, split="score", seed=0, count=1))
    task = LongICL(table(tmp_path / "mine.csv", 4), label="kind")
    with pytest.raises(DocumentError, match=r"mine\.csv: row 1: .*column 'kind', found nothing"):
        list(task.examples(1, split="score", seed=0, count=1))


def test_banking77_loads_completely(data: Path) -> None:
    task = LongICL(data)
    (example,) = task.examples(5, split="score", seed=0, count=1)
    labels = example.document.rstrip("\n").splitlines()[2::2]
    assert len(labels) == 5 * 77
    assert len(set(labels)) == 77
    assert "intent category: reverted_card_payment?" in labels
    assert "intent category: Refund_not_showing_up" in labels
    for question in example.questions:
        assert question.chance == 1 / 77
        assert len(question.needles) == 5
        assert all(needle in example.document for needle in question.needles)
        assert task.score(question.references[0], question) == 1
