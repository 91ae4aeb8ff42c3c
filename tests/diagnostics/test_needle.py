"""Needles are found where they stand, whatever the white space; a guess is marked as one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tests.conftest import CHATML, build_tokenizer
from ttt_core import Document
from ttt_core.chat import ChatFormat
from ttt_core.diagnostics.needle import Needle, NeedleFinder, needle_tokens
from ttt_core.errors import ConfigError, DocumentError
from ttt_core.sandbox import bundled_model_path, make_registry
from ttt_core.supervision import Passage, TokenizedDocument

TOKENIZER = build_tokenizer(CHATML)
TEXT = "The ship left Oslo\nat dawn.\nNobody saw the ship go.\nIt was in the Oslo harbour later."


def finder(
    text: str, tokenizer: PreTrainedTokenizerBase = TOKENIZER
) -> tuple[NeedleFinder, TokenizedDocument]:
    chat = ChatFormat(tokenizer)
    document = TokenizedDocument.of(chat.prefix(Document.of(text).text), chat, tokenizer)
    return NeedleFinder(document, chat.decode), document


def texts_of(
    needle: Needle, document: TokenizedDocument, tokenizer: PreTrainedTokenizerBase = TOKENIZER
) -> list[str]:
    return [tokenizer.decode(document.input_ids[a:b]) for a, b in needle.places]


@pytest.mark.parametrize(
    "needle", ["Oslo\nat dawn", "Oslo at dawn", "Oslo\r\n\t at   dawn", " Oslo at dawn\n"]
)
def test_white_space_counts_for_nothing(needle: str) -> None:
    found, document = finder(TEXT)
    assert texts_of(found.find(needle), document) == ["Oslo\nat dawn"]


def test_every_place_counts_and_is_within_the_document() -> None:
    found, document = finder(TEXT)
    needle = found.find("Oslo")
    assert texts_of(needle, document) == ["Oslo", "Oslo"]
    assert all(document.start <= a < b <= document.end for a, b in needle.places)
    assert not needle.guessed


def test_tokens_that_reach_over_the_needles_end_belong_to_it() -> None:
    """` the` is one token of the test tokenizer; a needle that ends within it holds all of it."""
    found, document = finder("saw the ship")
    assert texts_of(found.find("saw t"), document) == ["saw the"]


def test_characters_of_several_tokens_are_found_whole() -> None:
    found, document = finder("a → b\nÜber Nacht kam 雪 und Eis\nc → d")
    assert texts_of(found.find("kam 雪"), document) == ["kam 雪"]
    assert len(found.find("→").places) == 2


def test_control_tokens_that_somebody_typed_are_text() -> None:
    found, document = finder("before <|im_end|> and after\nand more text here")
    assert texts_of(found.find("<|im_end|> and"), document) == ["<|im_end|> and"]


@settings(max_examples=40)
@given(st.integers(0, 99), st.integers(0, 49))
def test_a_line_of_a_registry_is_found_with_its_own_tokens(seed: int, line: int) -> None:
    registry = make_registry(50, seed=seed)
    found, document = finder(registry.text)
    text = registry.text.splitlines()[line]
    assert text in texts_of(found.find(text), document)


def test_a_needle_of_the_bundled_tokenizer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(bundled_model_path())
    registry = make_registry(20, seed=0)
    found, document = finder(registry.text, tokenizer)
    answer = registry.questions[0].answer
    [place] = found.find(answer).places
    assert tokenizer.decode(document.input_ids[slice(*place)]) == answer


@pytest.mark.parametrize(
    ("needle", "hint"),
    [
        ("oslo AT dawn", "other upper and lower case"),
        ("nobody saw that ship", "sentence or line 3 of 4"),
        ("zebra", "to the letter"),
    ],
)
def test_what_is_not_there_is_refused_with_a_hint_and_no_text(needle: str, hint: str) -> None:
    found, _ = finder(TEXT)
    with pytest.raises(DocumentError, match=hint) as error:
        found.find(needle)
    assert not any(word in str(error.value) for word in ("Oslo", "dawn", "Nobody", "zebra"))


@pytest.mark.parametrize("needle", ["", " \n"])
def test_an_empty_needle_is_refused(needle: str) -> None:
    with pytest.raises(ConfigError, match="needle is empty"):
        finder(TEXT)[0].find(needle)


def test_without_a_needle_the_passage_that_shares_most_words_is_guessed() -> None:
    found, document = finder("red fox: Oslo\nblue fox: Rome\nred cow: Kyiv\nold hen: Bern\n")
    [needle] = found.guess("Where is red fox?")
    assert needle.guessed
    assert texts_of(needle, document) == ["red fox: Oslo"]


@pytest.mark.parametrize(
    ("text", "question", "guess"),
    [
        ("a" + "雪花飘飘北风萧萧天地一片苍茫一剪寒梅傲立雪中只为伊人飘香", "寒梅", "剪寒梅"),
        ("🙂a" * 40 + " fox", "Where is the fox?", "🙂a fox"),
    ],
    ids=["3 bytes", "4 bytes"],
)
def test_a_guess_that_ends_within_a_character_holds_all_of_it(
    text: str, question: str, guess: str
) -> None:
    """Passages of 48 tokens are cut where they may, and these characters have several tokens."""
    found, document = finder(text)
    [needle] = found.guess(question)
    assert guess in needle.text
    assert needle.text in text
    assert texts_of(needle, document) == [needle.text]


def test_equally_good_guesses_are_all_taken_but_not_many() -> None:
    found, _ = finder("\n".join(f"fox number {i}: {i}{i}" for i in range(9)))
    assert len(found.guess("where is the fox")) == 4


def test_nothing_to_guess_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DocumentError, match="--needle"):
        finder(TEXT)[0].guess("quantum zebras?")


def test_tokens_of_overlapping_needles_count_once() -> None:
    needles = [Needle("a", (Passage(3, 6), Passage(9, 10))), Needle("b", (Passage(5, 7),))]
    assert needle_tokens(needles) == [3, 4, 5, 6, 9]
