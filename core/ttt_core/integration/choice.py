"""Which tool a call has to use, in all the shapes that users of the frameworks pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ttt_core.errors import ConfigError

_MODES = ("auto", "none", "required", "any")
_OF_ONE_TOOL = (None, "function", "tool")
"""Types of the objects that name a tool."""


def tool_choice_of(given: Any) -> Any:
    """Translate to what the core takes; None: the tools' own default.

    Args:
        given: A tool's name, `auto`, `none`, `required` or `any`, a bool, or an object of OpenAI's
            (`{"type": "function", "function": {"name": ...}}`,
            https://platform.openai.com/docs/api-reference/chat/create) or Anthropic's
            (`{"type": "any"}`, `{"type": "tool", "name": ...}`,
            https://docs.claude.com/en/api/messages).

    Raises:
        ConfigError: An object of another shape. Other values the core judges, which knows the
            tools' names.
    """
    if isinstance(given, Mapping):
        given = _said_by(given)
    if given == "any" or given is True:
        return "required"
    return None if given is False else given


def _said_by(choice: Mapping[Any, Any]) -> str:
    """Return the tool's name, or the mode, that an object holds."""
    kind, tool = choice.get("type"), choice.get("function", choice)
    name = tool.get("name") if isinstance(tool, Mapping) else None
    if kind in _OF_ONE_TOOL and isinstance(name, str) and name:
        return name
    if kind in _MODES and tool is choice and name is None:
        return str(kind)
    raise ConfigError(
        f"tool_choice is 'auto', 'none', 'required', 'any', a tool's name, True or False, "
        f'{{"type": "function", "function": {{"name": ...}}}} or {{"type": "tool", "name": ...}}, '
        f"not an object {_shape(choice)}"
    )


def _shape(choice: Mapping[Any, Any]) -> str:
    """Say what an object is, without its values: some APIs take whole tools there."""
    if isinstance(kind := choice.get("type"), str) and kind not in ("function", "tool"):
        return f"of type {kind[:40]!r}"
    return f"with the keys {', '.join(sorted(map(str, choice)))}" if choice else "without keys"
