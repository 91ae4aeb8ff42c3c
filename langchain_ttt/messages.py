"""LangChain's messages and documents to the core's, and the core's answers to LangChain's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.documents import Document as LangChainDocument
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
)
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata

from ttt_core import ConfigError, Document, integration

if TYPE_CHECKING:
    from ttt_core.chat import Message
    from ttt_core.integration import Reply

DocumentLike: TypeAlias = str | LangChainDocument | Document

_ROLES: dict[type[BaseMessage], str] = {
    SystemMessage: "system",
    HumanMessage: "user",
    AIMessage: "assistant",
}


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
    """Translate a conversation.

    Raises:
        ConfigError: A message that is neither a system, a human nor an AI message, or not text.
    """
    return [{"role": _role(message), "content": _text(message)} for message in messages]


def _role(message: BaseMessage) -> str:
    if not getattr(message, "tool_calls", None):
        for kind, role in _ROLES.items():
            if isinstance(message, kind):
                return role
    raise ConfigError(
        f"ChatTTT takes system, human and AI messages without tool calls, found a "
        f"{type(message).__name__}"
    )


def _text(message: BaseMessage) -> str:
    blocks = [message.content] if isinstance(message.content, str) else message.content
    for block in blocks:
        kind = "text" if isinstance(block, str) else block.get("type")
        if kind != "text":
            raise ConfigError(f"ChatTTT takes text content, found a block of type {kind!r}")
    return str(message.text)


def last_chunk(reply: Reply, model_name: str) -> AIMessageChunk:
    """The end of a finished reply: no text, and everything there is to tell about it."""
    answer = reply.answer
    return AIMessageChunk(
        content="",
        chunk_position="last",
        response_metadata=_response_metadata(reply, model_name),
        usage_metadata=UsageMetadata(
            input_tokens=answer.usage.prompt_tokens,
            output_tokens=answer.usage.completion_tokens,
            total_tokens=answer.usage.total_tokens,
            input_token_details=InputTokenDetails(cache_read=answer.usage.cached_tokens),
        ),
    )


def _response_metadata(reply: Reply, model_name: str) -> dict[str, Any]:
    return {
        "model_name": model_name,
        "model_provider": "ttt",
        "finish_reason": reply.answer.finish_reason,
        "ttt": reply.details(),
    }
