"""Pieces of documents are told from other text, however a splitter or a framework changed them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ttt_core import Document
from ttt_core.integration.excerpts import MOSTLY, TELLING, Pieces, compare, paragraphs, squeeze

SYLLABLES = ["ba", "ki", "no", "tel", "ru", "schma", "é", "漢字", "x", "1", ",", "."]
SPACES = [" ", " ", " ", " ", "  ", "\n", "\n    ", "\t", "\n\n", "\n \n", "\n\n\n"]


def words(seed: int, count: int) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices(SYLLABLES, k=chance.randint(1, 4))) for _ in range(count)]


def text(seed: int, count: int) -> str:
    chance = random.Random(seed)
    return "".join(f"{word}{chance.choice(SPACES)}" for word in words(seed, count))


SEEDS = st.integers(0, 1 << 20)
COUNTS = st.integers(80, 300)
SPACED = st.sampled_from([" ", "\n", "\t ", "\r\n", "\n   "])


def respaced(text: str, space: str) -> str:
    """Write other white space everywhere, but blank lines where there were some."""
    return "\n\n".join(space.join(part.split()) for part in paragraphs(text))


def cut(text: str, places: Sequence[int]) -> list[str]:
    ends = sorted({place % len(text) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(ends)]


PLACES = st.lists(st.integers(0, 1 << 20), max_size=6)


@given(seed=SEEDS, count=COUNTS, places=PLACES, join=st.sampled_from(["\n\n", "\n\n\n", "\n \n"]))
def test_a_text_cut_anywhere_is_the_whole(
    seed: int, count: int, places: list[int], join: str
) -> None:
    document = Document.of(text(seed, count))
    found = compare(join.join(cut(document.text, places)), [document])
    assert found.is_whole
    assert found.inside == 1.0
    assert not found.rest


@given(seed=SEEDS, count=COUNTS, space=SPACED)
def test_white_space_does_not_count(seed: int, count: int, space: str) -> None:
    document = Document.of(text(seed, count))
    assert compare(respaced(document.text, space), [document]).is_whole


@given(seed=SEEDS, count=COUNTS, start=st.floats(0, 0.7), length=st.floats(0.15, 0.3))
def test_a_piece_is_a_piece_and_not_the_whole(
    seed: int, count: int, start: float, length: float
) -> None:
    document = Document.of(text(seed, count))
    size = len(document.text)
    piece = document.text[int(start * size) : int((start + length) * size)]
    assume(len(squeeze(piece)) >= 2 * TELLING)
    found = compare(piece, [document])
    assert found.is_pieces
    assert not found.is_whole


@given(seed=SEEDS, count=COUNTS, overlap=st.integers(1, 60))
def test_pieces_that_overlap_cover_no_more_than_they_hold(
    seed: int, count: int, overlap: int
) -> None:
    """The first half in many pieces, more characters than the document has: still a half."""
    document = Document.of(text(seed, count))
    half = document.text[: len(document.text) // 2]
    step = max(len(half) // 8, 1)
    pieces = [half[max(at - 3 * step - overlap, 0) : at + step] for at in range(0, len(half), step)]
    joined = "\n\n".join(pieces)
    assert len(joined) > len(half)
    found = compare(joined, [document])
    assert found.is_pieces
    assert found.coverage <= 0.6
    assert not found.is_whole


@given(seed=SEEDS, count=COUNTS, repeats=st.integers(2, 5))
def test_a_text_that_repeats_itself_is_its_own_whole(seed: int, count: int, repeats: int) -> None:
    document = Document.of("\n\n".join([text(seed, count)] * repeats))
    assert compare(document.text, [document]).is_whole
    once = compare(text(seed, count), [document])
    assert once.is_pieces
    assert once.is_whole == (once.coverage >= MOSTLY)
    assert once.coverage <= 1 / repeats + 1e-9


@given(seed=SEEDS, other=SEEDS, count=COUNTS, length=st.integers(1, 300))
def test_foreign_text_is_never_made_of_it(seed: int, other: int, count: int, length: int) -> None:
    """Even where all its words stand in the document, in another order."""
    assume(seed != other)
    document = Document.of(text(seed, count))
    foreign = words(seed, count)
    random.Random(other).shuffle(foreign)
    assume(squeeze("".join(foreign[:length])) not in squeeze(document.text))
    assert not compare(" ".join(foreign[:length]), [document]).is_pieces


@given(seed=SEEDS, chosen=st.lists(st.integers(0, 299), min_size=1, max_size=40))
def test_a_few_words_are_no_piece(seed: int, chosen: list[int]) -> None:
    """A question in place of a passage, or a list of titles."""
    own = [f"{word}{number}" for number, word in enumerate(words(seed, 300))]
    assume(all(abs(a - b) != 1 for a, b in pairwise(chosen)))
    document = Document.of("\n\n".join(own))
    assert not compare("\n\n".join(own[number] for number in chosen), [document]).is_pieces


def test_lines_with_blank_ones_between_are_a_piece_together() -> None:
    lines = [f"- {word} {number}." for number, word in enumerate(words(7, 200))]
    document = Document.of("\n\n".join(lines))
    assert max(map(len, lines)) < TELLING
    assert compare("\n\n".join(lines[50:80]), [document]).is_pieces


def test_a_short_document_is_its_own_whole() -> None:
    document = Document.of("Oslo is\nthe capital.")
    assert compare("Oslo is the capital.", [document]).is_whole
    assert not compare("Oslo", [document]).is_pieces
    assert not compare("Oslo is the capital.", [Document.of(document.text * 40)]).is_pieces


@pytest.mark.parametrize("nothing", ["", " \n\n\t", "\n"])
def test_nothing_is_no_piece(nothing: str) -> None:
    found = compare(nothing, [Document.of("Oslo")])
    assert not found.is_pieces
    assert not found.is_whole
    assert compare("Oslo", []).inside == 0


@given(seed=SEEDS, count=COUNTS, titles=st.lists(SEEDS, min_size=1, max_size=2))
def test_the_rest_is_what_does_not_stand_there(seed: int, count: int, titles: list[int]) -> None:
    document = Document.of(text(seed, count))
    others = [" ".join(f"q{word}" for word in words(title, 3)) for title in titles]
    halves = cut(document.text, [len(document.text) // 2])
    mixed = [part for pair in zip(others, halves, strict=False) for part in pair]
    mixed += halves[len(others) :]
    found = compare("\n\n".join(mixed), [document])
    assert found.coverage > 0.99
    assert found.rest == "\n\n".join(others)
    assert found.labelled is (len(others) > 1)
    assert found.is_whole is not found.labelled


@given(seed=SEEDS, count=COUNTS, order=st.permutations(range(3)))
def test_several_documents_are_a_whole_in_any_order(
    seed: int, count: int, order: list[int]
) -> None:
    group = [Document.of(text(seed + number, count)) for number in range(3)]
    mixed = [group[number].text for number in order]
    assert compare("\n\n".join(mixed), group).is_whole
    some = compare("\n\n".join(mixed[:1]), group)
    assert some.is_pieces
    assert not some.is_whole


def test_long_addresses_above_the_pieces_do_not_hide_them() -> None:
    document = Document.of(text(3, 3000))
    step = len(document.text) // 20
    pieces = [
        f"url: https://www.example.org/a/very/long/address/{number:09}\n\n"
        f"{document.text[number * step : (number + 1) * step]}"
        for number in range(10)
    ]
    found = compare("\n\n".join(pieces), [document])
    assert found.is_pieces
    assert found.inside >= MOSTLY
    assert "address/000000009" in found.rest


def test_paragraphs_are_apart_by_blank_lines() -> None:
    assert paragraphs(" \n\na\r\n \r\nb\n\n\nc\nd\n \t\n") == ["a", "b", "c\nd"]


def test_texts_that_repeat_themselves_are_no_trap() -> None:
    """Nothing here is quadratic in a text of any size."""
    document = Document.of("a " * 50_000)
    assert compare("a " * 40_000, [document]).is_whole
    assert not compare("b " * 40_000, [document]).is_pieces
    assert not compare("ab\n\n" * 10_000, [document]).is_pieces
    assert not compare("aab " * 10_000, [Document.of("a" * 100_000)]).is_pieces


@given(seed=SEEDS, count=COUNTS)
def test_prepared_pieces_say_the_same(seed: int, count: int) -> None:
    document, other = Document.of(text(seed, count)), Document.of(text(seed + 1, count))
    pieces = Pieces(document.text)
    assert pieces.compare([other]) == compare(document.text, [other])
    assert pieces.compare([document]) == compare(document.text, [document])


def test_shares_and_remains() -> None:
    pieces = Pieces("aa a\n\nb\n\ncccccc")
    assert pieces.share([True, False, False]) == 0.3
    assert pieces.without([True, False, True]) == "b"
    assert Pieces("").share([]) == 0


def test_pieces_without_blank_lines_between_them_are_recognised() -> None:
    lines = [f"{number}: the falcon of {number * 7919} sits there" for number in range(60)]
    document = Document.of("\n".join(lines))
    overlapping = ["\n".join(lines[start : start + 12]) for start in range(0, 60, 10)]
    headed = "\n".join(f"Source {n}:\n{piece}" for n, piece in enumerate(overlapping))
    assert compare("\n".join(overlapping), [document]).is_whole
    found = compare(headed, [document])
    assert found.is_pieces
    assert not found.is_whole  # Whose number is which would be lost.
    assert found.rest == "\n".join(f"Source {n}:" for n in range(6))
    assert not compare("\n".join(overlapping[2:4]), [document]).is_whole
    assert compare("\n".join(overlapping[2:4]), [document]).is_pieces
