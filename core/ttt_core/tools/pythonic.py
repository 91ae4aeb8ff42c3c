"""Llama 3.2 and 4: an answer that is a Python list of calls, `[f(a=1, b="x"), g()]`.

See https://www.llama.com/docs/model-cards-and-prompt-formats/llama4/#-zero-shot-function-calling-.
Nothing of it is ever evaluated: only literals are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ttt_core.tools.base import ToolFormat
from ttt_core.tools.calls import Tool, ToolCall
from ttt_core.tools.draft import Draft
from ttt_core.tools.envelope import definitions, quote, read_value
from ttt_core.tools.literals import as_python, parse_literal, split_commas
from ttt_core.tools.reader import (
    Source,
    Steps,
    accept,
    peek,
    read_until,
    skip_space,
    text_until,
)
from ttt_core.tools.scanning import Malformed, Scanner

_BEGIN, _END = "<|python_start|>", "<|python_end|>"
_OPENING = r"\[\s*[A-Za-z0-9_.\-]+\s*\("
_KEYWORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CALL = re.compile(r"\s*([A-Za-z0-9_.-]{1,64})\s*\((.*)\)\s*", re.DOTALL)
_ARGUMENT = re.compile(r"\s*(\*\*|[A-Za-z_][A-Za-z0-9_]*\s*=)(.*)", re.DOTALL)
_ANY = {"type": ["string", "number", "boolean", "null"]}


class PythonicFormat(ToolFormat):
    """Only an answer that begins with such a list holds calls."""

    name = "pythonic"
    triggers = ("[", _BEGIN)
    control_tokens = frozenset({_BEGIN, _END})
    only_at_start = True

    def rules(
        self,
        tools: Sequence[Tool],
        *,
        literal: Callable[[str], str],
        schema: Callable[[Tool], str],
        parallel: bool,
    ) -> str:
        """See `ToolFormat`."""
        more = '(", " call)*' if parallel else ""
        rules = [f"args_{index}" for index in range(len(tools))]
        named = list(zip(tools, rules, strict=True))
        # The bracket and the first name are one lexeme: a bracket alone is also free text.
        return "\n".join(
            [
                f'calls: first {more} "]"',
                _alternatives("first", "[", named),
                _alternatives("call", "", named),
                *(line for tool, rule in named for line in _argument_rules(tool, rule, schema)),
                "",
            ]
        )

    @property
    def call_pattern(self) -> str:
        """See `ToolFormat`."""
        return rf"\s*{_OPENING}(?s:.*)|(?s:.*){re.escape(_BEGIN)}(?s:.*)"

    def parse(self, source: Source) -> Steps[None]:
        """See `ToolFormat`."""
        start = source.at
        if (yield from _begins(source)):
            yield from _read_list(source)
        else:
            source.at = start
        while (yield from text_until(source, (_BEGIN,))):
            yield from skip_space(source)
            yield from _read_list(source)

    def render(self, calls: Sequence[ToolCall]) -> str:
        """See `ToolFormat`."""
        return "[" + ", ".join(map(_write, calls)) + "]"


def _alternatives(rule: str, before: str, named: Sequence[tuple[Tool, str]]) -> str:
    calls = (f'{quote(f"{before}{tool.name}(")} {arguments} ")"' for tool, arguments in named)
    return f"{rule}: {' | '.join(calls)}"


def _argument_rules(tool: Tool, rule: str, schema: Callable[[Tool], str]) -> list[str]:
    """Write Lark for keyword arguments in the schema's order, the optional ones left out or not.

    `<rule>_<n>` is what may follow from the n-th on if none was written yet, `<rule>_<n>_more` if
    one was.
    """
    keywords = _keywords(tool)
    if keywords is None:
        return [f'{rule}: "**" {rule}_all', f"{rule}_all: {schema(tool)}"]
    required = tool.parameters.get("required", ())
    lines = [f"{rule}: {rule}_0"]
    for index, (name, value) in enumerate(keywords.items()):
        first, then = f"{rule}_{index}", f"{rule}_{index + 1}"
        without = name not in required
        argument = f"{quote(name + '=')} {rule}_value_{index} {then}_more"
        lines.append(f"{first}: {argument}" + (f" | {then}" if without else ""))
        lines.append(f'{first}_more: ", " {argument}' + (f" | {then}_more" if without else ""))
        lines.append(f"{rule}_value_{index}: {_value_rule(tool, value, schema)}")
    last = f"{rule}_{len(keywords)}"
    return [*lines, f'{last}: ""', f'{last}_more: ""']


def _keywords(tool: Tool) -> Mapping[str, Any] | None:
    """Return the arguments' schemas by name; None: they cannot be written as keywords."""
    parameters = tool.parameters
    plain = {"type", "properties", "required", "additionalProperties", "title", "description",
             "$defs", "definitions", "$schema"}  # fmt: skip
    properties = parameters.get("properties", {})
    if not set(parameters) <= plain or not all(map(_KEYWORD.fullmatch, properties)):
        return None
    if not set(parameters.get("required", ())) <= set(properties):
        return None
    if not properties and parameters.get("additionalProperties"):
        return None
    return dict(properties)


def _value_rule(tool: Tool, value: Any, schema: Callable[[Tool], str]) -> str:
    value = value if isinstance(value, Mapping) and value else _ANY
    if value.get("type") == "boolean" and "enum" not in value and "const" not in value:
        return '"True" | "False"'
    return schema(Tool(tool.name, parameters={**definitions(tool), **value}))


def _write(call: ToolCall) -> str:
    if not all(map(_KEYWORD.fullmatch, call.arguments)):
        return f"{call.name}(**{as_python(call.arguments)})"
    arguments = (f"{name}={as_python(value)}" for name, value in call.arguments.items())
    return f"{call.name}({', '.join(arguments)})"


def _begins(source: Source) -> Steps[bool]:
    """Look for a list that begins with a call; leave what was read before it, read."""
    yield from skip_space(source)
    yield from accept(source, _BEGIN)
    yield from skip_space(source)
    start = source.at
    if not (yield from accept(source, "[")):
        return False
    yield from skip_space(source)
    name = ""
    while (yield from peek(source)).isalnum() or (yield from peek(source)) in {"_", ".", "-"}:
        name += source.take(1)
    yield from skip_space(source)
    found = bool(name) and (yield from peek(source)) == "("
    source.at = start
    return found


def _read_list(source: Source) -> Steps[None]:
    whole = Draft(source)
    try:
        scanner = Scanner(quotes="\"'", brackets="[({", signs=",:+-._=*")
        text = yield from read_value(source, scanner)
    except Malformed as error:
        yield from whole.fail(str(error), (yield from read_until(source, (_END,))))
    else:
        for call in split_commas(text[1:-1]):
            yield from _read_call(source, call)
    yield from skip_space(source)
    yield from accept(source, _END)


def _read_call(source: Source, text: str) -> Steps[None]:
    draft = Draft(source)
    found = _CALL.fullmatch(text)
    try:
        if not found:
            raise Malformed("this is no call with keyword arguments")
        yield from draft.set_name(found[1])
        yield from draft.add(json.dumps(_arguments(found[2]), ensure_ascii=False))
        yield from draft.close()
    except Malformed as error:
        yield from draft.add(found[2] if found else text)
        yield from draft.fail(str(error))


def _arguments(text: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for part in split_commas(text):
        found = _ARGUMENT.fullmatch(part)
        if not found:
            raise Malformed("an argument has no name")
        value = parse_literal(found[2])
        if found[1] != "**":
            arguments[found[1].rstrip("= \t\n\r")] = value
        elif isinstance(value, dict):
            arguments.update(value)
        else:
            raise Malformed("what follows ** is no dict")
    return arguments
