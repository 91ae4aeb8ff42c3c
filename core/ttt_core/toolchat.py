"""Conversations with tools, as a chat template takes them: natively where it can, else as text."""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ttt_core.lazy import lazy_property
from ttt_core.tools import ToolCall

if TYPE_CHECKING:
    from ttt_core.tools import ToolFormat

_PROBE = "zebra7"
_ID = re.compile(r"[A-Za-z0-9]{9}")


class ToolChat:
    """What one chat template knows of tools, and how to say the rest.

    Args:
        apply: Renders messages, optionally with `tools`; raises what the template raises.
        format: How the model writes its calls.
    """

    def __init__(self, apply: Callable[..., str], format: ToolFormat) -> None:
        self._apply = apply
        self.format = format

    @lazy_property
    def lists_tools(self) -> bool:
        """Whether the template itself tells the model which tools there are."""
        tool = {"name": _PROBE, "description": "", "parameters": {"type": "object"}}
        return self._shows(
            [{"role": "user", "content": "a"}], tools=[{"type": "function", "function": tool}]
        )

    @lazy_property
    def writes_calls(self) -> bool:
        """Whether the template writes earlier calls and their results."""
        return self._writes(1)

    @lazy_property
    def takes_several(self) -> bool:
        """Whether one turn may hold several calls; Llama 3's templates refuse that."""
        return not self.writes_calls or self._writes(2)

    def _writes(self, number: int) -> bool:
        call = {"id": "a1b2c3d4e", "type": "function",
                "function": {"name": _PROBE, "arguments": {"x": f"{_PROBE}x"}}}  # fmt: skip
        turns: list[dict[str, Any]] = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": [call] * number},
            *[{"role": "tool", "tool_call_id": call["id"], "name": _PROBE,
               "content": f"{_PROBE}y"}] * number,
        ]  # fmt: skip
        return self._shows(turns, needles=(_PROBE, f"{_PROBE}x", f"{_PROBE}y"))

    def turns(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Write messages so that the template takes them."""
        if not self.takes_several:
            messages = _one_call_each(messages)
        return [self._turn(message) for message in messages]

    def _turn(self, message: Mapping[str, Any]) -> dict[str, Any]:
        content = message.get("content")
        turn = {**message, "content": "" if content is None else str(content)}
        calls = turn.pop("tool_calls", None) or []
        if turn["role"] == "tool":
            return self._result(turn)
        if not calls:
            return turn
        if self.writes_calls:
            return {**turn, "tool_calls": [_as_template_call(call) for call in calls]}
        text = self.format.render([_as_call(call) for call in calls])
        return {**turn, "content": "\n".join(filter(None, (turn["content"], text)))}

    def _result(self, turn: dict[str, Any]) -> dict[str, Any]:
        if self.writes_calls:
            return {**turn, "tool_call_id": _short_id(turn.get("tool_call_id"))}
        name = str(turn.get("name") or "")
        return {"role": "user", "content": self.format.result(name, turn["content"])}

    def _shows(
        self, turns: list[dict[str, Any]], needles: Sequence[str] = (_PROBE,), **variables: Any
    ) -> bool:
        try:
            text = self._apply(turns, **variables)
        except Exception:  # Templates refuse with exceptions of their own making.
            return False
        return all(needle in text for needle in needles)


def _one_call_each(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Make a turn of every call, each followed by its result."""
    told: list[Mapping[str, Any]] = []
    left = deque(messages)
    while left:
        message = left.popleft()
        calls = message.get("tool_calls") or []
        told.append({**message, "tool_calls": calls[:1]} if len(calls) > 1 else message)
        if len(calls) < 2:
            continue
        results: list[Mapping[str, Any]] = []
        while left and left[0]["role"] == "tool":
            results.append(left.popleft())
        for number, call in enumerate(calls):
            if number:
                told.append({**message, "content": "", "tool_calls": [call]})
            told += _take_result(results, call)
        told += results
    return told


def _take_result(
    results: list[Mapping[str, Any]], call: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Take out the first result that names the call."""
    for result in results:
        if result.get("tool_call_id") == call.get("id"):
            results.remove(result)
            return [result]
    return []


def _arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = call["function"].get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = {}
    return dict(arguments) if isinstance(arguments, Mapping) else {}


def _as_call(call: Mapping[str, Any]) -> ToolCall:
    return ToolCall(str(call.get("id") or ""), str(call["function"]["name"]), _arguments(call))


def _as_template_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": str(call["function"]["name"]), "arguments": _arguments(call)}
    return {"id": _short_id(call.get("id")), "type": "function", "function": function}


def _short_id(given: Any) -> str:
    """Return nine letters and digits, which is what Mistral's templates insist on.

    Histories bring ids that other models' servers made up.
    """
    text = str(given or "")
    return text if _ID.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:9]
