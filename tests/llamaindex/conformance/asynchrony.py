"""Async that is one, streams that can be left, and errors that arrive."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.llamaindex.conformance.hooks import (
    METHODS,
    QUESTION,
    STREAMS,
    Capable,
    Hooks,
    Method,
    Watch,
    text_of,
    turn,
)
from tests.llamaindex.scripts import LONG, chatter

BROKEN_AT = 10
PATIENCE = 10.0
"""Seconds after which a call that never returns is given up."""


class Asynchrony(Hooks):
    """Event loops, cancellation, closed streams, failures."""

    @pytest.mark.parametrize("streamed", [False, True], ids=["achat", "astream_chat"])
    def test_the_event_loop_goes_on_turning(self, capable: Capable, streamed: bool) -> None:
        llm, _ = capable(chatter)
        llm.chat(turn())  # Whatever is done once is done.
        gap, total = asyncio.run(_longest_gap(_ask(llm, streamed=streamed)))
        assert gap < total / 2

    def test_concurrent_chats_answer_as_they_do_alone(self, llm: Any) -> None:
        questions = ["Where is the owl?", "Who is there?", "When was that, and why?"]

        async def all_at_once() -> list[Any]:
            return await asyncio.gather(*(llm.achat(turn(text)) for text in questions))

        alone = [text_of(llm.chat(turn(text))) for text in questions]
        assert [text_of(answer) for answer in asyncio.run(all_at_once())] == alone
        assert len(set(alone)) > 1

    def test_threads_answer_as_one_does(self, llm: Any) -> None:
        questions = ["Where is the owl?", "Who is there?", "When was that, and why?"]
        found: dict[str, str] = {}

        def ask(text: str) -> None:
            found[text] = text_of(llm.chat(turn(text)))

        threads = [threading.Thread(target=ask, args=[text]) for text in questions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {text: text_of(llm.chat(turn(text))) for text in questions}

    @pytest.mark.parametrize("streamed", [False, True], ids=["achat", "astream_chat"])
    def test_cancelling_a_task_stops_the_model(self, capable: Capable, streamed: bool) -> None:
        llm, model = capable(chatter)
        watch = Watch(model)

        async def cancel() -> None:
            task = asyncio.ensure_future(_ask(llm, streamed=streamed))
            while len(watch.passes) < 3 and not task.done():
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancel())
        assert _settled(watch) < len(LONG) / 2

    @pytest.mark.parametrize("streamed", ["chat", "complete"])
    def test_closing_a_stream_stops_the_model(
        self, make_llm: Callable[..., Any], model: Any, tokenizer: Any, streamed: str
    ) -> None:
        llm, watch = make_llm(model, tokenizer, max_tokens=200), Watch(model)
        whole = llm.stream_chat(turn()) if streamed == "chat" else llm.stream_complete(QUESTION)
        next(whole)
        whole.close()
        assert _settled(watch) < 100

    def test_leaving_an_async_stream_stops_the_model(self, capable: Capable) -> None:
        llm, model = capable(chatter)
        watch = Watch(model)

        async def leave() -> None:
            stream = await llm.astream_chat(turn())
            await stream.__anext__()
            await stream.aclose()

        asyncio.run(leave())
        assert _settled(watch) < len(LONG) / 2

    @pytest.mark.parametrize("method", METHODS)
    def test_an_error_reaches_the_caller(
        self, make_llm: Callable[..., Any], model: Any, tokenizer: Any, method: Method
    ) -> None:
        llm = make_llm(model, tokenizer, max_tokens=50)
        Watch(model, fails_at=BROKEN_AT)
        caught: list[BaseException] = []

        def ask() -> None:
            try:
                method(llm)
            except Exception as error:
                caught.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the caller waits for ever"
        assert caught
        assert "the device broke" in repr(caught[0]) + repr(caught[0].__cause__)

    @pytest.mark.parametrize("method", STREAMS)
    def test_there_is_life_after_an_error(
        self, make_llm: Callable[..., Any], model: Any, tokenizer: Any, method: Method
    ) -> None:
        llm, watch = make_llm(model, tokenizer, max_tokens=20), Watch(model)
        expected = text_of(method(llm)[-1])
        watch.fails_at = len(watch.passes) + 1
        done = threading.Event()

        def fail() -> None:
            with pytest.raises(Exception, match=r"\w"):
                method(llm)
            done.set()

        threading.Thread(target=fail, daemon=True).start()
        assert done.wait(PATIENCE), "the caller waits for ever"
        assert text_of(method(llm)[-1]) == expected


async def _ask(llm: Any, *, streamed: bool) -> None:
    if not streamed:
        await llm.achat(turn())
        return
    async for _ in await llm.astream_chat(turn()):
        pass


async def _longest_gap(work: Any) -> tuple[float, float]:
    """Return the longest time that the loop stood still for, and the whole time, in seconds."""
    started = last = time.perf_counter()
    gap, task = 0.0, asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        gap, last = max(gap, now - last), now
    await task
    return gap, last - started


def _settled(watch: Watch) -> int:
    """Wait until no pass has been made for a while, and count them."""
    before = -1
    while len(watch.passes) != before:
        before = len(watch.passes)
        time.sleep(0.3)
    return before
