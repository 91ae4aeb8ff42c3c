"""Answers about documents, in a thread or beside an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, closing
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ttt_core.chat import Message, split_system
from ttt_core.config import DEFAULT_ANSWER_TOKENS
from ttt_core.errors import (
    AnswerTimeoutError,
    DocumentTooLongError,
    OutOfMemoryError,
    PromptTooLongError,
    StoreError,
)
from ttt_core.integration.history import without_oldest
from ttt_core.integration.resolver import NOTHING, Resolved
from ttt_core.progress import Progress, ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from ttt_core import AdaptedDocument, Answer, AnswerStream, TTTEngine
    from ttt_core.output import Piece

T = TypeVar("T")

_END: Any = object()

_MAY_PASS = (OutOfMemoryError, StoreError)
"""Errors that may be gone the next time: somebody else's memory, a disk that was away."""


class Reply:
    """Answers in the making: `pieces()` makes them; the rest tells, afterwards, what was done.

    Args:
        engine: Answers.
        messages: The conversation, all texts.
        resolved: What of it, or beside it, is to be read as a document.
        options: How to decode, in the engine's names.
        n: How many answers to give.
        max_retries: How often to begin again when memory or store fail, before anything was said.
        trim_history: Leave out the oldest turns of a conversation that does not fit the window.
        on_progress: Told of loading, reading and training.
    """

    def __init__(
        self,
        engine: TTTEngine,
        messages: Sequence[Message],
        *,
        resolved: Resolved = NOTHING,
        options: Mapping[str, Any],
        n: int = 1,
        max_retries: int = 0,
        trim_history: bool = False,
        on_progress: ProgressCallback = ignore_progress,
    ) -> None:
        self._engine = engine
        self._messages = messages
        self._resolved = resolved
        self._options = dict(options)
        self._n = n
        self._max_retries = max_retries
        self._trim_history = trim_history
        self._dropped_messages = 0
        self._on_progress = on_progress
        self._adapted: AdaptedDocument | None = None
        self._streams: list[AnswerStream] = []
        self._deadline = _deadline(self._options.get("timeout"))

    def pieces(self) -> Generator[tuple[int, Piece], None, None]:
        """Read the documents, or fetch them, then answer; closing stops the work.

        Yields:
            Which answer, counted from 0, and what is new in it.
        """
        for attempt in range(self._max_retries + 1):
            said = False
            try:
                for piece in self._attempt():
                    said = True
                    yield piece
                return
            except _MAY_PASS:
                if said or attempt == self._max_retries:
                    raise

    def deltas(self) -> Generator[str, None, None]:
        """Answer with text alone; see `pieces`."""
        with closing(self.pieces()) as pieces:
            for _, piece in pieces:
                if isinstance(piece, str):
                    yield piece

    @property
    def answer(self) -> Answer:
        """The answer so far."""
        return self.answers[0]

    @property
    def answers(self) -> list[Answer]:
        """All answers so far."""
        assert self._streams
        first, *others = [stream.answer for stream in self._streams]
        return [self._with_reading(first), *others]

    @property
    def adapted(self) -> AdaptedDocument | None:
        """What was read, once it was; None: nothing."""
        return self._adapted

    @property
    def read_tokens(self) -> int:
        """Document tokens that were computed for these answers."""
        adapted = self._adapted
        return adapted.n_tokens if adapted and adapted.prefix_source == "computed" else 0

    def details(self, answer: Answer | None = None) -> dict[str, Any]:
        """What was done and at what cost: plain JSON, and nothing of the texts."""
        answer, adapted = answer or self.answer, self._adapted
        report = adapted.report if adapted else None
        probe = report.probe if report else None
        return {
            "decision": report.decision if report else ("read" if adapted else "no_document"),
            "reasons": [*self._resolved.reasons, *(report.reasons if report else ())],
            "documents_from": self._resolved.source,
            "document_id": adapted.id if adapted else None,
            "document_tokens": adapted.n_tokens if adapted else 0,
            "source": adapted.source if adapted else None,
            "prefix_source": adapted.prefix_source if adapted else None,
            "namespace": self._engine.namespace.name,
            "dropped_tokens": adapted.dropped_tokens if adapted else 0,
            "dropped_messages": self._dropped_messages,
            "cached_tokens": answer.usage.cached_tokens,
            "computed_tokens": answer.usage.computed_tokens,
            "attention": answer.timing.attention,
            "probe": probe.model_dump(include=_PROBE) if probe else None,
            "seconds": {
                **(adapted.seconds if adapted else {}),
                "first_token": answer.timing.first_token,
                "answer": answer.timing.total,
            },
        }

    def _with_reading(self, answer: Answer) -> Answer:
        """Count what was read: for the engine that was another call, for the user the same one."""
        if not self.read_tokens:
            return answer
        usage = answer.usage
        computed = usage.computed_tokens + usage.cached_tokens
        counted = replace(usage, cached_tokens=0, computed_tokens=computed)
        return replace(answer, usage=counted)

    def _attempt(self) -> Generator[tuple[int, Piece], None, None]:
        with ExitStack() as stack:
            self._streams = self._begun(stack)
            yield from _in_turns([stream.pieces() for stream in self._streams])

    def _begun(self, stack: ExitStack) -> list[AnswerStream]:
        """Read and ask; what does not fit is done in another way, if there is one."""
        try:
            self._adapted = self._read()
            return [stack.enter_context(closing(self._begin(n))) for n in range(self._n)]
        except (DocumentTooLongError, PromptTooLongError):
            if self._resolved.fallback is None:
                raise
        self._resolved = self._resolved.fallback
        self._messages = self._resolved.messages
        return self._begun(stack)

    def _begin(self, number: int) -> AnswerStream:
        """Ask, if need be without the oldest turns."""
        ask = partial(self._engine.stream, self._adapted)
        options, messages = self._options_of(number), self._messages
        # What is left is not to be room for a word or two.
        room = {"max_new_tokens": min(DEFAULT_ANSWER_TOKENS, self._engine.window // 2), **options}
        while self._trim_history and self._resolved.fallback is None:
            try:
                return ask(messages, **room)
            except PromptTooLongError as error:
                left = self._without_oldest(messages, error)
                if left is None:
                    break
                messages = left
                self._dropped_messages = len(self._messages) - len(messages)
        return ask(messages, **options)

    def _without_oldest(
        self, messages: Sequence[Message], error: PromptTooLongError
    ) -> list[Message] | None:
        return without_oldest(
            messages,
            opening=self._resolved.opening,
            excess=error.prefix + error.suffix + error.max_new_tokens - error.window,
            count_tokens=self._engine.count_tokens,
        )

    def _read(self) -> AdaptedDocument | None:
        if not self._resolved.documents:
            return None
        system, _ = split_system(self._messages)
        read = self._engine.adapt if self._resolved.adapt else self._engine.read
        return read(self._resolved.documents, system=system, on_progress=self._check)

    def _options_of(self, number: int) -> dict[str, Any]:
        own = dict(self._options)
        if number and own.get("seed") is not None:
            own["seed"] += number  # One seed for all would give the same answer n times.
        if self._deadline is not None:
            own["timeout"] = max(self._deadline - time.monotonic(), 1e-3)
        return own

    def _check(self, progress: Progress) -> None:
        self._on_progress(progress)
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise AnswerTimeoutError(
                f"no answer after {self._options['timeout']:g} s: the document was still being "
                f"read or adapted to; adapt it before, or allow more time"
            )


_PROBE = {"clozes", "before", "after", "right_before", "right_after", "gain", "p_value"}


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _in_turns(
    streams: Sequence[Iterator[Piece]],
) -> Generator[tuple[int, Piece], None, None]:
    """Take a piece of each in turn, so that answers that are decoded together end together."""
    running = list(enumerate(streams))
    while running:
        for number, stream in tuple(running):
            piece = next(stream, _END)
            if piece is _END:
                running.remove((number, stream))
            else:
                yield number, piece


async def in_thread(
    start: Callable[[ProgressCallback], Generator[T, None, None]],
    on_progress: ProgressCallback = ignore_progress,
) -> AsyncGenerator[T, None]:
    """Iterate over blocking work from an event loop that goes on turning.

    Every item is computed when it is asked for, on one thread of its own. Cancelling the task or
    closing this generator stops the work after the token, chunk or training step in progress.

    Args:
        start: Makes the iterator; receives the progress callback through which long steps
            between two items learn that nobody waits any more.
        on_progress: Called in the event loop; the work does not wait for it.
    """
    abandoned = threading.Event()
    items: Generator[T, None, None] | None = None

    def check(progress: Progress) -> None:
        if abandoned.is_set():
            raise CancelledError
        if on_progress is not ignore_progress:
            loop.call_soon_threadsafe(on_progress, progress)

    loop = asyncio.get_running_loop()
    context = copy_context()  # Who listens to the work finds there whose it is.
    worker = ThreadPoolExecutor(1, thread_name_prefix="ttt")
    try:
        items = await loop.run_in_executor(worker, lambda: context.run(start, check))
        step = partial(context.run, next, items, _END)
        while (item := await loop.run_in_executor(worker, step)) is not _END:
            yield item
    finally:
        abandoned.set()
        if items is not None:
            # Behind the step in progress: a running generator refuses.
            worker.submit(context.run, items.close)
        worker.shutdown(wait=False)


async def run_in_thread(
    work: Callable[[ProgressCallback], T], on_progress: ProgressCallback = ignore_progress
) -> T:
    """Await one piece of blocking work; see `in_thread`."""

    def start(check: ProgressCallback) -> Generator[T, None, None]:
        yield work(check)

    async for result in in_thread(start, on_progress):
        return result
    raise AssertionError("work yields one result")
