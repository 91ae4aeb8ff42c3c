"""Progress of loading, reading and training, as LangChain's custom events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackManager,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.utils.uuid import uuid7
from typing_extensions import Self

from ttt_core.progress import Progress, ProgressCallback, ignore_progress

R = TypeVar("R", bound=BaseRunManager)

EVENT = "ttt_progress"
"""Name of the events; their data are the fields of `ttt_core.Progress` that are known."""


def progress_events(run: CallbackManagerForLLMRun | None) -> ProgressCallback:
    """Return a progress callback that sends events to a run's handlers."""
    if run is None or not run.handlers:
        return ignore_progress
    manager = CallbackManager(
        handlers=run.handlers, inheritable_handlers=run.inheritable_handlers,
        parent_run_id=run.parent_run_id, tags=run.tags, metadata=run.metadata,
    )  # fmt: skip

    def send(progress: Progress) -> None:
        manager.on_custom_event(EVENT, event_data(progress), run_id=run.run_id)

    return send


class AsyncProgressEvents:
    """The same beside an event loop: handlers are tasks, and leaving the block waits for them."""

    def __init__(self, run: AsyncCallbackManagerForLLMRun | None) -> None:
        self._run = run
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def callback(self) -> ProgressCallback:
        """To be called in the event loop."""
        has_handlers = self._run is not None and bool(self._run.handlers)
        return self._send if has_handlers else ignore_progress

    async def __aenter__(self) -> Self:
        """Return the object itself."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Wait until all handlers have been told."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _send(self, progress: Progress) -> None:
        run = self._run
        assert run is not None
        manager = AsyncCallbackManager(
            handlers=run.handlers, inheritable_handlers=run.inheritable_handlers,
            parent_run_id=run.parent_run_id, tags=run.tags, metadata=run.metadata,
        )  # fmt: skip
        sent = manager.on_custom_event(EVENT, event_data(progress), run_id=run.run_id)
        self._tasks.append(asyncio.ensure_future(sent))


def event_data(progress: Progress) -> dict[str, Any]:
    """The fields of a report that are known, as plain JSON."""
    return {name: value for name, value in vars(progress).items() if value is not None}


class TellsRun(BaseChatModel):
    """A chat model whose `_stream` and `_astream` can ask for which run they work.

    LangChain gives them no run manager, neither from `stream` nor where `invoke` streams for the
    sake of somebody who listens (langchain_core 1.7 and 1.8, language_models/chat_models.py).
    """

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Answer in chunks; handlers are told of progress before the first one."""
        own = _with_run_id(config)
        chunks = super().stream(input, own, stop=stop, **kwargs)
        with closing(chunks):  # type: ignore[type-var]  # It is a generator.
            with _running(_run_of(self, own, CallbackManagerForLLMRun)):
                first = next(chunks)
            yield first
            yield from chunks

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Answer in chunks beside the event loop; see `stream`."""
        own = _with_run_id(config)
        chunks = super().astream(input, own, stop=stop, **kwargs)
        async with aclosing(chunks):  # type: ignore[type-var]  # It is a generator.
            with _running(_run_of(self, own, AsyncCallbackManagerForLLMRun)):
                first = await anext(chunks)
            yield first
            async for chunk in chunks:
                yield chunk

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with _running(run_manager):
            return super()._generate_with_cache(messages, stop, run_manager, **kwargs)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with _running(run_manager):
            return await super()._agenerate_with_cache(messages, stop, run_manager, **kwargs)


_current: ContextVar[Any] = ContextVar("ttt_current_run", default=None)


def current_run() -> Any:
    """Return the run manager of the work in progress; None: it has none."""
    return _current.get()


@contextmanager
def _running(run: BaseRunManager | None) -> Iterator[None]:
    token = _current.set(run)
    try:
        yield
    finally:
        _current.reset(token)


def _with_run_id(config: RunnableConfig | None) -> RunnableConfig:
    """Choose the id of a run that is about to begin, so that its events can carry it."""
    own = ensure_config(config)
    own["run_id"] = own.get("run_id") or uuid7()
    return own


def _run_of(llm: BaseChatModel, config: RunnableConfig, kind: type[R]) -> R:
    """Make the run manager that LangChain will make of `config`, which has a `run_id`."""
    manager = CallbackManager.configure(
        config.get("callbacks"), llm.callbacks, llm.verbose, config.get("tags"), llm.tags,
        config.get("metadata"), llm.metadata,
    )  # fmt: skip
    run_id = config["run_id"]
    assert run_id is not None
    return make_run(kind, manager, run_id, manager.parent_run_id)


def make_run(
    kind: type[R], manager: BaseCallbackManager, run_id: UUID, parent_run_id: UUID | None = None
) -> R:
    """Make a run manager with the handlers of a callback manager."""
    return kind(
        run_id=run_id,
        handlers=manager.handlers,
        inheritable_handlers=manager.inheritable_handlers,
        parent_run_id=parent_run_id,
        tags=manager.tags,
        metadata=manager.metadata,
    )
