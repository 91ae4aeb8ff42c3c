"""LlamaIndex's messages to the core's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from llama_index.core.base.llms.types import (
    CachePoint,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms import ChatMessage, MessageRole

from llamaindex_ttt.prompts import FROM_TEMPLATE, PASSAGES, without_headers
from ttt_core import ConfigError, Document, DocumentError
from ttt_core.integration.prompt import (
    TEMPLATE,
    Attachment,
    Marked,
    Part,
    Passage,
    Text,
    text_of,
)

if TYPE_CHECKING:
    from ttt_core.chat import Message

_ROLES = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}
_MARKING = ("system", "user")
_UNTITLED = "input_document"
"""The title that LlamaIndex gives to documents that came without one."""


def to_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """Translate a conversation; contents become lists of parts, those of tool results text.

    Raises:
        ConfigError: Messages of another kind, content that is no text, a document by path or URL,
            or a tool call that cannot be read.
        DocumentError: A document in a message is empty, or not to be decoded.
    """
    turns: list[Message] = []
    names: dict[str, str] = {}  # Of the calls so far, by their ids.
    for message in messages:
        turn = _turn(message, names)
        calls = turn.get("tool_calls", ())
        names |= {call["id"]: call["function"]["name"] for call in calls}
        if turn["content"] or calls or turn["role"] == "tool":
            turns.append(turn)
    return turns


def _turn(message: ChatMessage, names: Mapping[str, str]) -> dict[str, Any]:
    role = _role(message)
    if role == "tool":
        return {"role": role, "content": _plain(message), **_answered(message, names)}
    turn: dict[str, Any] = {"role": role, "content": _parts(message, marks=role in _MARKING)}
    if message.additional_kwargs.get(FROM_TEMPLATE):
        turn[TEMPLATE] = True
    if role == "assistant" and (calls := _calls(message)):
        turn["tool_calls"] = calls
    return turn


def _role(message: object) -> str:
    if not isinstance(message, ChatMessage):
        raise ConfigError(f"expected messages as ChatMessage, found {type(message).__name__}")
    if message.role not in _ROLES:
        known = ", ".join(role.value for role in _ROLES)
        raise ConfigError(f"TTTLLM takes the roles {known}; found {message.role!r}")
    return _ROLES[message.role]


# Content


def _parts(message: ChatMessage, *, marks: bool) -> list[Part]:
    """Translate the blocks; text follows text on a new line, as in `ChatMessage.content`.

    Args:
        message: Any but a tool's.
        marks: Whether cache points mark the texts before them; only who asks brings documents.
    """
    parts: list[Part] = []
    begin = 0  # Of what the next cache point marks.
    for number, block in enumerate(message.blocks):
        if isinstance(block, CachePoint):
            parts[begin:] = _marked(parts[begin:]) if marks else parts[begin:]
            begin = len(parts)
            continue
        part = _part(block)
        if part is None:
            continue
        if isinstance(part, Text) and parts and not isinstance(parts[-1], Attachment):
            parts.append(Text("\n"))
            begin += begin == len(parts) - 1
        parts += _split(part.text, _spans(message, number)) if isinstance(part, Text) else [part]
    return _merged(parts)


def _part(block: object) -> Text | Attachment | None:
    """Translate a block; None: there is nothing in it that a model is to read."""
    if isinstance(block, CitationBlock):
        block = block.cited_content
    if isinstance(block, TextBlock):
        return Text(block.text) if block.text else None
    if isinstance(block, DocumentBlock):
        return Attachment(_document(block))
    if isinstance(block, CitableBlock):
        return Attachment(_citable(block))
    # Calls stand beside the content, and templates drop old thoughts.
    if isinstance(block, CachePoint | ThinkingBlock | ToolCallBlock):
        return None
    raise ConfigError(f"TTTLLM takes text and text documents, found a {type(block).__name__}")


def _plain(message: ChatMessage) -> str:
    """Return the text of a tool's result."""
    parts = [part for block in message.blocks if (part := _part(block))]
    return "\n".join(_text([part]) for part in parts)


def _marked(parts: Sequence[Part]) -> list[Part]:
    """Make one marked part of every run of texts."""
    runs = _runs(parts, lambda part: not isinstance(part, Attachment))
    return [Marked(_text(run)) if joins else run[0] for joins, run in runs]


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Make one part of every run of plain texts."""
    runs = _runs(parts, lambda part: isinstance(part, Text))
    return [Text(_text(run)) if joins else run[0] for joins, run in runs]


def _runs(
    parts: Sequence[Part], joins: Callable[[Part], bool]
) -> Iterator[tuple[bool, list[Part]]]:
    """Split parts into runs of those that are joined, and the others one by one."""
    for joined, run in groupby(parts, joins):
        if joined:
            yield True, list(run)
        else:
            yield from ((False, [part]) for part in run)


def _text(parts: Sequence[Part]) -> str:
    return text_of({"content": list(parts)})


def _split(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[Part]:
    """Split a text at its passages; spans that do not fit are left out."""
    end = 0
    for start, stop in sorted(spans):
        if end <= start < stop <= len(text):
            if end < start:
                yield Text(text[end:start])
            yield Passage(text[start:stop], without_headers(text[start:stop]))
            end = stop
    if end < len(text):
        yield Text(text[end:])


def _spans(message: ChatMessage, block: int) -> list[tuple[int, int]]:
    given = message.additional_kwargs.get(PASSAGES)
    spans = []
    for one in given if isinstance(given, list | tuple) else ():
        match one:
            case [int(number), int(start), int(stop)] if number == block:
                spans.append((start, stop))
    return spans


def _document(block: DocumentBlock) -> Document:
    """Read a text document that came with its bytes; those of others may come from anywhere."""
    if block.data is None:
        raise ConfigError(
            "a document in a message comes with its data, found one by reference; read it and "
            "pass its bytes: DocumentBlock(data=...)"
        )
    kind = block.document_mimetype
    if kind and not kind.startswith("text/"):
        raise ConfigError(
            f"a document in a message is text (document_mimetype text/...), found {kind!r}; "
            f"extract its text first"
        )
    try:
        stream = block.resolve_document()  # Of the data, if there is some: nothing is opened.
    except ValueError:
        raise DocumentError(
            "a document in a message is empty; expected text with at least one word"
        ) from None
    data = stream.read()
    data = data.encode() if isinstance(data, str) else data
    title = None if block.title == _UNTITLED else block.title
    return Document.from_bytes(data, name="a document in a message", title=title)


def _citable(block: CitableBlock) -> Document:
    texts = []
    for inner in block.content:
        part = _part(inner)
        texts += [part.document.text if isinstance(part, Attachment) else part.text] if part else []
    return Document.of("\n\n".join(texts), title=block.title or None)


# Calls


class _Call(NamedTuple):
    """A tool call as it came."""

    id: object
    name: object
    arguments: object

    def as_openai(self) -> dict[str, Any]:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(
                "a tool call has no name; expected a ToolCallBlock, or "
                "{'id': ..., 'function': {'name': ..., 'arguments': ...}}"
            )
        function = {"name": self.name, "arguments": _arguments(self.arguments)}
        # Ollama's have no ids, and their results name the tool instead.
        return {"id": str(self.id or self.name), "type": "function", "function": function}


def _calls(message: ChatMessage) -> list[dict[str, Any]]:
    """Return the calls of an answer, in the shape that templates take."""
    calls = [
        _Call(block.tool_call_id, block.tool_name, block.tool_kwargs)
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    ]
    if not calls:
        given = message.additional_kwargs.get("tool_calls") or ()
        functions = [(call, _get(call, "function")) for call in given]
        calls = [
            _Call(_get(call, "id"), _get(function, "name"), _get(function, "arguments"))
            for call, function in functions
        ]
    return [call.as_openai() for call in calls]


def _get(thing: object, name: str) -> object:
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def _arguments(given: object) -> dict[str, Any]:
    """Read the arguments of a call: an object, as JSON or not; nothing stands for none."""
    found = type(given).__name__
    if isinstance(given, str):
        try:
            given = json.loads(given.strip() or "{}")
            found = f"JSON of a {type(given).__name__}"
        except (ValueError, RecursionError):
            found = "text that is not JSON"
    if isinstance(given, Mapping):
        return dict(given)
    if given is None:
        return {}
    raise ConfigError(f"a tool call's arguments are an object or JSON of one, found {found}")


def _answered(message: ChatMessage, names: Mapping[str, str]) -> dict[str, Any]:
    """Say which call a tool's result answers."""
    about = message.additional_kwargs
    name = about.get("name") or names.get(str(about.get("tool_call_id")), "")
    return {"tool_call_id": about.get("tool_call_id") or name or None, "name": name}
