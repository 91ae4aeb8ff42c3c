"""LlamaIndex's messages and documents to the core's, and the core's answers to LlamaIndex's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from llama_index.core.llms import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
    TextBlock,
)
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from ttt_core import ConfigError, Document, integration

if TYPE_CHECKING:
    from ttt_core.chat import Message
    from ttt_core.integration import Reply

DocumentLike: TypeAlias = str | BaseNode | NodeWithScore | Document

_ROLES = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
}


def to_documents(documents: DocumentLike | Sequence[DocumentLike]) -> tuple[Document, ...]:
    """Translate documents and nodes. Their metadata stays out: it holds paths and dates.

    Raises:
        DocumentError: A document is empty.
    """
    return integration.to_documents(
        documents, text_of=_document_text, expected="str, Document or node"
    )


def _document_text(document: object) -> str | None:
    if isinstance(document, BaseNode | NodeWithScore):
        return document.get_content(metadata_mode=MetadataMode.NONE)
    return None


def to_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """Translate a conversation.

    Raises:
        ConfigError: A tool's message, or content that is not text.
    """
    return [{"role": _role(message), "content": _text(message)} for message in messages]


def _role(message: ChatMessage) -> str:
    if message.role not in _ROLES or message.additional_kwargs.get("tool_calls"):
        raise ConfigError(
            f"TTTLLM takes system, user and assistant messages without tool calls, found one "
            f"with role {message.role.value!r}"
        )
    return _ROLES[message.role]


def _text(message: ChatMessage) -> str:
    for block in message.blocks:
        if not isinstance(block, TextBlock):
            raise ConfigError(f"TTTLLM takes text content, found a {type(block).__name__}")
    return message.content or ""


class Piece(NamedTuple):
    """A step of an answer: the text so far, what is new in it, and at the end its figures."""

    text: str
    delta: str | None
    raw: dict[str, Any] | None = None

    def as_chat(self) -> ChatResponse:
        """For the chat methods."""
        message = ChatMessage(role=MessageRole.ASSISTANT, content=self.text)
        return ChatResponse(message=message, delta=self.delta, raw=self.raw)

    def as_completion(self) -> CompletionResponse:
        """For the completion methods."""
        return CompletionResponse(text=self.text, delta=self.delta, raw=self.raw)


def figures(reply: Reply, model: str) -> dict[str, Any]:
    """Everything there is to tell about a finished reply: plain JSON, under the usual names."""
    usage = reply.answer.usage
    return {
        "model": model,
        "finish_reason": reply.answer.finish_reason,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        },
        "ttt": reply.details(),
    }
