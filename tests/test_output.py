"""An answer is taken apart in the same way however it comes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.output import OutputReader, Piece, ReasoningDelta
from ttt_core.reasoning import KNOWN_TAGS, ThinkingTags, find_tags
from ttt_core.tools import ToolCallDelta
from ttt_core.tools.hermes import HermesFormat
from ttt_core.tools.llama import LlamaFormat
from ttt_core.tools.mistral import MistralFormat

THINK = ThinkingTags("<think>", "</think>")
CALL = '<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call>'
FORMATS = [None, HermesFormat(), LlamaFormat(), MistralFormat()]

PIECES = st.sampled_from(
    [
        "<think>", "</think>", "<thi", "</thi", "nk>", "<", ">", " ", "\n", "\n\n", "yes", "\u68df",
        CALL, "<tool_call>", "</tool_call>", '{"name": "add", "parameters": {}}', "{", '"', "}",
        '[TOOL_CALLS] [{"name": "add", "arguments": {}}]', "[TOOL_CALLS]", "; ",
    ]
)  # fmt: skip
ANSWERS = st.lists(PIECES, max_size=9).map("".join)


def read(reader: OutputReader, chunks: Sequence[str]) -> list[Piece]:
    pieces = [piece for chunk in chunks for piece in reader.feed(chunk)]
    return pieces + reader.finish()


def outcome(reader: OutputReader) -> tuple[Any, ...]:
    """All but the ids, which are random."""
    calls = [(call.name, call.arguments) for call in reader.tool_calls]
    invalid = [(call.name, call.arguments, call.error) for call in reader.invalid_tool_calls]
    return reader.text, reader.reasoning, calls, invalid


@settings(max_examples=400)
@given(
    answer=ANSWERS,
    cuts=st.lists(st.integers(0, 200), max_size=12),
    tags=st.sampled_from([None, THINK]),
    thinking=st.booleans(),
    format=st.sampled_from(FORMATS),
)
def test_the_pieces_joined_do_not_depend_on_the_chunks(
    answer: str, cuts: list[int], tags: ThinkingTags | None, thinking: bool, format: Any
) -> None:
    def make() -> OutputReader:
        calls = format.reader() if format else None
        return OutputReader(tags, thinking=thinking, calls=calls)

    whole, cut, single = make(), make(), make()
    read(whole, [answer])
    borders = [0, *sorted(min(at, len(answer)) for at in cuts), len(answer)]
    pieces = read(cut, [answer[a:b] for a, b in pairwise(borders)])
    read(single, list(answer))
    assert outcome(cut) == outcome(whole) == outcome(single)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == cut.text
    thought = [piece.text for piece in pieces if isinstance(piece, ReasoningDelta)]
    assert "".join(thought) == cut.reasoning
    assert all(thought)
    kinds = [isinstance(piece, ReasoningDelta) for piece in pieces]
    assert kinds == sorted(kinds, reverse=True), "thinking comes first"


@settings(max_examples=300)
@given(answer=ANSWERS, thinking=st.booleans())
def test_thinking_is_what_the_tags_enclose(answer: str, thinking: bool) -> None:
    reader = OutputReader(THINK, thinking=thinking)
    read(reader, list(answer))
    if not thinking and not answer.lstrip().startswith("<think>"):
        assert (reader.text, reader.reasoning) == (answer, "")
        return
    inside = answer if thinking else answer.lstrip().removeprefix("<think>")
    thought, _, rest = inside.partition("</think>")
    assert (reader.text, reader.reasoning) == (rest.lstrip(), thought.strip())


@settings(max_examples=100)
@given(answer=ANSWERS)
def test_without_tags_and_tools_all_is_text(answer: str) -> None:
    reader = OutputReader(None)
    assert reader.plain
    assert "".join(str(piece) for piece in read(reader, list(answer))) == reader.text == answer


@pytest.mark.parametrize(
    ("answer", "thinking", "reasoning", "text"),
    [
        ("<think>hm</think>yes", False, "hm", "yes"),
        ("\n <think>\n hm\n\n</think>\n\n yes\n", False, "hm", "yes\n"),
        ("hm</think>yes", True, "hm", "yes"),
        ("<think></think>\n\nyes", False, "", "yes"),
        ("</think>yes", True, "", "yes"),
        ("<think>hm", False, "hm", ""),
        ("<think>hm </thi", False, "hm </thi", ""),
        ("<think>", False, "", ""),
        ("hm", True, "hm", ""),
        ("<thinking>hm</thinking>", False, "", "<thinking>hm</thinking>"),
        ("<thi", False, "", "<thi"),
        (" \n", False, "", " \n"),
        ("I write <think>hm</think>", False, "", "I write <think>hm</think>"),
        ("hm</think>a</think>b", True, "hm", "a</think>b"),
        ("<think>a<think>b</think>c", False, "a<think>b", "c"),
    ],
)
def test_where_thinking_begins_and_ends(
    answer: str, thinking: bool, reasoning: str, text: str
) -> None:
    reader = OutputReader(THINK, thinking=thinking)
    read(reader, list(answer))
    assert (reader.reasoning, reader.text) == (reasoning, text)


def test_text_comes_as_soon_as_it_is_certain() -> None:
    reader = OutputReader(THINK)
    assert reader.feed("<thi") == []
    assert reader.feed("s is") == ["<this is"]
    reader = OutputReader(THINK)
    assert reader.feed("<think>a ") == [ReasoningDelta("a")]
    assert reader.feed("b</thi") == [ReasoningDelta(" b")]
    assert reader.feed("nk>") == []
    assert reader.feed("\n\n") == []
    assert reader.feed("yes ") == ["yes "]


def test_calls_behind_thinking() -> None:
    reader = OutputReader(THINK, calls=HermesFormat().reader())
    pieces = read(reader, [f"<think>{CALL}?</think>\n\nI add.\n{CALL}"])
    assert reader.reasoning == f"{CALL}?", "what is only thought is not called"
    assert reader.text == "I add."
    [call] = reader.tool_calls
    assert (call.name, call.arguments) == ("add", {"x": 1})
    deltas = [piece for piece in pieces if isinstance(piece, ToolCallDelta)]
    assert "".join(delta.arguments for delta in deltas) == '{"x": 1}'
    assert {delta.index for delta in deltas} == {0}


def test_what_closes_early_keeps_what_was_read() -> None:
    reader = OutputReader(THINK, calls=HermesFormat().reader())
    reader.feed("<think>hm</think>yes <tool_call>\n{")
    assert (reader.text, reader.reasoning, reader.tool_calls) == ("yes", "hm", ())
    reader.finish()
    assert len(reader.invalid_tool_calls) == 1
    assert reader.finish() == [], "it ends once"


def test_finish_twice_says_nothing_twice() -> None:
    reader = OutputReader(THINK)
    reader.feed("<thi")
    assert reader.finish() == ["<thi"]
    assert reader.finish() == []
    assert reader.text == "<thi"


def test_thoughts_do_not_show_in_the_repr() -> None:
    assert "secret" not in repr(ReasoningDelta("secret"))


@pytest.mark.parametrize("tags", KNOWN_TAGS)
def test_tags_are_found_in_templates(tags: ThinkingTags) -> None:
    assert find_tags(f"{{% if '{tags.end}' in content %}}") == tags
    assert find_tags("{{ content }}") is None
    reader = OutputReader(tags)
    read(reader, list(f"{tags.begin}hm{tags.end}yes"))
    assert (reader.reasoning, reader.text) == ("hm", "yes")
