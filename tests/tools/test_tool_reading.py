"""Answers to text and calls: the same whatever the pieces, and nothing of it is ever lost."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.tools.families import ARGUMENTS, CALLS, FORMATS, TEXTS, TRAPS, cut, joined, read
from ttt_core.tools import InvalidToolCall, ToolCall, ToolCallDelta

BORDERS = st.lists(st.integers(0, 2000), max_size=30)
EVERY = st.sampled_from(sorted(FORMATS))
EVERYWHERE = EVERY.filter(lambda name: not FORMATS[name].only_at_start)


def asked(calls: list[ToolCall]) -> list[tuple[str, dict[str, object]]]:
    """What is to be called, without ids."""
    return [(call.name, call.arguments) for call in calls]


@given(name=EVERY, calls=CALLS, borders=BORDERS)
def test_what_is_written_is_read_again_whatever_the_pieces(
    name: str, calls: list[ToolCall], borders: list[int]
) -> None:
    format = FORMATS[name]
    written = format.render(calls)
    text, deltas, found, invalid = read(format, cut(written, borders))
    assert text == ""
    assert invalid == []
    assert asked(found) == asked(calls)
    whole = joined(deltas)
    assert [(id, called) for id, called, _ in whole] == [(c.id, c.name) for c in found]
    assert [json.loads(arguments, strict=False) for *_, arguments in whole] == [
        call.arguments for call in calls
    ]
    assert len({call.id for call in found}) == len(found)


@given(name=EVERYWHERE, calls=CALLS, borders=BORDERS, space=st.sampled_from(["", " ", "\n\n"]))
def test_text_before_calls_is_text(
    name: str, calls: list[ToolCall], borders: list[int], space: str
) -> None:
    format = FORMATS[name]
    answer = f"I shall look <tool that up.{space}{format.render(calls)}\n"
    text, _, found, invalid = read(format, cut(answer, borders))
    assert text == "I shall look <tool that up."
    assert (asked(found), invalid) == (asked(calls), [])


@given(name=EVERY, text=st.text(max_size=40), borders=BORDERS)
@example(name="hermes", text="a < b and [1, 2] and {3}  \n ", borders=[1, 2, 3])
@example(name="pythonic", text="  [x for x in y]", borders=[1, 2, 3, 4])
@example(name="llama", text='{"nam', borders=[2])
def test_text_without_calls_stays_as_it_is(name: str, text: str, borders: list[int]) -> None:
    said, deltas, calls, invalid = read(FORMATS[name], cut(text, borders))
    assert (said, deltas, calls, invalid) == (text, [], [], [])


@given(name=EVERY, parts=st.lists(st.sampled_from(TRAPS) | TEXTS, max_size=8), borders=BORDERS)
def test_anything_can_be_read_and_is_the_same_whatever_the_pieces(
    name: str, parts: list[str], borders: list[int]
) -> None:
    format, answer = FORMATS[name], "".join(parts)
    check_same(name, answer, borders)
    check_same(name, format.triggers[0] + answer, borders)


@given(name=EVERY, calls=CALLS, data=st.data(), borders=BORDERS)
def test_damaged_calls_never_raise_and_are_the_same_whatever_the_pieces(
    name: str, calls: list[ToolCall], data: st.DataObject, borders: list[int]
) -> None:
    answer = FORMATS[name].render(calls)
    start = data.draw(st.integers(0, len(answer)))
    end = data.draw(st.integers(start, len(answer)))
    check_same(name, answer[:start] + data.draw(TEXTS) + answer[end:], borders)


def check_same(name: str, answer: str, borders: list[int]) -> None:
    """Read an answer at once and in pieces; compare, and hold the deltas against the calls."""
    text, deltas, calls, invalid = read(FORMATS[name], [answer])
    in_pieces = read(FORMATS[name], cut(answer, borders))
    assert in_pieces[0] == text
    assert asked(in_pieces[2]) == asked(calls)
    assert [(i.name, i.arguments) for i in in_pieces[3]] == [(i.name, i.arguments) for i in invalid]
    for run, made, broken in ((deltas, calls, invalid), in_pieces[1:]):
        by_id = {id: (called, arguments) for id, called, arguments in joined(run)}
        assert set(by_id) == {one.id for one in (*made, *broken)}
        for call in made:
            called, arguments = by_id[call.id]
            assert called == call.name
            assert json.loads(arguments, strict=False) == call.arguments
        for one in broken:
            assert by_id[one.id] == (one.name, one.arguments)


@given(name=EVERY, arguments=ARGUMENTS, data=st.data())
def test_cut_off_answers_lose_nothing(
    name: str, arguments: dict[str, object], data: st.DataObject
) -> None:
    """Every letter and digit that was written is in the text, in a call or in an invalid one."""
    answer = FORMATS[name].render([ToolCall("a1B2c3D4e", "look_up", {"q": "k3y", **arguments})])
    answer = answer[: data.draw(st.integers(0, len(answer)))]
    text, _, calls, invalid = read(FORMATS[name], [answer])
    if "k3y" in answer:
        kept = text + "".join(one.arguments for one in invalid) + str(asked(calls))
        assert "k3y" in kept
    assert len(calls) + len(invalid) <= 1


CASES = [
    ("hermes", '<tool_call>\n{"arguments": {"a": 1}, "name": "f"}</tool_call>', [("f", {"a": 1})]),
    ("hermes", '<tool_call>{"name":"f","parameters":{"a":1}}', [("f", {"a": 1})]),
    ("hermes", '<tool_call> {"name": "f"} </tool_call>', [("f", {})]),
    ("hermes", '<tool_call>{"name": "f", "arguments": null}</tool_call>', [("f", {})]),
    (
        "hermes",
        '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
        [("f", {"a": 1})],
    ),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>', [("f", {"a": 1})]),
    (
        "hermes",
        '<tool_call>[{"name": "f", "arguments": {}}, {"name": "g"}]</tool_call>',
        [("f", {}), ("g", {})],
    ),
    ("hermes", '<tool_call>{"name": "f"}\n{"name": "g"}</tool_call>', [("f", {}), ("g", {})]),
    ("hermes", '<tool_call>{"id": [1, {"b": "}"}], "name": "f"}</tool_call>', [("f", {})]),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "x\ny"}}', [("f", {"a": "x\ny"})]),
    ("llama", '<|python_tag|>{"name": "f", "parameters": {"a": 1}}', [("f", {"a": 1})]),
    ("llama", '{"type": "function", "name": "f", "parameters": {}}', [("f", {})]),
    ("llama", ' {"name": "f", "parameters": {}};{"name": "g", "parameters": {}}',
     [("f", {}), ("g", {})]),
    ("pythonic", "[f(a=1, b='x', c=[True, None], d={'k': (1, 2,)}), g()]",
     [("f", {"a": 1, "b": "x", "c": [True, None], "d": {"k": [1, 2]}}), ("g", {})]),
    ("pythonic", '[ns.get-it(from="a)]", ok=true, no=null)]',
     [("ns.get-it", {"from": "a)]", "ok": True, "no": None})]),
    ("pythonic", "<|python_start|>[f(s='it\\'s \\d', n=-1.5)]<|python_end|>",
     [("f", {"s": "it's \\d", "n": -1.5})]),
    ("pythonic", '[f(**{"a b": 1})]', [("f", {"a b": 1})]),
    ("mistral", '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}, "id": "123456789"}]',
     [("f", {"a": 1})]),
    ("mistral", '[TOOL_CALLS]f[ARGS]{"a": 1}', [("f", {"a": 1})]),
    ("mistral-args", '[TOOL_CALLS]f{"a": 1}[TOOL_CALLS]g[CALL_ID]123456789[ARGS]{}',
     [("f", {"a": 1}), ("g", {})]),
    ("mistral-args", '[TOOL_CALLS] [{"name": "f", "arguments": {}}]', [("f", {})]),
    ("granite", '<tool_call>[{"name": "f", "arguments": {}}]', [("f", {})]),
    ("granite", '<|tool_call|> [{"name": "f", "arguments": {}}', [("f", {})]),
    ("phi", 'functools[{"name": "f", "arguments": {"a": 1}}]', [("f", {"a": 1})]),
    ("deepseek", "<\uff5ctool\u2581call\u2581begin\uff5c>f<\uff5ctool\u2581sep\uff5c>{\"a\": 1}",
     [("f", {"a": 1})]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "calls"), CASES)
def test_what_models_write_in_other_ways(
    name: str, answer: str, calls: list[tuple[str, dict[str, object]]]
) -> None:
    text, _, found, invalid = read(FORMATS[name], list(answer))
    assert (text, asked(found), invalid) == ("", calls, [])


BROKEN = [
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": </tool_call>', "f", '{"a": '),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1', "f", '{"a": 1'),
    ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "f", "[1]"),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', "f", '{"a": NaN}'),
    ("hermes", '<tool_call>{"arguments": {}}</tool_call>', None, '{"arguments": {}}'),
    ("hermes", "<tool_call>look it up</tool_call>", None, "look it up"),
    ("hermes", '<tool_call>{"name": "no name!"}</tool_call>', None, '{"name": "no name!"}'),
    (
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>',
        "f",
        '{"a": "\\ud800"}',
    ),
    ("llama", '{"name": "f", "parameters": {"a"', "f", '{"a"'),
    ("llama", "<|python_tag|>print(1)", None, "print(1)"),
    ("pythonic", "[f(a=open('x'))]", "f", "a=open('x')"),
    ("pythonic", "[f(1)]", "f", "1"),
    ("pythonic", "[f(a=1", None, "[f(a=1"),
    ("pythonic", "[f(a=1e999)]", "f", "a=1e999"),
    ("mistral-args", "[TOOL_CALLS]f[ARGS]{1}", "f", "{1}"),
    ("mistral", "[TOOL_CALLS] [1]", None, "1]"),
    ("deepseek", "<\uff5ctool\u2581call\u2581begin\uff5c>f", None, "f"),
]


@pytest.mark.parametrize(("name", "answer", "called", "arguments"), BROKEN)
def test_broken_calls_are_kept_as_they_are(
    name: str, answer: str, called: str | None, arguments: str
) -> None:
    text, _, calls, invalid = read(FORMATS[name], list(answer))
    assert (text, calls) == ("", [])
    assert [(one.name, one.arguments) for one in invalid] == [(called, arguments)]
    assert invalid[0].error


def test_a_broken_call_does_not_swallow_the_next() -> None:
    answer = (
        '<tool_call>{"name": "f", "arguments": {"a": }</tool_call>\nand '
        '<tool_call>{"name": "g", "arguments": {}}</tool_call> done'
    )
    text, deltas, calls, invalid = read(FORMATS["hermes"], [answer])
    assert (asked(calls), [one.name for one in invalid]) == ([("g", {})], ["f"])
    assert text == "\nand done"
    assert {delta.index for delta in deltas} == {0, 1}


@pytest.mark.parametrize(
    "answer",
    [
        '{"name": "Ada", "age": 36}',
        '{"name": "Ada"',
        'See {"name": "f", "parameters": {}}',
        '{"names": []}',
    ],
)
def test_json_that_is_no_call_stays_text(answer: str) -> None:
    text, deltas, calls, invalid = read(FORMATS["llama"], list(answer))
    assert (text, deltas, calls, invalid) == (answer, [], [], [])


def test_name_and_arguments_come_as_soon_as_they_are_known() -> None:
    reader = FORMATS["hermes"].reader()
    assert reader.feed("Well <tool") == ["Well"]
    assert reader.feed('_call>\n{"name": "f') == []
    [first] = reader.feed('", ')
    assert isinstance(first, ToolCallDelta)
    assert (first.index, first.name, first.arguments) == (0, "f", "")
    assert reader.feed('"arguments": {"a": "b') == [ToolCallDelta(0, arguments='{"a": "b')]
    assert reader.feed('c"}') == [ToolCallDelta(0, arguments='c"}')]
    assert reader.calls == []
    assert reader.feed("}") == []
    assert reader.calls == [ToolCall(str(first.id), "f", {"a": "bc"})]
    assert reader.finish() == []


def test_arguments_before_the_name_wait_for_it() -> None:
    reader = FORMATS["hermes"].reader()
    assert reader.feed('<tool_call>{"arguments": {"a": 1}, "name": "f') == []
    [delta] = reader.feed('"')
    assert isinstance(delta, ToolCallDelta)
    assert (delta.name, delta.arguments) == ("f", '{"a": 1}')


def test_very_deep_and_very_long_values_are_refused_not_raised() -> None:
    for value in ("[" * 100_000, "[" * 100_000 + "]" * 100_000, "9" * 10_000, "-" * 10_000):
        for name, answer in {
            "hermes": f'<tool_call>{{"name": "f", "arguments": {{"a": {value}}}}}</tool_call>',
            "pythonic": f"[f(a={value})]",
        }.items():
            _, _, calls, invalid = read(FORMATS[name], [answer])
            assert (calls, len(invalid)) == ([], 1)
            assert isinstance(invalid[0], InvalidToolCall)
