"""One answer about documents, in a thread or beside an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from ttt_core.chat import Message, split_system
from ttt_core.document import Document
from ttt_core.progress import Progress, ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from ttt_core import AdaptedDocument, Answer, AnswerStream, TTTEngine

T = TypeVar("T")

_END: Any = object()


class Reply:
    """One answer in the making: `deltas()` makes it; the rest tells, afterwards, what was done."""

    def __init__(
        self,
        engine: TTTEngine,
        messages: Sequence[Message],
        *,
        documents: Sequence[Document] = (),
        options: Mapping[str, Any],
        on_progress: ProgressCallback = ignore_progress,
    ) -> None:
        self._engine = engine
        self._messages = messages
        self._documents = documents
        self._options = options
        self._on_progress = on_progress
        self._adapted: AdaptedDocument | None = None
        self._stream: AnswerStream | None = None

    def deltas(self) -> Generator[str, None, None]:
        """Read the documents, or fetch them, then answer in pieces; closing stops the work."""
        if self._documents:
            system, _ = split_system(self._messages)
            self._adapted = self._engine.adapt(
                self._documents, system=system, on_progress=self._on_progress
            )
        self._stream = self._engine.stream(self._adapted, self._messages, **self._options)
        yield from self._stream

    @property
    def answer(self) -> Answer:
        """The answer so far."""
        assert self._stream is not None
        return self._stream.answer

    def details(self) -> dict[str, Any]:
        """What was done and at what cost: plain JSON, and nothing of the texts."""
        answer, adapted = self.answer, self._adapted
        report = adapted.report if adapted else None
        return {
            "decision": report.decision if report else "no_document",
            "reasons": list(report.reasons) if report else [],
            "source": adapted.source if adapted else None,
            "document_id": adapted.document_hash if adapted else None,
            "namespace": self._engine.namespace.name,
            "dropped_tokens": adapted.dropped_tokens if adapted else 0,
            "cached_tokens": answer.usage.cached_tokens,
            "computed_tokens": answer.usage.computed_tokens,
            "attention": answer.timing.attention,
            "seconds": {
                **(adapted.seconds if adapted else {}),
                "first_token": answer.timing.first_token,
                "answer": answer.timing.total,
            },
        }


async def in_thread(
    start: Callable[[ProgressCallback], Generator[T, None, None]],
) -> AsyncGenerator[T, None]:
    """Iterate over blocking work from an event loop that goes on turning.

    Every item is computed when it is asked for, on one thread of its own. Cancelling the task or
    closing this generator stops the work after the token, chunk or training step in progress.

    Args:
        start: Makes the iterator; receives the progress callback through which long steps
            between two items learn that nobody waits any more.
    """
    abandoned = threading.Event()
    items: Generator[T, None, None] | None = None

    def check(progress: Progress) -> None:
        if abandoned.is_set():
            raise CancelledError

    loop = asyncio.get_running_loop()
    worker = ThreadPoolExecutor(1, thread_name_prefix="ttt")
    try:
        items = await loop.run_in_executor(worker, start, check)
        while (item := await loop.run_in_executor(worker, next, items, _END)) is not _END:
            yield item
    finally:
        abandoned.set()
        if items is not None:
            worker.submit(items.close)  # Behind the step in progress: a running generator refuses.
        worker.shutdown(wait=False)
