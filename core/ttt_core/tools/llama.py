"""Llama 3: an answer that is a JSON object with `parameters`, possibly behind `<|python_tag|>`.

See https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/#json-based-tool-calling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from ttt_core.tools.base import ToolFormat
from ttt_core.tools.calls import Tool, ToolCall
from ttt_core.tools.draft import Draft
from ttt_core.tools.envelope import (
    call_rules,
    definitions,
    envelope,
    envelope_rule,
    read_call,
    read_members,
)
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

_TAG = "<|python_tag|>"
_KEY = '"(name|type|function)"'


class LlamaFormat(ToolFormat):
    """Without a tag, only an answer that begins with a call and names its parameters is one."""

    name = "llama"
    triggers = ('{"name"', '{"type"', '{"function"', _TAG)
    control_tokens = frozenset({_TAG})
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
        write = partial(envelope_rule, key="parameters")
        return f"{_several(parallel)}{call_rules(tools, schema, write)}\n"

    def rules_beside_json(
        self,
        tools: Sequence[Tool],
        *,
        literal: Callable[[str], str],
        schema: Callable[[Tool], str],
        parallel: bool,
    ) -> str:
        """See `ToolFormat`: whole calls by their schema, so that all is split at the same places.

        Beside the pattern of `rules`, `name` would be the only way to go on behind `{"`.
        """
        whole = [_whole(tool) for tool in tools]
        return f"{_several(parallel)}{call_rules(whole, schema, lambda tool, rule: rule)}\n"

    @property
    def call_pattern(self) -> str:
        """See `ToolFormat`."""
        return rf"\s*\{{\s*{_KEY}(?s:.*)|(?s:.*){re.escape(_TAG)}(?s:.*)"

    def parse(self, source: Source) -> Steps[None]:
        """See `ToolFormat`."""
        if (yield from _read_bare(source)):
            yield from _read_more(source)
        while (yield from text_until(source, (_TAG,))):
            yield from skip_space(source)
            yield from read_call(source, Draft(source), (_TAG,))
            yield from _read_more(source)

    def render(self, calls: Sequence[ToolCall]) -> str:
        """See `ToolFormat`."""
        return "; ".join(envelope(call, "parameters") for call in calls)


def _several(parallel: bool) -> str:
    return "calls: call" + (' ("; " call)*' if parallel else "") + "\n"


def _whole(tool: Tool) -> Tool:
    """Return a tool whose `parameters` is the schema of a whole call."""
    arguments = tool.parameters or {"type": "object", "properties": {}}
    shared = definitions(tool)
    own = {key: each for key, each in arguments.items() if key not in shared}
    call = {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "parameters": own},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }
    return Tool(tool.name, parameters={**shared, **call})


def _read_bare(source: Source) -> Steps[bool]:
    """Read a call that nothing announces; leave the text alone if it is none."""
    start = source.at
    yield from skip_space(source)
    if (yield from peek(source)) != "{":
        source.at = start
        return False
    draft = Draft(source, tentative=True)
    try:
        yield from read_members(source, draft)
    except Malformed as error:
        if not draft.begun:
            source.at = start
        elif draft.complete:
            yield from draft.close()
        else:
            yield from draft.fail(str(error), (yield from read_until(source, (_TAG,))))
    else:
        if draft.begun:
            yield from draft.close()
        else:
            source.at = start
    return draft.begun


def _read_more(source: Source) -> Steps[None]:
    """Read further calls: they are separated by semicolons."""
    while True:
        yield from skip_space(source)
        separated = yield from accept(source, ";", ",")
        yield from skip_space(source)
        if not separated or (yield from peek(source)) != "{":
            return
        yield from read_call(source, Draft(source), (_TAG,))
