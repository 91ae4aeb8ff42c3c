"""LangChain's messages and documents to the core's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.documents import Document as LangChainDocument
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from ttt_core import ConfigError, Document, integration
from ttt_core.integration.prompt import Attachment, Marked, Part, Text

if TYPE_CHECKING:
    from ttt_core.chat import Message

DocumentLike: TypeAlias = str | LangChainDocument | Document

_ROLES: dict[type[BaseMessage], str] = {
    SystemMessage: "system",
    HumanMessage: "user",
    AIMessage: "assistant",
    ToolMessage: "tool",
    FunctionMessage: "tool",
}
_OTHER_NAMES = {"developer": "system", "human": "user", "ai": "assistant"}
_ALREADY_SAID = {"reasoning", "thinking", "redacted_thinking", "tool_call", "tool_use",
                 "tool_call_chunk", "invalid_tool_call"}  # fmt: skip
"""Blocks of earlier answers: calls stand in `tool_calls`, and templates drop old thoughts."""


def to_documents(documents: DocumentLike | Sequence[DocumentLike]) -> tuple[Document, ...]:
    """Translate documents. Their metadata stays out: paths and dates are not to be learned.

    Raises:
        DocumentError: A document is empty.
    """
    return integration.to_documents(
        documents, text_of=_document_text, expected="str or langchain_core Document"
    )


def _document_text(document: object) -> str | None:
    return document.page_content if isinstance(document, LangChainDocument) else None


def to_messages(messages: Sequence[BaseMessage]) -> list[Message]:
    """Translate a conversation; contents become lists of parts.

    Raises:
        ConfigError: Messages of another kind, or content that is no text.
        DocumentError: A document in a message is empty.
    """
    names = {call["id"]: call["name"] for message in messages for call in _calls(message)}
    return [turn for message in messages for turn in _turns(message, names)]


def _turns(message: BaseMessage, names: Mapping[str | None, str]) -> Iterator[Message]:
    role = _role(message)
    if role == "tool":
        call_id = getattr(message, "tool_call_id", None)
        name = message.name or names.get(call_id, "")
        yield {"role": "tool", "content": _plain(message), "tool_call_id": call_id, "name": name}
        return
    for block in _blocks(message):  # Anthropic's shape: results in the user's message.
        if block.get("type") == "tool_result":
            call_id = block.get("tool_use_id")
            content = _plain(HumanMessage(block.get("content") or ""))
            yield {"role": "tool", "content": content, "tool_call_id": call_id,
                   "name": names.get(call_id, "")}  # fmt: skip
    turn: dict[str, Any] = {"role": role, "content": list(_parts(message))}
    calls = _calls(message)
    if calls:
        turn["tool_calls"] = [
            {"id": call["id"], "type": "function",
             "function": {"name": call["name"], "arguments": call["args"]}}
            for call in calls
        ]  # fmt: skip
    if turn["content"] or calls:
        yield turn


def _role(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        role = _OTHER_NAMES.get(message.role, message.role)
        if role in _ROLES.values():
            return role
        raise ConfigError(
            f"ChatTTT takes the roles system, user, assistant and tool, found {message.role!r}"
        )
    for kind, role in _ROLES.items():
        if isinstance(message, kind):
            return role
    raise ConfigError(
        f"ChatTTT takes system, human, AI and tool messages, found a {type(message).__name__}"
    )


def _calls(message: BaseMessage) -> list[Any]:
    if not isinstance(message, AIMessage):
        return []
    return list(message.tool_calls) or [
        {
            "id": block.get("id"),
            "name": block["name"],
            "args": block.get("args", block.get("input")),
        }
        for block in _blocks(message)
        if block.get("type") in ("tool_call", "tool_use")
    ]


def _blocks(message: BaseMessage) -> list[Mapping[str, Any]]:
    content = [message.content] if isinstance(message.content, str) else message.content
    return [{"type": "text", "text": b} if isinstance(b, str) else b for b in content]


def _parts(message: BaseMessage) -> Iterator[Part]:
    for block in _blocks(message):
        kind = block.get("type")
        if kind == "text":
            marked = block.get("cache_control") or (block.get("extras") or {}).get("cache_control")
            if not isinstance(block.get("text", ""), str):
                raise ConfigError("the text of a text block is a string")
            if block.get("text"):
                yield Marked(block["text"]) if marked else Text(block["text"])
        elif kind in ("text-plain", "file", "document"):
            yield Attachment(_attached(block))
        elif kind not in _ALREADY_SAID and kind != "tool_result":
            raise _no_text(kind)


def _plain(message: BaseMessage) -> str:
    """Return the text of a tool's result."""
    texts = []
    for block in _blocks(message):
        if block.get("type") != "text":
            raise _no_text(block.get("type"))
        texts.append(str(block["text"]))
    return "".join(texts)


def _attached(block: Mapping[str, Any]) -> Document:
    """Read a text document out of LangChain's, OpenAI's and Anthropic's shapes of one.

    Raises:
        ConfigError: It is by reference, or no text.
        DocumentError: It is empty, or not to be decoded.
    """
    inner = block.get("source")
    source = inner if isinstance(inner, Mapping) else block
    kind = str(source.get("mime_type") or source.get("media_type") or "text/plain")
    title = block.get("title") or (block.get("extras") or {}).get("title")
    text = source.get("text") if block.get("type") == "text-plain" else None
    encoded = source.get("base64")
    if source.get("type") == "text":
        text = source.get("data")
    elif source.get("type") == "base64":
        encoded = source.get("data")
    if not kind.startswith("text/") or (text is None and encoded is None):
        raise ConfigError(
            f"a document in a message is text or base64 of UTF-8 text (mime_type text/...), "
            f"found {kind!r} "
            + ("by reference" if text is None and encoded is None else "data")
            + "; load it and pass its text"
        )
    if text is not None:
        return Document.of(str(text), title=title)
    try:
        data = base64.b64decode(str(encoded), validate=True)
    except binascii.Error:
        raise ConfigError("a document in a message is not valid base64") from None
    return Document.from_bytes(data, name="a document in a message", title=title)


def _no_text(kind: object) -> ConfigError:
    return ConfigError(f"ChatTTT takes text and text documents, found a block of type {kind!r}")
