"""Needle in a haystack: the needle verbatim at its depth, between whole sentences."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.errors import ConfigError, DocumentError
from ttt_core.evaluation.benchmarks.niah import SANDWICH, Needle, NeedleInAHaystack, sentences
from ttt_core.examples import Example, Split

NEEDLE_WORDS = len(SANDWICH.text.split())


def draw(
    task: NeedleInAHaystack, length: int, count: int, split: Split = "score", seed: int = 0
) -> list[Example]:
    return list(task.examples(length, split=split, seed=seed, count=count))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """300 sentences of four words, ten a line, in two files."""
    for part, name in enumerate(("a.txt", "b.txt")):
        numbers = range(part * 150, part * 150 + 150)
        lines = (
            " ".join(f"Here stands number {n}." for n in numbers[i : i + 10])
            for i in range(0, 150, 10)
        )
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return tmp_path


@given(length=st.integers(40, 900), seed=st.integers(0, 99), depth=st.integers(0, 100))
@settings(max_examples=25)
def test_a_document_is_no_longer_than_asked_and_holds_the_needle_once(
    length: int, seed: int, depth: int
) -> None:
    (example,) = draw(NeedleInAHaystack(depths=(depth,)), length, 1, seed=seed)
    assert len(example.document.split()) <= length
    assert len(example.document.split()) > length - 20  # A generated sentence is no longer.
    assert example.document.count(SANDWICH.text) == 1
    assert example.length == length
    assert example.questions[0].groups == {"depth": f"{depth}%"}


def test_the_needle_stands_at_its_depth_between_sentences(text: Path) -> None:
    examples = draw(NeedleInAHaystack(text), 200 + NEEDLE_WORDS, 10)
    assert [one.questions[0].groups["depth"] for one in examples[:5]] == [
        "0%",
        "25%",
        "50%",
        "75%",
        "100%",
    ]
    # A few of several seeds reach all depths as well.
    few = [one for seed in range(5) for one in draw(NeedleInAHaystack(text), 300, 2, seed=seed)]
    assert Counter(one.questions[0].groups["depth"] for one in few) == Counter(
        {"0%": 2, "25%": 2, "50%": 2, "75%": 2, "100%": 2}
    )
    for example, depth in zip(examples, (0, 25, 50, 75, 100) * 2, strict=True):
        before, after = example.document.split(SANDWICH.text)
        # 200 words are 50 sentences of four words: 0, 12.5 (rounded to even), 25, 37.5, 50.
        assert before.count(".") == {0: 0, 25: 12, 50: 25, 75: 38, 100: 50}[depth]
        assert before.count(".") + after.count(".") == 50
        assert not before.strip() or before.strip().endswith(".")
        assert not after.strip() or after.strip().startswith("Here stands number ")


def test_the_haystack_grows_from_the_same_sentence_and_goes_round(text: Path) -> None:
    task = NeedleInAHaystack(text, depths=(100,))
    documents = [draw(task, length, 3)[2].document for length in (100, 400, 1200)]
    for shorter, longer in pairwise(documents):
        assert longer.startswith(shorter.removesuffix(SANDWICH.text).rstrip())
    # All but NEEDLE_WORDS of the 1,200 words: no sentence twice.
    numbers = [word for word in documents[2].split() if word[0].isdigit()]
    assert len(set(numbers)) == len(numbers) == (1200 - NEEDLE_WORDS) // 4


@pytest.mark.parametrize("generated", [True, False])
def test_splits_and_seeds_have_documents_of_their_own(text: Path, generated: bool) -> None:
    task = NeedleInAHaystack("generated" if generated else text)
    tune = {one.document for one in draw(task, 200, 30, "tune")}
    score = {one.document for one in draw(task, 200, 30)}
    assert not tune & score
    assert draw(task, 200, 5) == draw(task, 200, 30)[:5]
    assert draw(task, 200, 5) != draw(task, 200, 5, seed=1)


@given(
    st.lists(st.sampled_from(["One two.", "No end", "So?", "„Ah!“", "3.5 is", "\n\n", " ", "\n"]))
)
@settings(max_examples=40)
def test_joining_sentences_gives_the_text(parts: list[str]) -> None:
    whole = " ".join(parts)
    assert "".join(sentences(whole)) == whole


def test_sentences_end_at_stops_before_space_and_at_empty_lines() -> None:
    assert sentences('It is 3.5 km. "Far?" No end\n\nNew. (Old.) Last') == [
        "It is 3.5 km. ",
        '"Far?" ',
        "No end\n\n",
        "New. ",
        "(Old.) ",
        "Last",
    ]


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (SANDWICH.answer, 1),
        ("Eating a SANDWICH in Dolores\nPark.", 1),
        ("Sit in Dolores Park.", 0),  # One of two keys.
        ("Cross the bridge.", 0),
        ("", 0),
    ],
)
def test_all_keys_must_be_in_the_answer(answer: str, score: float) -> None:
    task = NeedleInAHaystack()
    assert task.score(answer, draw(task, 100, 1)[0].questions[0]) == score


def test_a_needle_of_ones_own_is_hidden_and_asked(text: Path) -> None:
    needle = Needle("The code is 77.", "What is the code?", "It is 77.", ("77",))
    task = NeedleInAHaystack(text / "a.txt", needle=needle, depths=(50,))
    (example,) = draw(task, 60, 1)
    assert example.questions[0].text == "What is the code?"
    assert example.questions[0].needles == ("The code is 77.",)
    assert needle.text in example.document


def test_what_cannot_be_is_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"percentages of 0 to 100, got \[101\]"):
        NeedleInAHaystack(depths=(101,))
    with pytest.raises(ConfigError, match="its answer must contain them"):
        NeedleInAHaystack(needle=Needle("a", "b", "c", ("d",)))
    with pytest.raises(ValueError, match=f"must be at least {NEEDLE_WORDS + 1}, got 5"):
        NeedleInAHaystack().examples(5, split="score", seed=0, count=1)
    with pytest.raises(ValueError, match="has 1,200 words, but a document of this length needs"):
        draw(NeedleInAHaystack(text), 5000, 1)
    with pytest.raises(DocumentError, match="no file or folder"):
        draw(NeedleInAHaystack(tmp_path / "missing"), 100, 1)
    (tmp_path / "one.md").write_text("No stop")
    with pytest.raises(DocumentError, match="at least two sentences, found 1"):
        draw(NeedleInAHaystack(tmp_path / "one.md"), 100, 1)
