"""Tokens to text: whatever the split into tokens, the same text, cut at the same place."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_core.stopping import TextStream

ALPHABET = "ab\n\u00e9\u4e2d\U0001f642"
TEXTS = st.text(st.sampled_from(ALPHABET), max_size=30)
STOPS = st.lists(st.text(st.sampled_from(ALPHABET), min_size=1, max_size=4), max_size=3)
CUTS = st.lists(st.integers(1, 4), min_size=1, max_size=5)


def split(text: str, sizes: Sequence[int]) -> list[bytes]:
    """Cut the text's bytes into tokens of the given sizes, over and over; characters may split."""
    data, tokens = text.encode(), []
    while data:
        size = sizes[len(tokens) % len(sizes)]
        tokens.append(data[:size])
        data = data[size:]
    return tokens


def stream(tokens: Sequence[bytes], stop: Sequence[str]) -> tuple[list[str], bool]:
    """Push tokens as the decoder does: until a stop string is met, then flush."""
    texts = TextStream(lambda ids: b"".join(tokens[i] for i in ids).decode(errors="replace"), stop)
    pieces = []
    for token in range(len(tokens)):
        pieces.append(texts.push(token))
        if texts.stopped:
            return pieces, True
    pieces.append(texts.flush())
    return pieces, texts.stopped


def whole_characters(data: bytes) -> str:
    """The text so far; nothing while its last character is incomplete."""
    text = data.decode(errors="replace")
    return "" if text.endswith("\ufffd") else text


def first_stop(tokens: Sequence[bytes], stop: Sequence[str]) -> str | None:
    """The text before the first stop string to be completed, by brute force.

    Of several that one token completes, the one that begins first.
    """
    for end in range(1, len(tokens) + 1):
        text = whole_characters(b"".join(tokens[:end]))
        found = [text.find(one) for one in stop if one in text]
        if found:
            return text[: min(found)]
    return None


@given(TEXTS, CUTS, STOPS)
def test_streamed_text_is_cut_at_the_first_stop_string(
    text: str, sizes: list[int], stop: list[str]
) -> None:
    tokens = split(text, sizes)
    before = first_stop(tokens, stop)
    pieces, stopped = stream(tokens, stop)
    assert "".join(pieces) == (text if before is None else before)
    assert stopped == (before is not None)


@given(TEXTS, CUTS, st.text(st.sampled_from(ALPHABET), min_size=1, max_size=4))
def test_one_stop_string_cuts_the_same_whatever_the_split(
    text: str, sizes: list[int], stop: str
) -> None:
    pieces, stopped = stream(split(text, sizes), [stop])
    assert "".join(pieces) == text.split(stop)[0]
    assert stopped == (stop in text)


@given(TEXTS, CUTS, STOPS)
def test_pieces_never_hold_split_characters(text: str, sizes: list[int], stop: list[str]) -> None:
    pieces, _ = stream(split(text, sizes), stop)
    assert "\ufffd" not in "".join(pieces)


@given(TEXTS, STOPS)
def test_nothing_is_held_longer_than_it_could_matter(text: str, stop: list[str]) -> None:
    """What is held back behind each token is the beginning of some stop string."""
    tokens = [character.encode() for character in text]
    texts = TextStream(lambda ids: b"".join(tokens[i] for i in ids).decode(), stop)
    said = ""
    for index in range(len(tokens)):
        said += texts.push(index)
        if texts.stopped:
            break
        held = text[: index + 1].removeprefix(said)
        assert held == "" or any(one.startswith(held) for one in stop)


def test_character_appears_with_its_last_byte() -> None:
    pieces, _ = stream([bytes([byte]) for byte in "a\U0001f642b".encode()], [])
    assert pieces == ["a", "", "", "", "\U0001f642", "b", ""]


def test_broken_character_appears_once_the_answer_ends() -> None:
    assert stream([b"a", b"\xf0\x9f"], [])[0] == ["a", "", "\ufffd"]
    assert "".join(stream([b"a", b"\xf0\x9f", b"b"], [])[0]) == "a\ufffdb"


def test_stop_string_that_spans_tokens_is_never_said() -> None:
    assert stream([b"see E", b"N", b"D now"], ["END"]) == (["see ", "", ""], True)
    assert stream([b"see E", b"N", b"d now"], ["END"]) == (["see ", "", "ENd now", ""], False)


def test_nothing_comes_after_a_stop() -> None:
    tokens = [b"a.", b"b"]
    texts = TextStream(lambda ids: b"".join(tokens[i] for i in ids).decode(), ["."])
    assert (texts.push(0), texts.push(1), texts.flush()) == ("a", "", "")


def test_stop_string_may_be_completed_by_the_flush() -> None:
    pieces, stopped = stream([b"a", b"\xff"], ["\ufffd"])
    assert ("".join(pieces), stopped) == ("a", True)


@pytest.mark.parametrize("ids", [[0, 1, 2], [3, 0, 1], [0, 3, 1], [0, 3, 3, 1, 3, 2]])
def test_decoder_that_drops_leading_space_and_special_tokens(ids: list[int]) -> None:
    """As SentencePiece decoders do: every word brings its space, a text has none in front."""
    words = [" the", " old", " cat", ""]  # The last one is a special token.

    def decode(some: Sequence[int]) -> str:
        return "".join(words[i] for i in some).removeprefix(" ")

    texts = TextStream(decode)
    assert "".join([*map(texts.push, ids), texts.flush()]) == decode(ids)
