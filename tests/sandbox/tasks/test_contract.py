"""What every controlled task promises, whatever it asks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ttt_core.errors import ConfigError
from ttt_core.examples import Example, Split, Task
from ttt_core.sandbox.tasks import get_task, task_names
from ttt_core.sandbox.tasks.seeds import stream

TASKS = task_names()


def draw(
    task: Task, length: int, *, split: Split = "score", seed: int = 5, count: int = 2
) -> list[Example]:
    return list(task.examples(length, split=split, seed=seed, count=count))


@pytest.mark.parametrize("name", TASKS)
def test_same_arguments_give_the_same_examples(name: str) -> None:
    length = get_task(name).lengths[0]
    drawn = draw(get_task(name), length, count=3)
    assert drawn == draw(get_task(name), length, count=3)
    assert drawn[:2] == draw(get_task(name), length)
    assert len({example.document for example in drawn}) == 3


@pytest.mark.parametrize("name", TASKS)
def test_splits_and_seeds_share_no_document(name: str) -> None:
    task = get_task(name)
    splits: list[Split] = ["tune", "score"]
    drawn = [
        draw(task, task.lengths[0], split=split, seed=seed, count=1)
        for split in splits
        for seed in (0, 1)
    ]
    assert len({example.document for [example] in drawn}) == 4
    assert len({example.id for [example] in drawn}) == 4


@pytest.mark.parametrize("name", TASKS)
def test_haystack_grows_and_questions_stay(name: str) -> None:
    task = get_task(name)
    short, middle, long = (draw(task, length)[1] for length in task.lengths[:3])
    assert len(short.document) < len(middle.document) < len(long.document)
    asked = [[question.text for question in each.questions] for each in (short, middle, long)]
    assert asked[0] == asked[1] == asked[2]
    assert [each.length for each in (short, middle, long)] == list(task.lengths[:3])


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("which", [0, 2])
def test_needles_stand_in_the_document_and_references_are_right(name: str, which: int) -> None:
    task = get_task(name)
    for example in draw(task, task.lengths[which]):
        assert len({question.id for question in example.questions}) == len(example.questions) > 0
        for question in example.questions:
            assert question.needles
            assert all(needle in example.document for needle in question.needles)
            assert task.score(", ".join(question.references), question) == 1
            assert task.score("", question) == task.score("I don't know.", question) == 0
            assert 0 <= question.chance < 0.5


@pytest.mark.parametrize("name", TASKS)
def test_lengths_that_cannot_be_are_refused(name: str) -> None:
    for length in (0, -1, None):
        with pytest.raises(ValueError, match=r"length|word|line"):
            list(get_task(name).examples(length, split="score", seed=0, count=1))


def test_unknown_names_say_what_was_meant() -> None:
    with pytest.raises(ConfigError, match="did you mean 'registry'"):
        get_task("registri")


def test_tasks_load_no_torch_and_the_package_loads_no_task() -> None:
    code = (
        "import sys, ttt_core.sandbox.tasks as t; before = set(sys.modules);"
        "assert not [m for m in before if m.startswith('ttt_core.sandbox.tasks.')];"
        "[t.get_task(name) for name in t.task_names()];"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_streams_differ_in_every_part_of_their_name() -> None:
    names: list[tuple[str, Split, int, int, str]] = [
        ("a", "score", 0, 0, "needle"),
        ("b", "score", 0, 0, "needle"),
        ("a", "tune", 0, 0, "needle"),
        ("a", "score", 1, 0, "needle"),
        ("a", "score", 0, 1, "needle"),
        ("a", "score", 0, 0, "haystack"),
        ("a", "score", 1, 1, "needle"),
        ("a", "score", 11, 1, "needle"),
        ("a", "score", 1, 11, "needle"),
    ]
    assert len({stream(*name).random() for name in names}) == len(names)


def test_streams_are_the_same_everywhere() -> None:
    """Results name seeds: those must mean the same documents on every machine, for ever."""
    assert stream("registry", "score", 0, 0, "needle").getrandbits(32) == 3601841956
