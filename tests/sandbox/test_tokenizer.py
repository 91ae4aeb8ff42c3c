"""The sandbox tokenizer: exact on any text, short on registries, stable where a prompt is cut."""

from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ttt_core.sandbox import make_registry
from ttt_core.sandbox.tokenizer import IM_END, IM_START, build_tokenizer, word_pieces
from ttt_core.sandbox.words import adjectives, nouns, places

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
"""Any Unicode but lone surrogates, which UTF-8 can't express."""

MESSAGES = st.lists(
    st.tuples(st.sampled_from(["user", "assistant"]), TEXTS), min_size=1, max_size=5
)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(model_max_length=16384)


def render(messages: list[tuple[str, str]], *, add_generation_prompt: bool = False) -> str:
    text = tokenizer().apply_chat_template(
        [{"role": role, "content": content} for role, content in messages],
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
    )
    assert isinstance(text, str)
    return text


@given(TEXTS)
def test_any_text_round_trips(text: str) -> None:
    assert tokenizer().decode(tokenizer().encode(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0",
        "a\tb",
        "one\r\ntwo\r\n",
        "\n\n\n",
        "    if x:\n\treturn  1\n",
        "naïve 日本 \u2028 🦅",
        f"{IM_START}user\nhi{IM_END}\n",
        "amber  falcon :Oslo",
        "\ufeffamber",
        "e\u0301",
    ],
)
def test_awkward_text_round_trips(text: str) -> None:
    assert tokenizer().decode(tokenizer().encode(text)) == text


@given(seed=st.integers(0, 10**6))
def test_a_line_is_five_tokens(seed: int) -> None:
    text = make_registry(16, seed=seed).text
    assert len(tokenizer().encode(text)) == 5 * 16


def test_every_word_is_one_token_wherever_it_stands() -> None:
    encode = tokenizer().encode
    for adjective, noun, place in zip(adjectives(), [*nouns(), *nouns()], places(), strict=False):
        adjective_id, noun_id, _, place_id, _ = encode(f"{adjective} {noun}: {place}\n")
        assert encode(f"Where is {adjective} {noun}?")[2:4] == [adjective_id, noun_id]
        assert encode(place) == [place_id]
    assert all(len(encode(piece)) == 1 for piece in word_pieces())


def test_ids_are_distinct_and_dense() -> None:
    vocabulary = tokenizer().get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(tokenizer())))
    assert 1000 <= len(vocabulary) <= 1800


@given(TEXTS, TEXTS)
def test_tokens_before_a_blank_line_do_not_depend_on_what_follows(before: str, after: str) -> None:
    prefix = f"{IM_START}user\n{before}\n\n"
    whole = tokenizer().encode(prefix + after)
    ids = tokenizer().encode(prefix)
    assert whole[: len(ids)] == ids


@given(MESSAGES)
def test_shorter_conversations_are_prefixes_of_longer_ones(messages: list[tuple[str, str]]) -> None:
    rendered = [render(messages[:count]) for count in range(1, len(messages) + 1)]
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(rendered))
    prompt = render(messages, add_generation_prompt=True)
    assert prompt == rendered[-1] + f"{IM_START}assistant\n"


@given(TEXTS)
def test_chat_keeps_the_content_as_it_is(content: str) -> None:
    assert render([("user", content)]) == f"{IM_START}user\n{content}{IM_END}\n"


def test_turns_end_with_the_token_that_ends_generation() -> None:
    assert tokenizer().eos_token == IM_END
    assert tokenizer().bos_token is None
    assert tokenizer().encode(render([("user", "hi")]))[-2] == tokenizer().eos_token_id


def test_saving_and_loading_changes_nothing(tmp_path: Path) -> None:
    tokenizer().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = make_registry(8, seed=0).text + "def f(x):\n    return 'é'\n"
    assert loaded.encode(text) == tokenizer().encode(text)
    assert loaded.chat_template == tokenizer().chat_template
    assert loaded.eos_token == IM_END
