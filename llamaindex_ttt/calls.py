"""The eight public methods as LlamaIndex's callbacks see them.

One event a call, no document texts in it, and a stream that ends when it is closed. LlamaIndex's
own decorators show all options of a call, and leave a closed stream to the garbage collector, which
does not come while a handler keeps the exception of closing, as `LlamaDebugHandler` does.

Only these eight are told of: a public method that called another would report every call twice.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing, closing
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import update_wrapper
from typing import Any, TypeVar, cast

from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class _Call:
    """What a call was given, and the stream that it began."""

    options: Mapping[str, Any] = field(repr=False)
    stream: Any = None


_current: ContextVar[_Call] = ContextVar("ttt_llamaindex_call")


def chat_events(method: F) -> F:
    """Tell LlamaIndex's callbacks of a chat method."""
    return _told(method, llm_chat_callback())


def completion_events(method: F) -> F:
    """Tell LlamaIndex's callbacks of a completion method."""
    return _told(method, llm_completion_callback())


def _told(method: F, events: Callable[[Any], Any]) -> F:
    told = _atold if inspect.iscoroutinefunction(method) else _told_in_thread
    return cast("F", told(method, events))


def _told_in_thread(method: Callable[..., Any], events: Callable[[Any], Any]) -> Any:
    def inner(llm: Any, *args: Any, **shown: Any) -> Any:
        call = _current.get()
        call.stream = method(llm, *args, **_own(shown, call))
        return call.stream

    told = events(inner)

    def outer(llm: Any, *args: Any, **options: Any) -> Any:
        call = _Call(options)
        token = _current.set(call)
        try:
            result = told(llm, *args, **llm._without_texts(options))
        finally:
            _current.reset(token)
        return _closing(result, call.stream) if isinstance(result, Generator) else result

    return _named(outer, method)


def _atold(method: Callable[..., Any], events: Callable[[Any], Any]) -> Any:
    async def inner(llm: Any, *args: Any, **shown: Any) -> Any:
        call = _current.get()
        call.stream = await method(llm, *args, **_own(shown, call))
        return call.stream

    told = events(inner)

    async def outer(llm: Any, *args: Any, **options: Any) -> Any:
        call = _Call(options)
        token = _current.set(call)
        try:
            result = await told(llm, *args, **llm._without_texts(options))
        finally:
            _current.reset(token)
        return _aclosing(result, call.stream) if isinstance(result, AsyncGenerator) else result

    return _named(outer, method)


def _named(outer: Callable[..., Any], method: Callable[..., Any]) -> Callable[..., Any]:
    """Pass a method's name on, and not its signature: LlamaIndex says what is missing."""
    update_wrapper(outer, method)
    del outer.__wrapped__  # type: ignore[attr-defined]
    return outer


def _own(shown: Mapping[str, Any], call: _Call) -> dict[str, Any]:
    """The options as they were given; the decorator may have taken some for arguments."""
    return {name: call.options[name] for name in shown}


def _closing(told: Generator[Any, None, None], stream: Any) -> Generator[Any, None, None]:
    with closing(stream), closing(told):
        yield from told


async def _aclosing(told: AsyncGenerator[Any, None], stream: Any) -> AsyncGenerator[Any, None]:
    async with aclosing(stream), aclosing(told):
        async for response in told:
            yield response
