"""Tools that a model may call and the calls that it made, in one shape for every model family."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ttt_core.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""What a tool may be called: no format gives these characters a meaning of its own."""

_CHOICES = {"auto", "none", "required"}  # Of `tool_choice`, where a tool's name may stand, too.
_ID_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 9  # Mistral's chat templates refuse any other length.


@dataclass(frozen=True)
class Tool:
    """One function that the model may call.

    Attributes:
        name: 1 to 64 letters, digits, `_`, `.` or `-`.
        description: What it does, for the model to read.
        parameters: JSON schema of its arguments, an object; `{}`: it takes none.
        strict: Whether parameters that cannot be enforced whole are an error; OpenAI's word.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    strict: bool = False

    def as_openai(self) -> dict[str, Any]:
        """Write it the way chat templates expect: OpenAI's `{"type": "function", ...}`."""
        parameters = self.parameters or {"type": "object", "properties": {}}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class ToolCall:
    """A call that can be made: its arguments are a JSON object, not checked against the schema."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class InvalidToolCall:
    """Something that began like a call and cannot be made.

    Attributes:
        id: Like a call's.
        name: The tool's name, if it got that far.
        arguments: The text as the model wrote it: of the arguments, if these were reached; else
            of the whole call.
        error: What is wrong with it.
    """

    id: str
    name: str | None
    arguments: str
    error: str


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a call, in the shape of OpenAI's stream.

    Attributes:
        index: Which call of the answer, from 0.
        id: In a call's first piece only.
        name: In a call's first piece only.
        arguments: More of the arguments' JSON text; may be empty.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


def new_call_id() -> str:
    """Make an id for a call: nine random letters and digits."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))


def as_tools(raw: Sequence[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Read tools in OpenAI's shape: `{"type": "function", "function": {...}}` or the inner part.

    See https://platform.openai.com/docs/api-reference/chat/create#chat-create-tools.

    Raises:
        ConfigError: A wrong shape, a name that cannot be, or the same name twice.
    """
    if isinstance(raw, str | bytes | Mapping) or not isinstance(raw, Sequence):
        raise ConfigError(f"tools are a list of mappings, not {type(raw).__name__}")
    tools = tuple(_as_tool(one, index) for index, one in enumerate(raw))
    names = [tool.name for tool in tools]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two tools are called {twice[0]!r}; every tool needs a name of its own")
    return tools


def _as_tool(raw: Mapping[str, Any], index: int) -> Tool:
    place = f"tools[{index}]"
    function = _function(raw, place)
    name = function.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in _CHOICES:
        raise ConfigError(
            f"{place}: {name!r} cannot be a tool's name; expected 1 to 64 letters, digits, "
            f"'_', '.' or '-', and not {', '.join(sorted(_CHOICES))}"
        )
    description = function.get("description") or ""
    if not isinstance(description, str):
        raise ConfigError(
            f"{place} ({name}): the description is {type(description).__name__}, not text"
        )
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise ConfigError(f"{place} ({name}): parameters must be the JSON schema of an object")
    strict = function.get("strict") is True
    return Tool(name, description=description, parameters=dict(parameters), strict=strict)


def _function(raw: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{place} is {type(raw).__name__}; expected a mapping")
    if raw.get("type", "function") != "function":
        raise ConfigError(f"{place} has type {raw['type']!r}; only 'function' can be called here")
    function = raw.get("function", raw)
    if not isinstance(function, Mapping) or "name" not in function:
        raise ConfigError(
            f"{place} has no function with a name; expected "
            f'{{"type": "function", "function": {{"name": ..., "parameters": {{...}}}}}}'
        )
    return function
