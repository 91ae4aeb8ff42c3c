"""Progress of loading, reading and training, as LangChain's custom events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager

from ttt_core.progress import Progress, ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForLLMRun,
        CallbackManagerForLLMRun,
    )

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
    """The same beside an event loop: handlers are tasks; `finished()` waits for them."""

    def __init__(self, run: AsyncCallbackManagerForLLMRun | None) -> None:
        self._run = run
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def callback(self) -> ProgressCallback:
        """To be called in the event loop."""
        has_handlers = self._run is not None and bool(self._run.handlers)
        return self._send if has_handlers else ignore_progress

    async def finished(self) -> None:
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
