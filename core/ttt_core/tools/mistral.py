"""Mistral: behind `[TOOL_CALLS]` a JSON list (v3) or `name[ARGS]{...}` for each call (v11 and on).

See https://github.com/mistralai/mistral-common.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from ttt_core.tools.calls import Tool, ToolCall
from ttt_core.tools.draft import Draft
from ttt_core.tools.envelope import call_rules, envelope, envelope_rule, quote, read_arguments
from ttt_core.tools.reader import Source, Steps, accept, peek, read_until, skip_space
from ttt_core.tools.scanning import Malformed
from ttt_core.tools.tagged import ListFormat

_CALLS, _ARGS, _ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"


class MistralFormat(ListFormat):
    """The JSON list. Reading takes both ways: some templates show one, and models know the other.

    Args:
        gap: What stands between the tag and the list: a space where the tokenizer is
            SentencePiece's.
    """

    name = "mistral"
    opening = _CALLS
    triggers = (_CALLS,)
    control_tokens = frozenset({_CALLS, _ARGS, _ID})

    def __init__(self, gap: str = " ") -> None:
        self.gap = gap

    def _write(self, call: ToolCall) -> str:
        return envelope(call, with_id=True)

    def _call(self, tool: Tool, arguments: str) -> str:
        # Models of this version name an id, which nobody needs: it may be left out.
        return envelope_rule(
            tool, arguments, end='("}" | ", \\"id\\": \\"" /[a-zA-Z0-9]{9}/ "\\"}")'
        )

    def _read_calls(self, source: Source) -> Steps[None]:
        yield from skip_space(source)
        if (yield from peek(source)) in {"[", "{"}:
            yield from super()._read_calls(source)
        else:
            yield from _read_named(source)


class MistralArgsFormat(MistralFormat):
    """The name as it is, `[ARGS]` and the arguments; every call begins with the tag.

    Args:
        with_id: Whether `[CALL_ID]` and an id stand behind the name, as in v11.
    """

    name = "mistral-args"

    def __init__(self, *, with_id: bool = False) -> None:
        super().__init__(gap="")
        self._with_id = with_id

    def rules(
        self,
        tools: Sequence[Tool],
        *,
        literal: Callable[[str], str],
        schema: Callable[[Tool], str],
        parallel: bool,
    ) -> str:
        """See `ToolFormat`."""
        opening, middle = literal(_CALLS), literal(_ARGS)
        if self._with_id:
            middle = f"({literal(_ID)} /[a-zA-Z0-9]{{9}}/)? {middle}"
        more = f"({opening} call)*" if parallel else ""
        head = f"calls: {opening} calls_body\ncalls_body: call {more}\n"

        def write(tool: Tool, arguments: str) -> str:
            return f"{quote(tool.name)} {middle} {arguments}"

        return head + call_rules(tools, schema, write) + "\n"

    def render(self, calls: Sequence[ToolCall]) -> str:
        """See `ToolFormat`."""
        return "".join(map(self._write, calls))

    def _write(self, call: ToolCall) -> str:
        given = f"{_ID}{call.id}" if self._with_id else ""
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        return f"{_CALLS}{call.name}{given}{_ARGS}{arguments}"


def _read_named(source: Source) -> Steps[None]:
    draft = Draft(source)
    try:
        name = yield from read_until(source, ("[", "{"))
        yield from draft.set_name(name.strip())
        if (yield from accept(source, _ID)):
            yield from read_until(source, ("[", "{"))
        yield from accept(source, _ARGS)
        yield from skip_space(source)
        yield from read_arguments(source, draft)
        yield from draft.close()
    except Malformed as error:
        yield from draft.fail(str(error), (yield from read_until(source, (_CALLS,))))
