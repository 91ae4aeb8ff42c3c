"""The whole grammar of one answer: thinking, free text, tool calls, JSON, as the request allows.

Written in llguidance's Lark: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md.
Its lexer takes the longest match and never goes back. So what may stand in one place must differ in
a way that the lexer sees: free text excludes what begins a call, and text up to a trigger that is
plain characters is one lazy lexeme.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from ttt_core.constrained.schema import closed, json_grammar
from ttt_core.errors import ConfigError
from ttt_core.tools.base import Tool, ToolFormat

_ALL = "(?s:.*)"
_VISIBLE = f"(\\S{_ALL})?"
_GAP = r"[ \t\r\n]{0,8}"  # Bounded: blank lines are the easiest way to never answer.
_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}


def compose(
    *,
    tools: Sequence[Tool],
    tool_choice: str,
    parallel: bool,
    response_schema: dict[str, Any] | Literal[True] | None,
    thinking: bool,
    end_think: str,
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
        thinking: Whether the answer begins with the model's thinking, which `end_think` ends.
        end_think: The tag.
        format: How the model writes calls.
        literal: Lark for text that may be one token, see `Vocabulary.literal`.
        strict: Whether a schema that cannot be enforced is an error.

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
        schema = _arguments(strict)
        lines.append(write(callable_tools, literal=literal, schema=schema, parallel=several))
        alternatives.append("calls")
    if tool_choice in {"auto", "none"} and response_schema is not None:
        lines.append(f"json: {_response(response_schema, strict)}")
        alternatives.append("json")
    elif tool_choice in {"auto", "none"}:
        lines.append(f"TEXT: /{_VISIBLE if thinking else _ALL}/ & ~/{_slash(format.call_pattern)}/")
        alternatives = ["TEXT", *_with_text(format, literal, thinking, alternatives, lines)]
    lines.append("answer: " + " | ".join(alternatives))
    start = _thought(end_think, literal, lines) if thinking else ""
    return "\n".join(["%llguidance {}", f"start: {start} answer", *lines, ""])


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
    thinking: bool,
    alternatives: list[str],
    lines: list[str],
) -> list[str]:
    """Put free text before the calls, if there are any and the format has it."""
    if not alternatives or format.only_at_start:
        return alternatives
    trigger = literal(format.triggers[0])
    if _is_token(trigger):
        return [f"TEXT {trigger} calls_body"]
    text = _VISIBLE if thinking else _ALL
    lines.append(f"text_before[lazy]: /{text}{_escape(format.triggers[0])}/")
    return ["text_before calls_body"]


def _thought(end: str, literal: Callable[[str], str], lines: list[str]) -> str:
    """Write rules for thinking and the gap behind it; return how the grammar begins."""
    lines.append(f"GAP: /{_GAP}/")
    if _is_token(literal(end)):
        # Without the exclusion, a token that is plain text for llguidance would go on thinking.
        lines.append(f"THOUGHT: /{_ALL}/ & ~/{_ALL}{_escape(end)}{_ALL}/")
        return f"{_begin(end, literal)} THOUGHT {literal(end)} GAP"
    lines.append(f"thought[lazy]: /{_ALL}{_escape(end)}/")
    return "thought GAP"


def _begin(end: str, literal: Callable[[str], str]) -> str:
    """Allow the begin tag where the model writes it: a special token is no text for THOUGHT."""
    begin = literal(end.replace("/", "", 1))
    return f"{begin}?" if _is_token(begin) and "/" in end else ""


def _arguments(strict: bool) -> Callable[[Tool], str]:
    return lambda tool: _spaced(closed(tool.parameters or _NO_ARGUMENTS, strict=strict))


def _response(schema: dict[str, Any] | Literal[True], strict: bool) -> str:
    if schema is True:
        return json_grammar({"type": "object"})
    return json_grammar(closed(schema, strict=strict))


def _spaced(schema: dict[str, Any]) -> str:
    """Write `%json` with a space behind `,` and `:`: templates show calls the way json.dumps does.

    Models learned to write them so, and what the grammar forbids is what they would say next.
    """
    style = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return "%json " + json.dumps({**schema, "x-guidance": style})


def _is_token(lark: str) -> bool:
    return lark.startswith("<")


def _escape(text: str) -> str:
    return _slash(re.escape(text))


def _slash(pattern: str) -> str:
    """Escape what would end a pattern in Lark."""
    return re.sub(r"(?<!\\)/", r"\\/", pattern)
