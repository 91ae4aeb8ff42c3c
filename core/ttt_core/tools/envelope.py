"""Calls written as one JSON object: `{"name": "f", "arguments": {...}}`, read and described."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ttt_core.tools.calls import Tool, ToolCall
from ttt_core.tools.draft import Draft
from ttt_core.tools.reader import WAIT, Event, Source, Steps, accept, peek, read_until, skip_space
from ttt_core.tools.scanning import Malformed, Scanner, parse_json

_NAME_KEYS = frozenset({"name", "function"})
_ARGUMENT_KEYS = frozenset({"arguments", "parameters"})
_DEFINITIONS = frozenset({"$defs", "definitions"})


def read_call(source: Source, draft: Draft, stops: Sequence[str]) -> Steps[None]:
    """Read one object as a call; skip to the first of `stops` where it is broken."""
    try:
        yield from read_members(source, draft)
    except Malformed as error:
        if draft.name is None or not draft.complete:
            yield from draft.fail(str(error), (yield from read_until(source, stops)))
            return
    # A call whose last brace is missing leaves no doubt about what is to be called.
    yield from draft.close()


def read_members(source: Source, draft: Draft) -> Steps[None]:
    """Read the object; the order of its keys and further ones do not matter.

    Raises:
        Malformed: It is none.
    """
    if not (yield from accept(source, "{")):
        raise Malformed("a call is a JSON object, expected {")
    while True:
        yield from skip_space(source)
        if (yield from accept(source, "}")):
            return
        key = yield from _read_key(source)
        if key in _ARGUMENT_KEYS and not draft.complete:
            yield from read_arguments(source, draft)
        else:
            value = yield from read_value(source)
            if key in _NAME_KEYS and draft.name is None:
                yield from draft.set_name(parse_json(value))
        yield from skip_space(source)
        yield from accept(source, ",")


def read_arguments(source: Source, draft: Draft) -> Steps[None]:
    """Read the arguments: an object, handed on as it comes, or one written as a string.

    Raises:
        Malformed: They are broken.
    """
    if (yield from peek(source)) == "{":
        yield from _read_into(source, Scanner(), draft.add)
    else:
        value = parse_json(text := (yield from read_value(source)))
        if isinstance(value, str):
            text = value
        yield from draft.add(text if value else "{}")
    draft.complete = True


def read_value(source: Source, scanner: Scanner | None = None) -> Steps[str]:
    """Read and return the text of one value, by default of JSON.

    Raises:
        Malformed: It is broken, or the answer ends within it.
    """
    start = source.at
    yield from _read_into(source, scanner or Scanner(), lambda text: ())
    return source.text[start : source.at]


def _read_into(
    source: Source, scanner: Scanner, use: Callable[[str], Iterable[Event]]
) -> Steps[None]:
    while not scanner.done:
        if not source.exhausted:
            yield from use(source.take(scanner.read(source.text, source.at)))
        elif source.ended:
            scanner.end()
        else:
            yield WAIT


def _read_key(source: Source) -> Steps[str]:
    if (yield from peek(source)) != '"':
        raise Malformed("expected a key of the call")
    key = parse_json((yield from read_value(source)))
    yield from skip_space(source)
    if not (yield from accept(source, ":")):
        raise Malformed("expected a colon behind a key of the call")
    yield from skip_space(source)
    return str(key)


def envelope(call: ToolCall, key: str = "arguments", *, with_id: bool = False) -> str:
    """Write a call as chat templates do: keys in this order, a space behind `,` and `:`."""
    members = {"name": call.name, key: call.arguments, **({"id": call.id} if with_id else {})}
    return json.dumps(members, ensure_ascii=False)


def quote(text: str) -> str:
    """Write a piece of text in Lark."""
    return json.dumps(text) if text else ""


def definitions(tool: Tool) -> dict[str, Any]:
    """Return what a tool's schema keeps at its top for all of its parts to refer to."""
    return {key: each for key, each in tool.parameters.items() if key in _DEFINITIONS}


def call_rules(
    tools: Sequence[Tool], schema: Callable[[Tool], str], write: Callable[[Tool, str], str]
) -> str:
    """Write the rule `call` with one alternative for each tool.

    Args:
        tools: At least one.
        schema: Lark for a tool's arguments.
        write: Lark for a call of a tool, given the name of the rule of its arguments.
    """
    lines = ["call: " + " | ".join(f"call_{index}" for index in range(len(tools)))]
    for index, tool in enumerate(tools):
        lines.append(f"call_{index}: {write(tool, f'args_{index}')}")
        lines.append(f"args_{index}: {schema(tool)}")
    return "\n".join(lines)


def envelope_rule(tool: Tool, arguments: str, key: str = "arguments", end: str = '"}"') -> str:
    """Write Lark for one tool's object; `end` follows the arguments."""
    head = json.dumps({"name": tool.name}, ensure_ascii=False)[:-1] + f', "{key}": '
    return f"{quote(head)} {arguments} {end}"
