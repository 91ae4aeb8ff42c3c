"""DeepSeek V3 (arguments in a fenced block, a type in front) and V3.1 (neither).

See https://huggingface.co/deepseek-ai/DeepSeek-V3.1 and its chat template.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from ttt_core.tools.base import ToolFormat
from ttt_core.tools.calls import Tool, ToolCall
from ttt_core.tools.draft import Draft
from ttt_core.tools.envelope import call_rules, quote, read_arguments
from ttt_core.tools.reader import (
    Source,
    Steps,
    accept,
    peek,
    read_until,
    skip_space,
    text_until,
)
from ttt_core.tools.scanning import Malformed

# The bars and the low blocks are what DeepSeek's tokens are made of, not `|` and `_`.
_CALLS, _CALLS_END = (
    "<\uff5ctool\u2581calls\u2581begin\uff5c>",
    "<\uff5ctool\u2581calls\u2581end\uff5c>",
)
_CALL, _CALL_END = (
    "<\uff5ctool\u2581call\u2581begin\uff5c>",
    "<\uff5ctool\u2581call\u2581end\uff5c>",
)
_SEPARATOR = "<\uff5ctool\u2581sep\uff5c>"
_FENCE, _FENCE_END = "```json", "```"


class DeepSeekFormat(ToolFormat):
    """Tags around all calls and around each.

    Args:
        fenced: Whether the model writes arguments the way of V3; both are read.
    """

    name = "deepseek"
    triggers = (_CALLS, _CALL)
    control_tokens = frozenset({_CALLS, _CALLS_END, _CALL, _CALL_END, _SEPARATOR})

    def __init__(self, *, fenced: bool = True) -> None:
        self._fenced = fenced

    def rules(
        self,
        tools: Sequence[Tool],
        *,
        literal: Callable[[str], str],
        schema: Callable[[Tool], str],
        parallel: bool,
    ) -> str:
        """See `ToolFormat`."""
        one = f"{literal(_CALL)} call {literal(_CALL_END)}"
        between = '"\\n" ' if self._fenced else ""
        more = f"({between}{one})*" if parallel else ""
        head = (
            f"calls: {literal(_CALLS)} calls_body\ncalls_body: {one} {more} {literal(_CALLS_END)}\n"
        )

        def write(tool: Tool, arguments: str) -> str:
            parts = (literal(_SEPARATOR) if part == _SEPARATOR else quote(part)
                     for part in self._before(tool.name))  # fmt: skip
            return f"{' '.join(parts)} {arguments} {quote(self._after)}"

        return head + call_rules(tools, schema, write) + "\n"

    def parse(self, source: Source) -> Steps[None]:
        """See `ToolFormat`."""
        while trigger := (yield from text_until(source, (_CALLS, _CALL, _CALLS_END))):
            if trigger == _CALL:
                yield from _read_call(source)

    def render(self, calls: Sequence[ToolCall]) -> str:
        """See `ToolFormat`."""
        inside = ("\n" if self._fenced else "").join(map(self._write, calls))
        return f"{_CALLS}{inside}{_CALLS_END}"

    @property
    def _after(self) -> str:
        return f"\n{_FENCE_END}" if self._fenced else ""

    def _before(self, name: str) -> tuple[str, ...]:
        return ("function", _SEPARATOR, f"{name}\n{_FENCE}\n") if self._fenced else (
            name, _SEPARATOR)  # fmt: skip

    def _write(self, call: ToolCall) -> str:
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        return f"{_CALL}{''.join(self._before(call.name))}{arguments}{self._after}{_CALL_END}"


def _read_call(source: Source) -> Steps[None]:
    draft = Draft(source)
    try:
        yield from draft.set_name((yield from _read_name(source)))
        yield from read_arguments(source, draft)
        yield from draft.close()
    except Malformed as error:
        stops = (_CALL_END, _CALLS_END, _CALL)
        yield from draft.fail(str(error), (yield from read_until(source, stops)))
    yield from skip_space(source)
    yield from accept(source, _FENCE_END)
    yield from skip_space(source)
    yield from accept(source, _CALL_END)


def _read_name(source: Source) -> Steps[str]:
    """Read up to the arguments; return the tool's name, which stands before or behind the tag."""
    name = yield from read_until(source, (_SEPARATOR, _CALL_END, "{"))
    if not (yield from accept(source, _SEPARATOR)):
        raise Malformed("the call has no separator behind its beginning")
    yield from skip_space(source)
    if (yield from peek(source)) not in {"{", "`"}:
        name = yield from read_until(source, ("\n", "{", "`", _CALL_END))
        yield from skip_space(source)
    if (yield from accept(source, _FENCE, _FENCE_END)):
        yield from skip_space(source)
    return name.strip()
