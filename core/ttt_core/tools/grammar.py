"""The whole grammar of one answer: free text, tool calls, JSON, as the request allows.

Written in llguidance's Lark: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md.
Its lexer takes the longest match and never goes back. So what may stand in one place must differ in
a way that the lexer sees: free text excludes what begins a call, and text up to a trigger that is
plain characters is one lazy lexeme.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from ttt_core.constrained.schema import closed, json_grammar
from ttt_core.errors import ConfigError
from ttt_core.tools.base import ToolFormat
from ttt_core.tools.calls import Tool

_ALL = "(?s:.*)"
_ANY_OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": True}
_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}


def compose(
    *,
    tools: Sequence[Tool],
    tool_choice: str,
    parallel: bool,
    response_schema: dict[str, Any] | Literal[True] | None,
    format: ToolFormat,
    literal: Callable[[str], str],
    strict: bool,
) -> str | None:
    """Write the grammar of an answer; None: nothing is to be enforced.

    Args:
        tools: What may be called.
        tool_choice: `auto` (text or calls), `none`, `required`, or the name of the one tool that
            has to be called.
        parallel: Whether several calls may be made.
        response_schema: JSON schema of an answer that is no call; True: any JSON object. There
            is no free text then.
        format: How the model writes calls.
        literal: Lark for text that may be one token, see `Vocabulary.literal`.
        strict: Whether a response schema that cannot be enforced is an error; tools say so
            themselves.

    Raises:
        ConfigError: A tool has to be called that is not there, or a schema cannot be enforced.
    """
    callable_tools = _callable(tools, tool_choice)
    if not tools and response_schema is None:
        return None
    lines, alternatives = [], []
    if callable_tools:
        write = format.rules if response_schema is None else format.rules_beside_json
        several = parallel and tool_choice in {"auto", "required"}
        lines.append(write(callable_tools, literal=literal, schema=_arguments, parallel=several))
        alternatives.append("calls")
    if tool_choice in {"auto", "none"} and response_schema is not None:
        lines.append(f"json: {_response(response_schema, strict)}")
        alternatives.append("json")
    elif tool_choice in {"auto", "none"}:
        lines.append(f"TEXT: /{_ALL}/ & ~/{_slash(format.call_pattern)}/")
        alternatives = ["TEXT", *_with_text(format, literal, alternatives, lines)]
    start = "start: " + " | ".join(alternatives)
    return "\n".join(["%llguidance {}", start, *lines, ""])


def _callable(tools: Sequence[Tool], choice: str) -> Sequence[Tool]:
    """Return the tools that this answer may call."""
    if choice == "none":
        return ()
    if choice == "auto":
        return tools
    found = tools if choice == "required" else [tool for tool in tools if tool.name == choice]
    if not found:
        names = ", ".join(repr(tool.name) for tool in tools) or "none"
        raise ConfigError(
            f"tool_choice is {choice!r}, but the tools are: {names}; expected 'auto', 'none', "
            f"'required' or a tool's name"
        )
    return found


def _with_text(
    format: ToolFormat,
    literal: Callable[[str], str],
    alternatives: list[str],
    lines: list[str],
) -> list[str]:
    """Put free text before the calls, if there are any and the format has it."""
    if not alternatives or format.only_at_start:
        return alternatives
    trigger = literal(format.triggers[0])
    if _is_token(trigger):
        return [f"TEXT {trigger} calls_body"]
    lines.append(f"text_before[lazy]: /{_ALL}{_escape(format.triggers[0])}/")
    return ["text_before calls_body"]


def _arguments(tool: Tool) -> str:
    return json_grammar(closed(tool.parameters or _NO_ARGUMENTS, strict=tool.strict))


def _response(schema: dict[str, Any] | Literal[True], strict: bool) -> str:
    return json_grammar(closed(_ANY_OBJECT if schema is True else schema, strict=strict))


def _is_token(lark: str) -> bool:
    return lark.startswith("<")


def _escape(text: str) -> str:
    return _slash(re.escape(text))


def _slash(pattern: str) -> str:
    """Escape what would end a pattern in Lark."""
    return re.sub(r"(?<!\\)/", r"\\/", pattern)
