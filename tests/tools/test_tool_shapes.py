"""Tools as users pass them, and what a model is told of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.families import FORMATS, read
from ttt_core.errors import ConfigError
from ttt_core.tools import Tool, as_tools, new_call_id

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION: dict[str, Any] = {
    "name": "get_weather",
    "description": "Say how it is.",
    "parameters": SCHEMA,
}


def test_both_of_openais_shapes_are_taken_and_given_back() -> None:
    whole = {"type": "function", "function": {**FUNCTION, "strict": True}}
    assert as_tools([whole]) == (Tool(**FUNCTION, strict=True),)
    assert as_tools([FUNCTION]) == (Tool(**FUNCTION),)
    assert Tool(**FUNCTION).as_openai() == {"type": "function", "function": FUNCTION}
    assert as_tools([Tool(**FUNCTION).as_openai()]) == (Tool(**FUNCTION),)


def test_a_tool_without_arguments_has_an_empty_schema_for_templates() -> None:
    [tool] = as_tools([{"name": "now"}])
    assert (tool.description, tool.parameters) == ("", {})
    assert tool.as_openai()["function"]["parameters"] == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("f", "list of mappings"),
        ({"name": "f"}, "list of mappings"),
        (["f"], r"tools\[0\] is str"),
        ([{"type": "retrieval"}], "only 'function'"),
        ([{"type": "function"}], "no function with a name"),
        ([{"type": "function", "function": "f"}], "no function with a name"),
        ([{"name": ""}], "cannot be a tool's name"),
        ([{"name": "a b"}], "cannot be a tool's name"),
        ([{"name": "f\n"}], "cannot be a tool's name"),
        ([{"name": "f" * 65}], "cannot be a tool's name"),
        ([{"name": 1}], "cannot be a tool's name"),
        ([{"name": "auto"}], "cannot be a tool's name"),
        ([{"name": "f", "description": 1}], "description is int"),
        ([{"name": "f", "parameters": {"type": "array"}}], "schema of an object"),
        ([{"name": "f", "parameters": "x"}], "schema of an object"),
        ([{"name": "f"}, {"name": "g"}, {"name": "f"}], "two tools are called 'f'"),
    ],
)
def test_what_is_no_tool_is_refused(raw: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        as_tools(raw)


def test_ids_are_what_mistrals_templates_want() -> None:
    ids = {new_call_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(one) == 9 and one.isascii() and one.isalnum() for one in ids)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_instructions_tell_all_tools_and_show_a_call_that_can_be_read(name: str) -> None:
    format, tools = FORMATS[name], (Tool(**FUNCTION), Tool("now"))
    text = format.instructions(tools)
    for tool in tools:
        assert json.dumps(tool.as_openai()) in text
    assert format.example() in text
    said, _, [call], invalid = read(format, [format.example()])
    assert (said, call.name, invalid) == ("", "TOOL_NAME", [])


@pytest.mark.parametrize(
    ("choice", "parallel", "told"),
    [
        ("auto", True, "You may write several calls. If no tool is needed, answer without"),
        ("auto", False, "Write one call at most. If no tool is needed, answer without"),
        ("required", True, "You have to call a tool now: your answer is one or several calls"),
        ("required", False, "You have to call a tool now: your answer is one call and"),
        ("now", True, "You have to call the tool now now: your answer is one call of it and"),
        ("now", False, "You have to call the tool now now: your answer is one call of it and"),
        ("none", True, "Do not call a tool now"),
    ],
)
def test_instructions_ask_for_what_the_grammar_enforces(
    choice: str, parallel: bool, told: str
) -> None:
    tools = (Tool(**FUNCTION), Tool("now"))
    text = FORMATS["hermes"].instructions(tools, parallel=parallel, choice=choice)
    assert told in text
    assert ("If no tool is needed" in text) == (choice == "auto")
    assert ("several calls" in text) == (parallel and choice in {"auto", "required"})


@given(st.text(max_size=20))
def test_results_are_shown_whole(content: str) -> None:
    for format in FORMATS.values():
        assert content in format.result("get_weather", content)
    assert FORMATS["hermes"].result("f", "1") == "<tool_response>\n1\n</tool_response>"
