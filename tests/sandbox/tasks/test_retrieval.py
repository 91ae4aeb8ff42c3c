"""Key-value retrieval: needles stay, haystacks grow, and scores are RULER's."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ttt_core.errors import ConfigError
from ttt_core.examples import Example, Question, Split, Task
from ttt_core.sandbox.tasks.retrieval import MultiKey, MultiQuery, MultiValue, Retrieval
from ttt_core.sandbox.tasks.retrieval_haystack import (
    NOISE,
    Haystack,
    Needle,
    filler,
    lay_out,
    take_words,
)
from ttt_core.sandbox.tasks.retrieval_scoring import string_match_all, string_match_part
from ttt_core.sandbox.tasks.seeds import stream

TASKS: tuple[Callable[[Haystack], Retrieval], ...] = (MultiKey, MultiValue, MultiQuery)
HAYSTACKS: tuple[Haystack, ...] = get_args(Haystack)
KINDS = [
    pytest.param(make, hay, id=f"{make.__name__}-{hay}") for make in TASKS for hay in HAYSTACKS
]
SEEDS = st.integers(0, 10**9)


def draw(task: Retrieval, length: int, *, seed: int = 0, split: Split = "score") -> Example:
    [example] = task.examples(length, split=split, seed=seed, count=1)
    return example


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(("make", "haystack"), KINDS)
@settings(max_examples=15)
@given(length=st.integers(60, 1500), seed=SEEDS)
@example(length=304, seed=5860)  # That sentence is the next one.
def test_documents_hold_their_needles_and_are_as_long_as_asked(
    make: Callable[[Haystack], Retrieval], haystack: Haystack, length: int, seed: int
) -> None:
    task = make(haystack)
    example = draw(task, length, seed=seed)
    assert example == draw(task, length, seed=seed)
    # The longest sentence has 15 words; the one that did not fit any more was left out.
    assert length - 15 < words(example.document) <= length
    for question in example.questions:
        for needle, reference in zip(question.needles, question.references, strict=True):
            assert example.document.count(needle) == 1
            assert needle.endswith(f" {reference}.")
            assert example.document.count(reference) == 1
        assert task.score("They are " + ", ".join(question.references), question) == 1
        assert task.score("I do not know.", question) == 0


@pytest.mark.parametrize(("make", "haystack"), KINDS)
@settings(max_examples=10)
@given(short=st.integers(60, 600), more=st.integers(20, 600), seed=SEEDS)
def test_longer_documents_hold_the_shorter_ones_in_their_order(
    make: Callable[[Haystack], Retrieval], haystack: Haystack, short: int, more: int, seed: int
) -> None:
    shorter, longer = (draw(make(haystack), length, seed=seed) for length in (short, short + more))
    assert shorter.questions == longer.questions
    needles = [needle for question in longer.questions for needle in question.needles]
    hay = [without(example.document, needles) for example in (shorter, longer)]
    assert hay[1].startswith(hay[0])
    assert len(longer.document) > len(shorter.document)
    order = sorted(needles, key=shorter.document.index)
    assert order == sorted(needles, key=longer.document.index)


def without(document: str, needles: list[str]) -> str:
    for needle in needles:
        document = document.replace(needle, "")
    return " ".join(document.split())


@pytest.mark.parametrize("make", TASKS)
def test_needles_are_the_same_in_every_haystack(make: Callable[[Haystack], Retrieval]) -> None:
    asked = [draw(make(haystack), 500).questions for haystack in HAYSTACKS]
    needles = [[(q.text, q.references, q.needles) for q in questions] for questions in asked]
    assert needles[0] == needles[1] == needles[2]


@pytest.mark.parametrize("make", TASKS)
def test_splits_seeds_and_examples_differ(make: Callable[[Haystack], Retrieval]) -> None:
    splits: tuple[Split, ...] = ("tune", "score")
    drawn = [
        example
        for split in splits
        for seed in range(5)
        for example in make("text").examples(100, split=split, seed=seed, count=5)
    ]
    assert len({example.document for example in drawn}) == len(drawn) == 50
    assert len({example.id for example in drawn}) == 50


@pytest.mark.parametrize(
    ("task", "questions", "references", "chance"),
    [
        # A seven-digit number is one of 9,000,000; v guesses find v references with v times that,
        # each of which is worth 1 / v of the score: v * v / 9e6 / v.
        (MultiKey(), 4, 1, 1 / 9e6),
        (MultiKey(keys=9, questions=2), 2, 1, 1 / 9e6),
        (MultiValue(), 1, 4, 4 / 9e6),
        (MultiValue(values=2, questions=3), 3, 2, 2 / 9e6),
        (MultiQuery(), 1, 4, 4 / 9e6),
        (MultiQuery(queries=3, questions=2), 2, 3, 3 / 9e6),
    ],
)
def test_what_is_asked_and_what_guessing_is_worth(
    task: Retrieval, questions: int, references: int, chance: float
) -> None:
    example = draw(task, 500)
    assert len(example.questions) == questions
    assert {len(set(question.references)) for question in example.questions} == {references}
    assert [question.chance for question in example.questions] == [
        pytest.approx(chance)
    ] * questions
    assert len({question.text for question in example.questions}) == questions


def test_keys_of_multi_key_have_needles_whether_asked_for_or_not() -> None:
    example = draw(MultiKey("noise", keys=7, questions=2), 500)
    assert example.document.count("One of the special magic numbers for") == 7


def test_every_line_of_the_needles_haystack_has_a_key_of_its_own() -> None:
    lines = draw(MultiKey(), 8000).document.splitlines()
    assert len(lines) == 800  # A needle has ten words.
    assert len({line.split(" is: ")[0] for line in lines}) == 800


@settings(max_examples=20)
@given(seed=SEEDS)
def test_depth_names_the_fifth_in_which_the_needle_stands(seed: int) -> None:
    example = draw(MultiKey(), 4000, seed=seed)
    lines = example.document.splitlines()
    for question in example.questions:
        low, high = (int(part) / 100 for part in question.groups["depth"].rstrip("%").split("-"))
        # 400 lines: the three other needles shift a line by less than a hundredth.
        assert low - 0.01 <= lines.index(question.needles[0]) / len(lines) <= high + 0.01


def test_needles_stand_everywhere() -> None:
    drawn = MultiKey().examples(250, split="score", seed=0, count=50)
    depths = [question.groups["depth"] for example in drawn for question in example.questions]
    # 200 needles, 40 in each fifth, with a standard deviation of 5.7.
    assert all(18 <= depths.count(depth) <= 62 for depth in set(depths))
    assert len(set(depths)) == 5


def test_questions_name_their_keys() -> None:
    [question] = draw(MultiQuery(), 250).questions
    keys = [needle.split()[7] for needle in question.needles]
    assert f"for {keys[0]}, {keys[1]}, {keys[2]}, and {keys[3]} mentioned" in question.text
    assert not any(reference in question.text for reference in question.references)


def test_generated_text_has_no_digits_and_noise_is_rulers() -> None:
    text = take_words(filler("text", stream("t", "score", 0, 0, "hay")), 2000)
    assert not any(letter.isdigit() for letter in "".join(text))
    assert len(set(text)) > 0.95 * len(text)
    # 4 + 4 + 4 + 3 + 4 words, and again 4 + 4; the third sentence does not fit into 30.
    noise = take_words(filler("noise", stream("t", "score", 0, 0, "hay")), 30)
    assert noise == [*NOISE, *NOISE[:2]]


def test_layout() -> None:
    needles = [Needle("B", 0.5), Needle("A", 0.0), Needle("Z", 0.99)]
    # Four lines stand at 1/8, 3/8, 5/8 and 7/8.
    assert lay_out(needles, ["1", "2", "3", "4"], "noise") == "A\n1\n2\nB\n3\n4\nZ\n"
    assert lay_out(needles, ["1"], "text") == "A B 1 Z\n"


@pytest.mark.parametrize(
    ("answer", "references", "share", "part"),
    [
        ("123 and 456", ["123", "456"], 1.0, 1.0),
        ("only 456.", ["123", "456"], 0.5, 1.0),
        ("", ["123", "456"], 0.0, 0.0),
        ("The Yellow\tBRICK road", ["yellow", "brick", "oz"], 2 / 3, 1.0),
        ("a\x00b", ["a\nb"], 1.0, 1.0),
        ("12 3", ["123"], 0.0, 0.0),
        ("\x00 x \x00", ["x"], 1.0, 1.0),
    ],
)
def test_string_match_is_the_share_of_references_contained(
    answer: str, references: list[str], share: float, part: float
) -> None:
    assert string_match_all(answer, references) == pytest.approx(share)
    assert string_match_part(answer, references) == part


def test_wrong_values_count_nothing_and_right_ones_their_share() -> None:
    [question] = draw(MultiValue(), 250).questions
    first, second, *_ = question.references
    assert MultiValue().score(f"{first}, {second}, 1111111", question) == 0.5


@pytest.mark.parametrize("length", [None, 0, 39])
def test_documents_too_short_for_their_needles_are_refused(length: int | None) -> None:
    with pytest.raises(ConfigError, match="between 40 and"):  # Four needles of ten words.
        next(MultiKey().examples(length, split="score", seed=0, count=1))


@pytest.mark.parametrize("length", [40, 92_150])
def test_the_shortest_and_the_longest_document(length: int) -> None:
    # 97 adjectives times 95 nouns are 9,215 keys, ten words each.
    assert words(draw(MultiKey(), length).document) == length


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="noise"):
        MultiKey("nois")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        MultiValue(values=0)
    with pytest.raises(ConfigError, match="at least one reference"):
        string_match_all("x", Question(id="0", text="", references=()).references)


@pytest.mark.parametrize("make", TASKS)
def test_they_are_tasks(make: Callable[[Haystack], Retrieval]) -> None:
    assert isinstance(make("noise"), Task)
