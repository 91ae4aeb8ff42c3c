"""Variable tracking: an independent reader of the assignments finds exactly the references."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.errors import ConfigError
from ttt_core.examples import Example, Split, Task
from ttt_core.sandbox.tasks.retrieval_haystack import Haystack
from ttt_core.sandbox.tasks.seeds import stream
from ttt_core.sandbox.tasks.tracking import VariableTracking, draw_chains

HAYSTACKS: tuple[Haystack, ...] = get_args(Haystack)
SEEDS = st.integers(0, 10**9)


def draw(task: VariableTracking, length: int, *, seed: int = 0, split: Split = "score") -> Example:
    [example] = task.examples(length, split=split, seed=seed, count=1)
    return example


def execute(document: str) -> dict[str, list[str]]:
    """Run the assignments from top to bottom; return the variables by value."""
    tokens, values = document.split(), dict[str, str]()
    for place, token in enumerate(tokens):
        if token == "=":
            name, source = tokens[place - 1], tokens[place + 1]
            assert name not in values
            values[name] = values[tokens[place + 2]] if source == "VAR" else source
    found: dict[str, list[str]] = {}
    for name, value in values.items():
        found.setdefault(value, []).append(name)
    return found


@pytest.mark.parametrize("haystack", HAYSTACKS)
@settings(max_examples=20)
@given(length=st.integers(150, 1500), seed=SEEDS, hops=st.integers(1, 5))
def test_running_the_document_gives_the_references(
    haystack: Haystack, length: int, seed: int, hops: int
) -> None:
    task = VariableTracking(haystack, hops=hops)
    example = draw(task, length, seed=seed)
    found = execute(example.document)
    values = [value for value in found for q in example.questions if f"value {value}," in q.text]
    assert len(values) == len(example.questions) == 4
    assert len(set(values)) == 4
    for question in example.questions:
        [value] = [value for value in found if f"value {value}," in question.text]
        assert found[value] == list(question.references)
        assert len(question.references) == hops + 1
        assert all(example.document.count(needle) == 1 for needle in question.needles)
        assert task.score("\n".join(question.references), question) == 1
    first, second, *_ = example.questions
    assert task.score(", ".join(first.references), second) == 0


@pytest.mark.parametrize("haystack", HAYSTACKS)
@settings(max_examples=10)
@given(short=st.integers(100, 600), more=st.integers(40, 600), seed=SEEDS)
def test_documents_grow_around_the_same_chains(
    haystack: Haystack, short: int, more: int, seed: int
) -> None:
    task = VariableTracking(haystack)
    shorter, longer = (draw(task, length, seed=seed) for length in (short, short + more))
    assert shorter == draw(task, short, seed=seed)
    assert shorter.questions == longer.questions
    assert len(shorter.document) < len(longer.document)
    # What did not fit any more has 24 words at most: a chain of four hops, 4 + 4 * 5.
    for example, length in ((shorter, short), (longer, short + more)):
        assert length - 24 < len(example.document.split()) <= length


def test_in_the_needles_haystack_a_longer_document_keeps_every_chain() -> None:
    shorter, longer = (execute(draw(VariableTracking("needles"), n).document) for n in (500, 2000))
    assert len(shorter) == 500 // 24
    assert len(longer) == 2000 // 24
    assert all(longer[value] == names for value, names in shorter.items())


def test_chains_run_through_each_other() -> None:
    document = draw(VariableTracking(), 1000).document
    lines = [line for line in document.splitlines() if line.startswith("VAR")]
    direct = sum(b.endswith(a.split()[1]) for a, b in pairwise(lines))
    assert len(lines) == 20
    assert direct < 10  # Of 16 hops, about a quarter by chance.


def test_splits_seeds_and_examples_differ() -> None:
    splits: tuple[Split, ...] = ("tune", "score")
    drawn = [
        example.document
        for split in splits
        for seed in range(5)
        for example in VariableTracking().examples(150, split=split, seed=seed, count=5)
    ]
    assert len(set(drawn)) == 50


def test_guessing_is_worth_next_to_nothing() -> None:
    # Five names out of 20**5 = 3,200,000 possible ones, guessed five times: 25 / 3.2e6 are found
    # on average, of five.
    question = draw(VariableTracking(), 250).questions[0]
    assert question.chance == pytest.approx(5 / 3.2e6)
    assert question.groups == {"haystack": "noise", "hops": "4"}


def test_no_name_can_be_a_word() -> None:
    drawn = draw_chains(200, 4, stream("t", "score", 0, 0, "needle"))
    names = [name for chain in drawn for name in chain.names]
    assert len(set(names)) == 1000
    assert not set("".join(names)) & set("AEIOUY")
    assert len({chain.value for chain in drawn}) == 200


@pytest.mark.parametrize("length", [None, 95])
def test_documents_too_short_for_their_chains_are_refused(length: int | None) -> None:
    task = VariableTracking()  # Four chains of 24 words.
    with pytest.raises(ConfigError, match="at least 96"):
        next(task.examples(length, split="score", seed=0, count=1))
    assert len(draw(task, 96).document.split()) == 96


@pytest.mark.parametrize(("chains", "hops", "questions"), [(4, 0, 4), (4, 4, 0), (3, 4, 4)])
def test_impossible_settings_are_refused(chains: int, hops: int, questions: int) -> None:
    with pytest.raises(ConfigError, match="at least"):
        VariableTracking(chains=chains, hops=hops, questions=questions)


def test_it_is_a_task() -> None:
    assert isinstance(VariableTracking(), Task)
