"""The dispatcher is told of adaptations: once each, in order, and nothing of what is read."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import ChatMessage
from pydantic import Field

from llamaindex_ttt import TTTLLM
from llamaindex_ttt.events import (
    AdaptationEndEvent,
    AdaptationEvents,
    AdaptationProgressEvent,
    AdaptationStartEvent,
)
from ttt_core import (
    AdaptationConfig,
    AdaptedDocument,
    DocumentTooLongError,
    PromptTooLongError,
    TTTEngine,
)
from ttt_core.integration.progress_line import ProgressLine
from ttt_core.progress import Progress

OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))
CHAT = [ChatMessage(content="Where?")]
RECIPE = AdaptationConfig(
    steps=2, gate=False, early_stopping=False, held_out=2, clozes_per_step=2, max_drift=1e9
)


class _Seen(BaseEventHandler):
    events: list[Any] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Seen"

    def handle(self, event: Any, **kwargs: Any) -> None:
        if event.class_name().startswith("Adaptation"):
            self.events.append(event)

    @property
    def names(self) -> list[str]:
        return [event.class_name() for event in self.events]


@pytest.fixture
def seen() -> Iterator[_Seen]:
    handler, dispatcher = _Seen(), get_dispatcher()
    dispatcher.add_event_handler(handler)
    yield handler
    dispatcher.event_handlers.remove(handler)


@pytest.fixture
def llm(model: Any, tokenizer: Any, tmp_path: Path) -> Iterator[TTTLLM]:
    with TTTEngine(model, tokenizer, adaptation=RECIPE, store=tmp_path / "store") as engine:
        yield TTTLLM(engine=engine, max_tokens=4)


async def _stream(llm: TTTLLM) -> None:
    async for _ in await llm.astream_chat(CHAT):
        pass


WAYS: dict[str, Callable[[TTTLLM], Any]] = {
    "adapt": lambda llm: llm.adapt(),
    "aadapt": lambda llm: asyncio.run(llm.aadapt()),
    "chat": lambda llm: llm.chat(CHAT),
    "stream_chat": lambda llm: list(llm.stream_chat(CHAT)),
    "achat": lambda llm: asyncio.run(llm.achat(CHAT)),
    "astream_chat": lambda llm: asyncio.run(_stream(llm)),
    "predict": lambda llm: llm.predict(PromptTemplate("Where?")),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_adaptation_starts_goes_on_and_ends(llm: TTTLLM, seen: _Seen, way: str) -> None:
    owls = llm.for_documents(OWLS)
    WAYS[way](owls)
    start, *progress, end = seen.events
    assert isinstance(start, AdaptationStartEvent)
    assert progress
    assert all(isinstance(event, AdaptationProgressEvent) for event in progress)
    assert {"prefill", "train"} <= {event.stage for event in progress}
    assert isinstance(end, AdaptationEndEvent)
    adapted = owls.adapt()
    assert (end.decision, end.source, end.error) == ("adapted", "trained", None)
    assert (end.document_id, end.document_tokens) == (adapted.id, adapted.n_tokens)
    assert set(end.seconds) == {"prefill", "adaptation"}
    assert start.model == end.model == owls.model


def test_what_is_at_hand_is_no_adaptation(llm: TTTLLM, seen: _Seen) -> None:
    owls = llm.for_documents(OWLS)
    owls.adapt()
    seen.events.clear()
    owls.chat(CHAT)
    owls.adapt()
    llm.chat(CHAT)
    assert seen.names == []


@pytest.mark.parametrize("way", WAYS)
def test_an_adaptation_that_fails_ends_with_its_error(
    llm: TTTLLM, seen: _Seen, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("the owl")

    monkeypatch.setattr("ttt_core.learning.adapt_queries", fail)
    with pytest.raises(RuntimeError, match="the owl"):
        WAYS[way](llm.for_documents(OWLS))
    assert seen.names[0] == "AdaptationStartEvent"
    assert seen.names.count("AdaptationEndEvent") == 1
    assert seen.events[-1].error == "RuntimeError"
    assert seen.events[-1].decision is None


def test_what_never_began_does_not_end(llm: TTTLLM, seen: _Seen) -> None:
    with pytest.raises(DocumentTooLongError):
        llm.for_documents("x" * 600).chat(CHAT)
    assert seen.names == []


def test_events_belong_to_the_call(llm: TTTLLM, seen: _Seen) -> None:
    dispatcher = get_dispatcher("tests")

    class Caller:
        @dispatcher.span
        async def call(self) -> None:
            await llm.for_documents(OWLS).achat(CHAT)

    asyncio.run(Caller().call())
    spans = {event.span_id for event in seen.events}
    assert len(spans) == 1
    assert spans != {None}


def test_events_say_nothing_of_the_document(llm: TTTLLM, seen: _Seen) -> None:
    llm.for_documents(OWLS).chat(CHAT)
    assert "owl" not in "".join(event.model_dump_json() for event in seen.events)


def test_the_callers_own_callback_is_told_too(llm: TTTLLM, seen: _Seen) -> None:
    reports: list[Progress] = []
    llm.adapt(OWLS, on_progress=reports.append)
    stages = [event.stage for event in seen.events if isinstance(event, AdaptationProgressEvent)]
    assert [report.stage for report in reports if report.stage != "load"] == stages


# The line on a terminal


class _Adapted:
    """What an adaptation brings, as far as events tell of it."""

    id, n_tokens, report, source = "0" * 16, 7, None, "read"
    seconds: dict[str, float] = {}  # noqa: RUF012


def _shown(stream: io.StringIO) -> list[str]:
    """What stood on the line, one after another."""
    return [line.rstrip() for line in stream.getvalue().split("\r")][1:]


def test_the_line_shows_every_report_and_is_gone_at_the_end(seen: _Seen) -> None:
    stream, reports = io.StringIO(), list[Progress]()
    with AdaptationEvents("m", reports.append, line=ProgressLine(stream)) as events:
        events.progress(Progress("load", 0, 1))
        events.progress(Progress("train", 1, 2))
        assert _shown(stream) == ["loading the model", "training 1/2"]
        events.end(cast("AdaptedDocument", _Adapted()))
        assert _shown(stream)[2:] == ["", ""]
        events.end(cast("AdaptedDocument", _Adapted()))
    assert len(_shown(stream)) == 4
    assert [report.stage for report in reports] == ["load", "train"]
    assert seen.names[-1] == "AdaptationEndEvent"


def test_loading_alone_is_shown_and_cleared_before_the_answer(seen: _Seen) -> None:
    stream = io.StringIO()
    with AdaptationEvents("m", line=ProgressLine(stream)) as events:
        events.progress(Progress("load", 0, 1))
        events.end(None)
        assert _shown(stream) == ["loading the model", "", ""]
    assert seen.names == []


def test_errors_clear_the_line(seen: _Seen) -> None:
    stream = io.StringIO()

    def cancel(progress: Progress) -> None:
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        AdaptationEvents("m", cancel, line=ProgressLine(stream)) as events,
    ):
        events.progress(Progress("train", 1, 2))
    assert _shown(stream) == ["training 1/2", "", ""]


def test_an_adaptation_is_done_though_no_answer_follows(llm: TTTLLM, seen: _Seen) -> None:
    with pytest.raises(PromptTooLongError):
        llm.for_documents(OWLS).chat([ChatMessage(content="Where? " * 200)])
    assert seen.events[-1].class_name() == "AdaptationEndEvent"
    assert (seen.events[-1].decision, seen.events[-1].error) == ("adapted", None)
