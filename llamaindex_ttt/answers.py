"""The core's answers as LlamaIndex's responses, whole or growing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import LogProb, ThinkingBlock, ToolCallBlock
from llama_index.core.llms import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
    TextBlock,
)
from llama_index.core.llms.llm import ToolSelection

from llamaindex_ttt.unfinished import unfinished_object
from ttt_core.output import ReasoningDelta

if TYPE_CHECKING:
    from ttt_core import Answer
    from ttt_core.integration import Reply
    from ttt_core.output import Piece

_Call = dict[str, Any]


class GrowingAnswer:
    """Takes pieces of an answer; `chat` and `completion` say what there is of it so far.

    The message has one text block in any case, thinking before it and tool calls behind it. Calls
    stand in `additional_kwargs["tool_calls"]` as well: parts of LlamaIndex look only there.
    """

    def __init__(self) -> None:
        self._text = ""
        self._reasoning = ""
        self._calls: list[_Call] = []
        self._delta: str | None = None
        self._thinking_delta = ""
        self._raw: dict[str, Any] | None = None
        self._logprobs: list[list[LogProb]] | None = None

    def add(self, piece: Piece) -> None:
        """Add what is new."""
        self._delta, self._thinking_delta = "", ""
        if isinstance(piece, str):
            self._text += piece
            self._delta = piece
        elif isinstance(piece, ReasoningDelta):
            self._reasoning += piece.text
            self._thinking_delta = piece.text
        elif piece.id:
            self._calls.append(_call(piece.id, piece.name or "", piece.arguments))
        else:
            self._calls[piece.index]["function"]["arguments"] += piece.arguments

    def finish(self, reply: Reply, model: str) -> None:
        """Add what there is to tell in the end; calls that cannot be made are left out."""
        answer = reply.answer
        self._delta, self._thinking_delta = "", ""
        self._text, self._reasoning = answer.text, answer.reasoning
        self._calls = [
            _call(call.id, call.name, json.dumps(call.arguments, ensure_ascii=False))
            for call in answer.tool_calls
        ]
        self._raw = figures(reply, model)
        if answer.logprobs is not None:
            self._logprobs = [_logprobs(each) for each in answer.logprobs]

    def whole(self) -> None:
        """Tell no delta: the answer was not streamed."""
        self._delta = None

    def chat(self) -> ChatResponse:
        """For the chat methods."""
        blocks: list[Any] = [TextBlock(text=self._text)]
        if self._reasoning:
            blocks.insert(0, ThinkingBlock(content=self._reasoning))
        blocks += [
            ToolCallBlock(
                tool_call_id=call["id"],
                tool_name=call["function"]["name"],
                tool_kwargs=_arguments(call["function"]["arguments"]),
            )
            for call in self._calls
        ]
        calls = [{**call, "function": dict(call["function"])} for call in self._calls]
        return ChatResponse(
            message=ChatMessage(
                role=MessageRole.ASSISTANT,
                blocks=blocks,
                additional_kwargs={"tool_calls": calls} if calls else {},
            ),
            delta=self._delta,
            raw=self._raw,
            logprobs=self._logprobs,
            additional_kwargs=self._news(),
        )

    def completion(self) -> CompletionResponse:
        """For the completion methods."""
        return CompletionResponse(
            text=self._text,
            delta=self._delta,
            raw=self._raw,
            logprobs=self._logprobs,
            additional_kwargs=self._news(),
        )

    def _news(self) -> dict[str, Any]:
        return {"thinking_delta": self._thinking_delta} if self._thinking_delta else {}


def tool_selections(message: ChatMessage) -> list[ToolSelection]:
    """Return the calls of a message, of one that is still growing, too."""
    return [
        ToolSelection(
            tool_id=block.tool_call_id or "",
            tool_name=block.tool_name,
            tool_kwargs=_arguments(block.tool_kwargs),
        )
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    ]


def figures(reply: Reply, model: str) -> dict[str, Any]:
    """Everything there is to tell about a finished reply: plain JSON, under the usual names."""
    answer = reply.answer
    usage = answer.usage
    told: dict[str, Any] = {
        "model": model,
        "finish_reason": answer.finish_reason,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        },
        "ttt": reply.details(),
    }
    if usage.reasoning_tokens:
        details = {"reasoning_tokens": usage.reasoning_tokens}
        told["usage"]["completion_tokens_details"] = details
    if answer.invalid_tool_calls:
        told["invalid_tool_calls"] = _invalid(answer)
    return told


def _invalid(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "name": call.name, "arguments": call.arguments, "error": call.error}
        for call in answer.invalid_tool_calls
    ]


def _call(identifier: str, name: str, arguments: str) -> _Call:
    return {
        "id": identifier,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _arguments(given: Mapping[str, Any] | str) -> dict[str, Any]:
    """Read a call's arguments, or as much of them as there is yet."""
    return unfinished_object(given) if isinstance(given, str) else dict(given)


def _logprobs(each: Any) -> list[LogProb]:
    """Give a token's best alternatives, if they were asked for, or it alone."""
    pairs: Sequence[tuple[str, float]] = each.top or [(each.text, each.logprob)]
    return [
        LogProb(token=text, logprob=value, bytes=list(text.encode("utf-8", "replace")))
        for text, value in pairs
    ]
