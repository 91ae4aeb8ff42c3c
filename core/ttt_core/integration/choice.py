"""Which tool a call has to use, in all the shapes that users of the frameworks pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def tool_choice_of(given: Any) -> Any:
    """Translate to what the core takes; None: the tools' own default.

    Args:
        given: A tool's name, `auto`, `none`, `required` or `any`, a bool, or an object of OpenAI's
            (`{"type": "function", "function": {"name": ...}}`) or Anthropic's (`{"type": "any"}`).
    """
    if isinstance(given, Mapping):
        given = (given.get("function") or given).get("name") or given.get("type")
    if given == "any" or given is True:
        return "required"
    return None if given is False else given
