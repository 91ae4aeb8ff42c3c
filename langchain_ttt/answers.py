"""The core's answers as LangChain's messages, whole or in chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk

from ttt_core.output import ReasoningDelta

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ttt_core import Answer
    from ttt_core.integration import Reply
    from ttt_core.output import Piece


FIRST_CALL = 1000
"""Index of the first call of a stream: with `output_version="v1"` LangChain counts blocks of text
and reasoning from 0, and would merge calls into them."""


def as_chunk(piece: Piece) -> AIMessageChunk:
    """Translate a step of an answer."""
    if isinstance(piece, str):
        return AIMessageChunk(content=piece)
    if isinstance(piece, ReasoningDelta):
        return AIMessageChunk(content="", additional_kwargs={"reasoning_content": piece.text})
    index = FIRST_CALL + piece.index
    part = tool_call_chunk(name=piece.name, args=piece.arguments, id=piece.id, index=index)
    return AIMessageChunk(content="", tool_call_chunks=[part])


def last_chunk(reply: Reply, model_name: str, calls: Mapping[str | None, int]) -> AIMessageChunk:
    """The end of a finished reply: no text, and everything there is to tell about it.

    Args:
        reply: Said all it had to say.
        model_name: As the user knows it.
        calls: By id, the index under which each call was streamed.
    """
    answer = reply.answer
    return AIMessageChunk(
        content="",
        chunk_position="last",
        tool_call_chunks=[
            tool_call_chunk(name=None, args=_spoiler(call.arguments), id=None, index=index)
            for call in answer.invalid_tool_calls
            if (index := calls.get(call.id)) is not None
        ],
        response_metadata=_response_metadata(reply, answer, model_name),
        usage_metadata=_usage(reply, answer),
    )


def as_message(reply: Reply, answer: Answer, model_name: str) -> AIMessage:
    """Translate a finished answer."""
    thought = {"reasoning_content": answer.reasoning} if answer.reasoning else {}
    return AIMessage(
        content=answer.text,
        additional_kwargs=thought,
        tool_calls=[
            tool_call(name=call.name, args=call.arguments, id=call.id) for call in answer.tool_calls
        ],
        invalid_tool_calls=[
            invalid_tool_call(name=call.name, args=call.arguments, id=call.id, error=call.error)
            for call in answer.invalid_tool_calls
        ],
        response_metadata=_response_metadata(reply, answer, model_name),
        usage_metadata=_usage(reply, answer),
    )


def _spoiler(arguments: str) -> str:
    """Return an end with which LangChain takes streamed arguments for what they are: invalid.

    It mends arguments that were cut off, and would make a call of half of what was meant. A
    bracket that closes nothing is beyond its mending (`parse_partial_json`).
    """
    inside, escaped, open_brackets = False, False, ""
    for char in arguments:
        if escaped:
            escaped = False
        elif inside:
            escaped, inside = char == "\\", char != '"'
        elif char == '"':
            inside = True
        elif char in "{[":
            open_brackets += char
        elif char in "}]":
            open_brackets = open_brackets[:-1]
    end = ("\\" if escaped else "") + ('"' if inside else "")
    return end + ("]" if open_brackets.endswith("{") else "}")


def _usage(reply: Reply, answer: Answer) -> UsageMetadata:
    usage = answer.usage
    cached = InputTokenDetails(cache_read=usage.cached_tokens)
    if reply.read_tokens and not usage.cached_tokens:
        cached["cache_creation"] = reply.read_tokens
    details = UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=cached,
    )
    if usage.reasoning_tokens:
        details["output_token_details"] = OutputTokenDetails(reasoning=usage.reasoning_tokens)
    return details


def _response_metadata(reply: Reply, answer: Answer, model_name: str) -> dict[str, Any]:
    about = {
        "model_name": model_name,
        "model_provider": "ttt",
        "finish_reason": answer.finish_reason,
        "ttt": reply.details(answer),
    }
    if answer.logprobs is not None:
        about["logprobs"] = {"content": [_logprob(each) for each in answer.logprobs]}
    return about


def _logprob(each: Any) -> dict[str, Any]:
    """Write a token's log-probability in OpenAI's shape, which LangChain's users know."""
    return {
        "token": each.text,
        "logprob": each.logprob,
        "bytes": list(each.text.encode("utf-8", "replace")),
        "top_logprobs": [{"token": text, "logprob": value} for text, value in each.top],
    }
