"""Progress arrives wherever LangChain has handlers, and can be shown as a line."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import START, StateGraph

from langchain_ttt import ChatTTT
from langchain_ttt.events import EVENT
from langchain_ttt.progress import TTTProgressHandler, describe
from ttt_core import AdaptationConfig, TTTEngine

OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))
QUESTION = "Where?"
RECIPE = AdaptationConfig(steps=2, gate=False, early_stopping=False, held_out=2, clozes_per_step=2)


@pytest.fixture
def engine(model: Any, tokenizer: Any, tmp_path: Path) -> Iterator[TTTEngine]:
    with TTTEngine(model, tokenizer, adaptation=RECIPE, store=tmp_path / "store") as engine:
        yield engine


@pytest.fixture
def owls(engine: TTTEngine) -> ChatTTT:
    return ChatTTT(engine=engine, max_tokens=4).with_documents(OWLS)


class _Seen(BaseCallbackHandler):
    """Collects the data of all progress events, with the runs they belong to."""

    run_inline = True

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        self.runs: set[Any] = set()
        self.model_runs: set[Any] = set()

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.model_runs.add(kwargs["run_id"])

    def on_custom_event(self, name: str, data: Any, *, run_id: Any, **kwargs: Any) -> None:
        if name == EVENT:
            self.reports.append(data)
            self.runs.add(run_id)


class _AsyncSeen(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []

    async def on_custom_event(self, name: str, data: Any, *, run_id: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        self.reports.append(data)


class _State(TypedDict):
    question: str
    answer: str


def as_chain(llm: ChatTTT) -> Runnable[Any, Any]:
    return ChatPromptTemplate.from_messages([("human", "{question}")]) | llm | StrOutputParser()


def as_lambda(llm: ChatTTT) -> Runnable[Any, Any]:
    """Calls the model inside a function, which passes no config on: LangChain does."""

    def call(inputs: dict[str, Any]) -> AIMessage:
        return llm.invoke(inputs["question"])

    async def acall(inputs: dict[str, Any]) -> AIMessage:
        return await llm.ainvoke(inputs["question"])

    return RunnableLambda(call, acall)


def as_graph(llm: ChatTTT) -> Runnable[Any, Any]:
    def node(state: _State, config: Any) -> dict[str, str]:
        return {"answer": llm.invoke(state["question"], config).text}

    async def anode(state: _State, config: Any) -> dict[str, str]:
        return {"answer": (await llm.ainvoke(state["question"], config)).text}

    graph = StateGraph(_State)
    graph.add_node("ask", RunnableLambda(node, anode))
    graph.add_edge(START, "ask")
    return graph.compile()


def invoke(chain: Runnable[Any, Any], given: Any, config: Any) -> None:
    chain.invoke(given, config)


def stream(chain: Runnable[Any, Any], given: Any, config: Any) -> None:
    list(chain.stream(given, config))


def batch(chain: Runnable[Any, Any], given: Any, config: Any) -> None:
    chain.batch([given], config)


async def ainvoke(chain: Runnable[Any, Any], given: Any, config: Any) -> None:
    await chain.ainvoke(given, config)


async def astream(chain: Runnable[Any, Any], given: Any, config: Any) -> None:
    async for _ in chain.astream(given, config):
        pass


async def astream_log(chain: Runnable[Any, Any], given: Any, config: Any) -> None:
    async for _ in chain.astream_events(given, config, version="v2"):
        pass


def check(reports: list[dict[str, Any]]) -> None:
    """Everything that was done has been told, in order, as plain JSON and without any text."""
    stages = list(dict.fromkeys(report["stage"] for report in reports))
    assert stages == ["prefill", "train", "probe"]
    training = [report for report in reports if report["stage"] == "train"]
    assert [report["done"] for report in training] == sorted(report["done"] for report in training)
    assert training[-1]["done"] == training[-1]["total"] == RECIPE.steps
    assert json.loads(json.dumps(reports)) == reports
    assert "owl" not in json.dumps(reports)


CHAINS: list[Any] = [as_chain, as_lambda, as_graph]


@pytest.mark.parametrize("ask", [invoke, stream, batch])
def test_events_of_the_model(owls: ChatTTT, ask: Callable[..., None]) -> None:
    seen = _Seen()
    ask(owls, QUESTION, {"callbacks": [seen]})
    check(seen.reports)
    assert seen.runs == seen.model_runs
    again = _Seen()
    ask(owls, QUESTION, {"callbacks": [again]})
    assert again.reports == []


@pytest.mark.parametrize("ask", [ainvoke, astream, astream_log])
@pytest.mark.parametrize("kind", [_Seen, _AsyncSeen])
async def test_events_of_the_model_beside_a_loop(
    owls: ChatTTT, ask: Callable[..., Awaitable[None]], kind: type[Any]
) -> None:
    seen = kind()
    await ask(owls, QUESTION, {"callbacks": [seen]})
    check(seen.reports)


@pytest.mark.parametrize("ask", [invoke, stream])
@pytest.mark.parametrize("make", CHAINS)
def test_events_in_chains(owls: ChatTTT, make: Any, ask: Callable[..., None]) -> None:
    seen = _Seen()
    ask(make(owls), {"question": QUESTION}, {"callbacks": [seen]})
    check(seen.reports)
    assert seen.runs == seen.model_runs


@pytest.mark.parametrize("ask", [ainvoke, astream])
@pytest.mark.parametrize("make", CHAINS)
async def test_events_in_chains_beside_a_loop(
    owls: ChatTTT, make: Any, ask: Callable[..., Awaitable[None]]
) -> None:
    seen = _Seen()
    await ask(make(owls), {"question": QUESTION}, {"callbacks": [seen]})
    check(seen.reports)
    assert seen.runs == seen.model_runs


def test_handlers_of_the_instance_see_them(owls: ChatTTT) -> None:
    seen = _Seen()
    owls.model_copy(update={"callbacks": [seen]}).invoke(QUESTION)
    check(seen.reports)


@pytest.mark.parametrize("make", [lambda llm: llm, *CHAINS])
async def test_event_streams_hold_them_as_custom_events(owls: ChatTTT, make: Any) -> None:
    chain = make(owls)
    given = QUESTION if chain is owls else {"question": QUESTION}
    events: list[Any] = [event async for event in chain.astream_events(given, version="v2")]
    custom = [event for event in events if event["event"] == "on_custom_event"]
    check([event["data"] for event in custom])
    assert {event["name"] for event in custom} == {EVENT}
    started = [event for event in events if event["event"] == "on_chat_model_start"]
    assert {event["run_id"] for event in custom} == {started[0]["run_id"]}
    assert custom[0]["parent_ids"] == started[0]["parent_ids"]
    names = [event["event"] for event in events]
    # Each report comes while the work is going on: before the answer, not behind it.
    assert names.index("on_custom_event") < names.index("on_chat_model_end")
    if "on_chat_model_stream" in names:
        last = len(names) - 1 - names[::-1].index("on_custom_event")
        assert last < names.index("on_chat_model_stream")


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_typed_event_streams_are_whole(owls: ChatTTT) -> None:
    """`version="v3"`: content blocks instead of chunks, from the model and without a document."""
    whole = owls.invoke(QUESTION)
    made = owls.stream_events(QUESTION, version="v3")
    events: Any = list(made)
    assert [event["event"] for event in (events[0], events[-1])] == [
        "message-start",
        "message-finish",
    ]
    assert made.output.text == whole.text
    later = await owls.astream_events(QUESTION, version="v3")
    assert (await later.output).text == whole.text


def test_cancelled_from_a_handler(owls: ChatTTT) -> None:
    """A handler that raises, and is asked to be taken seriously, stops the training."""

    class Stop(BaseCallbackHandler):
        raise_error = True

        def on_custom_event(self, name: str, data: Any, *, run_id: Any, **kwargs: Any) -> None:
            if data["stage"] == "train":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        owls.invoke(QUESTION, {"callbacks": [Stop()]})
    assert owls.invoke(QUESTION).response_metadata["ttt"]["source"] == "trained"


# The line


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[str]:
    """What stood on the line, one after another."""
    return [line.rstrip() for line in stream.getvalue().split("\r")]


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"stage": "load", "done": 0, "total": 1}, "loading the model"),
        ({"stage": "prefill", "done": 409, "total": 1024}, "reading 39%"),
        ({"stage": "train", "done": 12, "total": 48, "loss": 1.5}, "training 12/48"),
        ({"stage": "wait", "done": 3, "total": 0}, "waiting for another process, 3 s"),
        (
            {"stage": "prefill", "done": 1, "total": 2, "document": 3, "documents": 5},
            "document 3 of 5: reading 50%",
        ),
        ({"stage": "some new one", "done": 1, "total": 2}, "some new one 1/2"),
    ],
)
def test_reports_in_words(report: dict[str, Any], said: str) -> None:
    assert describe(report) == said


def test_one_line_that_is_gone_before_the_answer(owls: ChatTTT) -> None:
    shown = io.StringIO()
    handler = TTTProgressHandler(shown)
    for _ in owls.stream(QUESTION, {"callbacks": [handler]}):
        assert shown.getvalue().endswith(" \r")
    said = [line for line in lines(shown) if line]
    assert said[0].startswith("reading ")
    assert said[-1] == "judging 2/2"
    assert "\n" not in shown.getvalue()
    before = shown.getvalue()
    owls.invoke(QUESTION, {"callbacks": [handler]})
    assert shown.getvalue() == before


async def test_reports_do_not_overtake_each_other(owls: ChatTTT) -> None:
    shown, seen = io.StringIO(), _Seen()
    await owls.ainvoke(QUESTION, {"callbacks": [TTTProgressHandler(shown), seen]})
    assert [line for line in lines(shown) if line] == [describe(one) for one in seen.reports]


def test_errors_clear_the_line(owls: ChatTTT) -> None:
    shown = io.StringIO()
    with pytest.raises(ValueError, match="window"):
        owls.invoke("x" * 600, {"callbacks": [TTTProgressHandler(shown)]})
    assert "training 2/2" in shown.getvalue()
    assert lines(shown)[-2:] == ["", ""]


@given(st.lists(st.tuples(st.sampled_from(["prefill", "train"]), st.integers(0, 9999))))
def test_nothing_of_a_longer_line_is_left_behind(reports: list[tuple[str, int]]) -> None:
    stream = io.StringIO()
    handler, shown = TTTProgressHandler(stream), ""
    for stage, done in reports:
        data = {"stage": stage, "done": done, "total": 10_000}
        before = len(stream.getvalue())
        handler.on_custom_event(EVENT, data, run_id=None)  # type: ignore[arg-type]
        written = stream.getvalue()[before:].removeprefix("\r")
        shown = written + shown[len(written) :]
        assert shown.rstrip() == describe(data)


def test_shows_itself_on_a_terminal_only(owls: ChatTTT, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, log = _Terminal(), io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    owls.invoke(QUESTION, {"callbacks": [TTTProgressHandler()]})
    assert log.getvalue() == ""
    monkeypatch.setattr("sys.stderr", terminal)
    owls.with_documents(OWLS + "!").invoke(QUESTION, {"callbacks": [TTTProgressHandler()]})
    assert "training 2/2" in terminal.getvalue()
    monkeypatch.setattr("sys.stderr", None)
    owls.with_documents(OWLS + "?").invoke(QUESTION, {"callbacks": [TTTProgressHandler()]})


def test_other_events_are_not_shown() -> None:
    shown = io.StringIO()
    TTTProgressHandler(shown).on_custom_event("other", {"a": 1}, run_id=None)  # type: ignore[arg-type]
    assert shown.getvalue() == ""
