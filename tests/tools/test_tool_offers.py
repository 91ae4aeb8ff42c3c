"""What is no call although it looks like one: JSON that quotes it, a tool that nobody offered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.tools.families import CALLS, FORMATS, TEXTS, cut, joined, read
from ttt_core.tools import ToolCall, reader
from ttt_core.tools.reader import WAIT, Source, read_until, text_until

BORDERS = st.lists(st.integers(0, 2000), max_size=30)
EVERY = st.sampled_from(sorted(FORMATS))
TAG = "<|python_tag|>"


@given(name=EVERY, calls=CALLS, text=TEXTS, space=st.sampled_from(["", "\n "]), borders=BORDERS)
def test_json_may_quote_calls(
    name: str, calls: list[ToolCall], text: str, space: str, borders: list[int]
) -> None:
    format = FORMATS[name]
    for quoted in (format.render(calls) + text, *(one + text for one in format.triggers)):
        answer = space + json.dumps({"quote": quoted, "quotes": [quoted]}, ensure_ascii=False)
        assert read(format, cut(answer, borders), json=True) == (answer, [], [], [])


@given(name=EVERY, calls=CALLS, space=st.sampled_from(["", "\n "]), borders=BORDERS)
def test_calls_beside_json_are_calls(
    name: str, calls: list[ToolCall], space: str, borders: list[int]
) -> None:
    format, names = FORMATS[name], {call.name for call in calls}
    answer = space + format.render(calls)
    text, _, found, invalid = read(format, cut(answer, borders), json=True, names=names)
    assert (text.strip(), invalid) == ("", [])
    assert [(c.name, c.arguments) for c in found] == [(c.name, c.arguments) for c in calls]


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps({"name": "Ann", "parameters": {"age": 3}}),
        json.dumps({"parameters": {"age": 3}, "name": "Ann"}),
        json.dumps({"name": f"{TAG}{{}}", "type": f'{TAG}{{"name": "f"}}'}),
        json.dumps({"name": "Ann", "parameters": {"q": f"{TAG}x"}}),
    ],
)
def test_llamas_json_with_a_name_that_is_no_tools_is_text(answer: str) -> None:
    for pieces in ([answer], list(answer)):
        assert read(FORMATS["llama"], pieces, json=True, names=("f",)) == (answer, [], [], [])
    if TAG not in answer:
        assert read(FORMATS["llama"], list(answer), names=("f",)) == (answer, [], [], [])


@given(name=EVERY, calls=CALLS, borders=BORDERS)
@example(name="deepseek", calls=[ToolCall("a1B2c3D4e", "wipe", {})], borders=[])
def test_a_call_of_a_tool_that_is_not_offered_is_invalid(
    name: str, calls: list[ToolCall], borders: list[int]
) -> None:
    format, names = FORMATS[name], {calls[0].name}
    assume(any(call.name not in names for call in calls[1:]) or len(calls) == 1)
    text, deltas, found, invalid = read(format, cut(format.render(calls), borders), names=names)
    asked = [(call.name, call.arguments) for call in calls]
    assert text == ""
    assert [(c.name, c.arguments) for c in found] == [one for one in asked if one[0] in names]
    refused = [one for one in asked if one[0] not in names]
    assert [(i.name, json.loads(i.arguments, strict=False)) for i in invalid] == refused
    assert all("is offered; the tools are: " + calls[0].name in one.error for one in invalid)
    by_id = {id: (called, arguments) for id, called, arguments in joined(deltas)}
    assert all(by_id[one.id] == (one.name, one.arguments) for one in invalid)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_where_no_tool_is_offered_nothing_is_called(name: str) -> None:
    answer = FORMATS[name].render([ToolCall("a1B2c3D4e", "wipe", {"a": 1})])
    text, _, calls, invalid = read(FORMATS[name], [answer], names=())
    assert calls == []
    if name == "llama":  # Nothing but the offer tells such a call from JSON.
        assert (text, invalid) == (answer, [])
        text, _, calls, invalid = read(FORMATS[name], [TAG + answer], names=())
    assert (text, calls, [one.name for one in invalid]) == ("", [], ["wipe"])
    assert invalid[0].error.endswith("none")


def test_text_that_was_handed_on_is_forgotten() -> None:
    source = Source()
    steps = text_until(source, ("<call>",))
    for _ in range(100):
        source.text += "some text <ca"
        while next(steps) is not WAIT:
            pass
        assert len(source.text) <= len(" <ca")


def test_an_end_is_looked_for_only_in_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    def find(text: str, needles: Any, start: int) -> tuple[int, str]:
        nonlocal looked_at
        looked_at += len(text) - start
        return original(text, needles, start)

    original = reader._find
    monkeypatch.setattr(reader, "_find", find)
    source = Source()
    steps = read_until(source, ("</call>", "<call>"))
    for _ in range(1000):
        source.text += "<"
        assert next(steps) is WAIT
    source.text += "/call>"
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == "<" * 999
    assert looked_at < 1000 * 10
