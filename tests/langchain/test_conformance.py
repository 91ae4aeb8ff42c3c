"""Each fault that was measured in other local chat models, as a test that this one has it not.

What is measured of whom: `shared/research/langchain.md`, section 3.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import add as plus
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.exceptions import ModelInvalidRequestError, ModelTimeoutError
from langchain_core.load import dumps
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import ConfigurableField
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run

from langchain_ttt import ChatTTT
from tests.conftest import build_model
from tests.scripted import CHATML_TOOLS, Script, ScriptedModel, scripted_tokenizer
from ttt_core import AdaptationConfig, TTTEngine

RECIPE = AdaptationConfig(
    steps=2, learning_rate=0.01, gate=False, early_stopping=False, held_out=2, clozes_per_step=2,
    max_drift=1e9,
)  # fmt: skip
OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))
FOXES = "\n".join(f"the fox number {number} eats {number * 3 % 10} eggs" for number in range(5))
REPLY = "In the old tree.\n\nThe \u68df owl \U0001f989 said so."

Make = Callable[..., tuple[ChatTTT, ScriptedModel]]


def add(x: int) -> int:
    """Add a number."""
    return x


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    engines = []

    def make(script: Script, **options: Any) -> tuple[ChatTTT, ScriptedModel]:
        tokenizer = scripted_tokenizer(tools=True)
        model = ScriptedModel(script, tokenizer)
        engine = TTTEngine(model, tokenizer, adaptation=RECIPE, store=tmp_path / "store")
        engines.append(engine)
        return ChatTTT(engine=engine, **options), model

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[TTTEngine]:
    model = build_model("qwen3", max_position_embeddings=4096)
    tokenizer = scripted_tokenizer(CHATML_TOOLS)
    with TTTEngine(model, tokenizer, adaptation=RECIPE, store=tmp_path / "store") as engine:
        yield engine


@pytest.fixture
def llm(engine: TTTEngine) -> ChatTTT:
    """Random weights: every document gives another answer."""
    return ChatTTT(engine=engine, max_tokens=8)


def spy(engine: TTTEngine, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Record how the engine is asked."""
    asked: list[dict[str, Any]] = []
    whole = engine.stream

    def stream(adapted: Any, prompt: Any, **options: Any) -> Any:
        asked.append(options)
        return whole(adapted, prompt, **options)

    monkeypatch.setattr(engine, "stream", stream)
    return asked


def count_passes(engine: TTTEngine) -> list[None]:
    passes: list[None] = []
    engine._resident().model.runtime.model.register_forward_hook(lambda *_: passes.append(None))
    return passes


def owl_or_fox(prompt: str) -> str:
    return f"owl: {'owl' in prompt}, fox: {'fox' in prompt}"


# Streams, tasks and threads


@pytest.mark.parametrize("streamed", [False, True], ids=["ainvoke", "astream"])
def test_the_event_loop_is_never_held_up(llm: ChatTTT, streamed: bool) -> None:
    owls = llm.with_documents(OWLS)
    owls.adapt()
    gaps = [asyncio.run(longest_gap(owls, streamed=streamed)) for _ in range(3)]
    assert min(gaps) < 0.05


async def longest_gap(llm: ChatTTT, *, streamed: bool) -> float:
    """Seconds that a task which is always ready had to wait while an answer was made."""

    async def ask() -> None:
        if streamed:
            async for _ in llm.astream("Where?", max_tokens=60):
                pass
        else:
            await llm.ainvoke("Where?", max_tokens=60)

    task = asyncio.create_task(ask())
    longest, last = 0.0, time.perf_counter()
    while not task.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    await task
    return longest


def test_leaving_an_async_stream_stops_the_work(engine: TTTEngine, llm: ChatTTT) -> None:
    passes = count_passes(engine)

    async def ask() -> int:
        stream: Any = llm.astream("Where?", max_tokens=2000)
        async for _ in stream:
            break
        await stream.aclose()
        return len(passes)

    asyncio.run(ask())
    settle(passes)
    assert len(passes) < 500


@pytest.mark.parametrize("options", [{}, {"tools": True}])
def test_cancelling_a_task_stops_the_work(
    engine: TTTEngine, llm: ChatTTT, options: dict[str, Any]
) -> None:
    passes = count_passes(engine)
    asked: Any = llm.bind_tools([add], tool_choice="any") if options else llm

    async def ask() -> None:
        task = asyncio.ensure_future(asked.ainvoke("Where?", max_tokens=2000))
        while len(passes) < 3 and not task.done():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    settle(passes)
    assert len(passes) < 500


def settle(passes: list[None]) -> None:
    before = -1
    while len(passes) != before:
        before = len(passes)
        time.sleep(0.3)


def test_documents_never_cross_between_threads(make: Make) -> None:
    llm, _ = make(owl_or_fox)
    found: dict[str, list[str]] = {OWLS: [], FOXES: []}

    def ask(document: str) -> None:
        for _ in range(5):
            found[document].append(llm.invoke("Which?", documents=document).text)

    threads = [threading.Thread(target=ask, args=(document,)) for document in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {OWLS: ["owl: True, fox: False"] * 5, FOXES: ["owl: False, fox: True"] * 5}


def test_documents_never_cross_between_tasks(make: Make) -> None:
    llm, _ = make(owl_or_fox)
    ways: list[Any] = [
        llm.with_documents(OWLS).ainvoke("Which?"),
        llm.ainvoke("Which?", documents=FOXES),
        llm.ainvoke("Which?", adapter=llm.adapt(OWLS)),
        llm.with_documents(FOXES).ainvoke("Which?", documents=OWLS),
        llm.ainvoke("Which?"),
    ]

    async def ask() -> list[AIMessage]:
        return list(await asyncio.gather(*ways))

    owls, foxes, none = "owl: True, fox: False", "owl: False, fox: True", "owl: False, fox: False"
    assert [answer.text for answer in asyncio.run(ask())] == [owls, foxes, owls, owls, none]


def test_the_default_executor_is_not_used(llm: ChatTTT) -> None:
    """A server's own blocking work must not wait for answers, nor answers for it."""

    async def ask() -> str:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(NoExecutor())
        chunks = [chunk async for chunk in llm.astream("Where?")]
        assert (await llm.ainvoke("Where?")).text == "".join(chunk.text for chunk in chunks)
        return "done"

    assert asyncio.run(ask()) == "done"


class NoExecutor(ThreadPoolExecutor):
    def submit(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the loop's default executor was used")


# Stop strings


@pytest.mark.parametrize("stop", ["ld tr", "\n\n", "\u68df", "\U0001f989", " owl \U0001f989", "I"])
def test_stop_strings_over_token_borders(make: Make, stop: str) -> None:
    llm, _ = make(lambda prompt: REPLY)
    before = REPLY.partition(stop)[0]
    for message in (
        llm.invoke("Where?", stop=[stop]),
        llm.bind(stop=[stop]).invoke("Where?"),
        llm.model_copy(update={"stop": [stop]}).invoke("Where?"),
        reduce(plus, llm.stream("Where?", stop=["never", stop])),
    ):
        assert message.text == before
        assert message.response_metadata["finish_reason"] == "stop"
    assert stop not in "".join(chunk.text for chunk in llm.stream("Where?", stop=[stop]))


def test_the_prompt_is_not_echoed(make: Make) -> None:
    llm, _ = make(lambda prompt: REPLY)
    assert llm.invoke("Where?").text == REPLY
    assert llm.with_documents(OWLS).invoke([SystemMessage("a"), HumanMessage("b")]).text == REPLY


# Options


def test_options_of_the_call_reach_the_engine(
    engine: TTTEngine, llm: ChatTTT, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spy(engine, monkeypatch)
    options: dict[str, Any] = {
        "temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2,
        "seed": 4, "logprobs": True, "top_logprobs": 2, "stop": ["never"],
    }  # fmt: skip
    llm.invoke("Where?", max_tokens=3, **options)
    list(llm.stream("Where?", max_tokens=3, **options))
    asyncio.run(llm.ainvoke("Where?", max_tokens=3, **options))
    llm.bind(max_tokens=3, **options).invoke("Where?")
    ChatTTT(engine=engine, max_tokens=3, **options).invoke("Where?")
    assert asked == [{"max_new_tokens": 3, **options}] * 5


@pytest.mark.parametrize("number", [0, -1, "two"])
def test_a_number_of_answers_that_cannot_be(llm: ChatTTT, number: Any) -> None:
    with pytest.raises(ModelInvalidRequestError):
        llm.invoke("Where?", n=number)


def test_a_number_of_retries_that_cannot_be(llm: ChatTTT) -> None:
    with pytest.raises(ModelInvalidRequestError):
        llm.invoke("Where?", max_retries=-1)


def test_several_answers(llm: ChatTTT) -> None:
    several = ChatTTT(engine=llm.engine, max_tokens=8, n=3, temperature=1.0, seed=7)
    result = several.generate([[HumanMessage("Where?")], [HumanMessage("Why?")]])
    texts = [[generation.text for generation in each] for each in result.generations]
    assert [len(each) for each in texts] == [3, 3]
    assert len(set(texts[0])) > 1
    first = ChatTTT(engine=llm.engine, max_tokens=8, temperature=1.0, seed=7).invoke("Where?")
    assert several.invoke("Where?").text == texts[0][0] == first.text
    again = several.generate([[HumanMessage("Where?")]])
    assert [generation.text for generation in again.generations[0]] == texts[0]
    by_call = llm.generate([[HumanMessage("Where?")]], n=2)
    assert len(by_call.generations[0]) == 2


def test_the_time_limit_is_kept(llm: ChatTTT) -> None:
    for options in ({"timeout": 1e-9}, {"timeout": 1e-9, "documents": OWLS}):
        with pytest.raises(ModelTimeoutError) as caught:
            llm.invoke("Where?", max_tokens=400, **options)
        assert caught.value.is_retryable
        with pytest.raises(ModelTimeoutError):
            list(llm.stream("Where?", max_tokens=400, **options))
        with pytest.raises(ModelTimeoutError):
            asyncio.run(llm.ainvoke("Where?", max_tokens=400, **options))
    assert llm.with_documents(OWLS).invoke("Where?").text, "what was broken off can be done again"


def test_another_model_for_one_call(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        build_model("qwen3", seed=seed).save_pretrained(tmp_path / name)
        scripted_tokenizer(CHATML_TOOLS).save_pretrained(tmp_path / name)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    llm = ChatTTT(model=one, max_tokens=8)
    answers = [llm.invoke("Where?"), llm.invoke("Where?", model=two), ChatTTT(
        model=two, max_tokens=8).invoke("Where?")]  # fmt: skip
    names = [answer.response_metadata["model_name"] for answer in answers]
    assert names == [one, two, two]
    assert answers[0].text != answers[1].text == answers[2].text
    merged = reduce(plus, llm.stream("Where?", model=two))
    assert (merged.text, merged.response_metadata["model_name"]) == (answers[1].text, two)
    assert llm._get_ls_params(model=two)["ls_model_name"] == two


def test_profile_and_parameters_for_traces(llm: ChatTTT) -> None:
    profile = llm.profile or {}
    assert profile["tool_calling"] is profile["structured_output"] is True
    parameters = ChatTTT(model="m", temperature=0.5, max_tokens=7, stop=["a"])._get_ls_params()
    assert parameters == {
        "ls_provider": "ttt", "ls_model_name": "m", "ls_model_type": "chat",
        "ls_temperature": 0.5, "ls_max_tokens": 7, "ls_stop": ["a"],
    }  # fmt: skip


# Counts


CONVERSATIONS: dict[str, list[BaseMessage]] = {
    "question": [HumanMessage("Where?")],
    "system": [SystemMessage("Be brief."), HumanMessage("Where?")],
    "two systems": [SystemMessage("Be brief."), SystemMessage("Be kind."), HumanMessage("Where?")],
    "two questions": [HumanMessage("Where?"), HumanMessage("And why?")],
    "blocks": [HumanMessage([{"type": "text", "text": "Where"}, "?"])],
    "named": [HumanMessage("Where?", name="someone")],
    "turns": [HumanMessage("a"), AIMessage("b"), HumanMessage("c")],
    "answers in a row": [HumanMessage("a"), AIMessage("b"), AIMessage("c"), HumanMessage("d")],
    "empty answer": [HumanMessage("a"), AIMessage(""), HumanMessage("c")],
    "tool message last": [
        HumanMessage("a"), AIMessage("", tool_calls=[{"name": "add", "args": {"x": 1}, "id": "1"}]),
        ToolMessage("4", tool_call_id="1"),
    ],
    "two results": [
        HumanMessage("a"),
        AIMessage("b", tool_calls=[
            {"name": "add", "args": {"x": number}, "id": str(number)} for number in (1, 2)]),
        ToolMessage("4", tool_call_id="1"), ToolMessage("5", tool_call_id="2"), HumanMessage("c"),
    ],
    "answer last": [HumanMessage("a"), AIMessage("b")],
    "late system": [HumanMessage("a"), SystemMessage("Be brief."), HumanMessage("c")],
}  # fmt: skip


@pytest.mark.parametrize("name", list(CONVERSATIONS))
@pytest.mark.parametrize("tools", [[], [add]], ids=["alone", "tools"])
def test_counts_are_those_of_the_prompt(make: Make, name: str, tools: list[Any]) -> None:
    llm, model = make(lambda prompt: REPLY)
    messages = CONVERSATIONS[name]
    bound = llm.bind_tools(tools) if tools else llm
    whole, merged = bound.invoke(messages), reduce(plus, bound.stream(messages))
    [prompt] = model.prompts
    true = len(scripted_tokenizer()(prompt, add_special_tokens=False)["input_ids"])
    assert whole.usage_metadata == merged.usage_metadata
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["input_tokens"] == true
    assert llm.get_num_tokens_from_messages(messages, tools=tools or None) == true
    said = scripted_tokenizer()(REPLY, add_special_tokens=False)["input_ids"]
    assert whole.usage_metadata["output_tokens"] == len(said) + 1
    assert whole.text == merged.text == REPLY


@pytest.mark.parametrize("content", ["", [], [{"type": "text", "text": ""}], [""]])
def test_empty_content(make: Make, content: Any) -> None:
    """Alone it is refused, in whatever shape; beside other messages it does no harm."""
    llm, _ = make(lambda prompt: REPLY)
    with pytest.raises(ModelInvalidRequestError):
        llm.invoke([HumanMessage(content)])
    assert llm.invoke([SystemMessage(content), HumanMessage("a"), AIMessage(content)]).text == REPLY


def test_a_greeting_before_the_first_question(make: Make) -> None:
    llm, model = make(lambda prompt: REPLY)
    conversation = [AIMessage("Hello! Ask me."), HumanMessage("Where?")]
    assert llm.invoke(conversation).text == REPLY
    assert llm.with_documents(OWLS).invoke(conversation).text == REPLY
    assert OWLS in model.prompts[-1]
    assert "Ask me." in model.prompts[-1]


async def chunks_of(stream: AsyncIterator[AIMessageChunk]) -> list[AIMessageChunk]:
    return [chunk async for chunk in stream]


def test_usage_is_on_one_chunk(llm: ChatTTT) -> None:
    owls = llm.with_documents(OWLS)
    owls.adapt()
    for chunks in (list(owls.stream("Where?")), asyncio.run(chunks_of(owls.astream("Where?")))):
        counted = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
        assert len(counted) == 1
        assert counted[0]["input_tokens"] >= counted[0]["input_token_details"]["cache_read"] > 0
        assert [chunk.chunk_position for chunk in chunks].count("last") == 1
        assert not any(chunk.response_metadata.get("finish_reason") for chunk in chunks[:-1])


def test_log_probabilities(llm: ChatTTT) -> None:
    options: dict[str, Any] = {"logprobs": True, "top_logprobs": 2}
    whole = llm.invoke("Where?", **options).response_metadata["logprobs"]["content"]
    merged = reduce(plus, llm.stream("Where?", **options)).response_metadata["logprobs"]["content"]
    assert whole == merged
    assert len(whole) == 8
    for entry in whole:
        assert entry.keys() == {"token", "logprob", "bytes", "top_logprobs"}
        assert entry["logprob"] == entry["top_logprobs"][0]["logprob"] <= 0
        assert entry["token"] == entry["top_logprobs"][0]["token"]
        assert len(entry["top_logprobs"]) == 2
    assert "logprobs" not in llm.invoke("Where?").response_metadata


# Callbacks and traces


class Everything(BaseCallbackHandler):
    """All that a handler is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.told = ""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_") or name == "on_retry":
            return object.__getattribute__(self, name)

        def tell(*args: Any, **kwargs: Any) -> None:
            self.events.append(name)
            self.told += repr((args, kwargs))

        return tell


class Traces(BaseTracer):
    runs: list[Run]

    def __init__(self) -> None:
        super().__init__()
        self.runs = []

    def _persist_run(self, run: Run) -> None:
        self.runs.append(run)


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream", "batch"])
def test_callbacks_fire_once(llm: ChatTTT, way: str) -> None:
    seen = Everything()
    config: Any = {"callbacks": [seen]}
    ask: dict[str, Callable[[], Any]] = {
        "invoke": lambda: llm.invoke("Where?", config),
        "stream": lambda: list(llm.stream("Where?", config)),
        "ainvoke": lambda: asyncio.run(llm.ainvoke("Where?", config)),
        "astream": lambda: asyncio.run(chunks_of(llm.astream("Where?", config))),
        "batch": lambda: llm.batch(["Where?"], config),
    }
    made = ask[way]()
    assert seen.events.count("on_chat_model_start") == seen.events.count("on_llm_end") == 1
    assert seen.events.count("on_llm_new_token") == (len(made) if "stream" in way else 0)
    assert "on_llm_error" not in seen.events


def test_no_document_is_told_to_anybody(llm: ChatTTT) -> None:
    """Not by callbacks, traces, errors, cache keys, serialised forms or repr()."""
    seen, traces, cache = Everything(), Traces(), InMemoryCache()
    llm = llm.model_copy(update={"cache": cache})
    config: Any = {"callbacks": [seen, traces]}
    owls = llm.with_documents(OWLS)
    llm.invoke("Where?", config, documents=OWLS)
    llm.invoke("Where?", config, documents=[Document(OWLS, metadata={"source": "owl.txt"}), FOXES])
    llm.invoke("Where?", config, adapter=llm.adapt(OWLS))
    owls.invoke("Where?", config)
    owls.bind_tools([add]).invoke("Where?", config, max_tokens=90)
    list(llm.stream("Where?", config, documents=OWLS))
    asyncio.run(llm.ainvoke("Where?", config, documents=OWLS))
    llm.bind(documents=OWLS).invoke("Where?", config)
    with pytest.raises(Exception, match="temprature") as caught:
        llm.invoke("Where?", config, documents=OWLS, temprature=1)
    told = [seen.told, str(caught.value), repr(caught.value), repr(owls), dumps(owls), str(owls)]
    told += [repr(run.inputs) + repr(run.extra) + repr(run.outputs) for run in traces.runs]
    told += [repr(key) for key in cache._cache]
    assert seen.told
    assert traces.runs
    for text in told:
        assert "lives in tree" not in text
        assert "eggs" not in text


def test_a_binding_does_not_show_its_documents(llm: ChatTTT) -> None:
    bound = llm.bind(documents=OWLS)
    assert "owl" not in repr(bound)
    assert "owl" not in dumps(bound)


def test_errors_do_not_hold_documents(llm: ChatTTT) -> None:
    long = OWLS * 40
    named: dict[str, Any] = {"model": "m", "documents": OWLS}
    for ask in (
        lambda: llm.invoke("Where?", documents=long),
        lambda: llm.invoke([HumanMessage(long)]),
        lambda: llm.invoke("Where?", documents=[OWLS, 3]),
        lambda: llm.invoke("Where?", documents=OWLS, adapter="x"),
        lambda: llm.invoke("Where?", documents=OWLS, tools=[{"type": "x"}]),
        lambda: ChatTTT(**{**named, "temperature": -1}),
        lambda: ChatTTT(**{**named, "nonsense": OWLS}),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            ask()
        error: BaseException | None = caught.value
        while error is not None:
            assert "lives in tree" not in str(error) + repr(error)
            error = error.__cause__ or error.__context__


# LangChain's cache of answers


def test_the_cache_tells_documents_apart(engine: TTTEngine) -> None:
    llm = ChatTTT(engine=engine, max_tokens=8, cache=InMemoryCache())
    marked = {"type": "text-plain", "mime_type": "text/plain", "text": OWLS}
    handles = [llm.adapt(OWLS), llm.adapt(FOXES)]
    asked: list[Callable[[], AIMessage]] = [
        lambda: llm.invoke("Where?"),
        lambda: llm.invoke("Where?", documents=OWLS),
        lambda: llm.invoke("Where?", documents=FOXES),
        lambda: llm.invoke("Where?", documents=[OWLS, FOXES]),
        lambda: llm.invoke("Where?", documents=[FOXES, OWLS]),
        lambda: llm.with_documents(OWLS).invoke("Where?"),
        lambda: llm.with_documents(OWLS).model_copy(update={"documents": [FOXES]}).invoke("Where?"),
        lambda: llm.invoke("Where?", adapter=handles[0]),
        lambda: llm.invoke("Where?", adapter=handles[1].id),
        lambda: llm.invoke([HumanMessage([marked, {"type": "text", "text": "Where?"}])]),
    ]
    plain = ChatTTT(engine=engine, max_tokens=8)
    expected = [plain.invoke("Where?").text]
    expected += [
        plain.invoke("Where?", documents=documents).text
        for documents in (OWLS, FOXES, [OWLS, FOXES], [FOXES, OWLS], OWLS, FOXES, OWLS, FOXES, OWLS)
    ]
    assert [ask().text for ask in asked] == expected
    passes = count_passes(engine)
    assert [ask().text for ask in asked] == expected
    assert not passes, "the second time, all of it comes from the cache"


def test_the_cache_tells_requests_apart(engine: TTTEngine) -> None:
    cache = InMemoryCache()
    llm = ChatTTT(engine=engine, max_tokens=90, cache=cache)
    schema = {"title": "T", "description": "d", "type": "object",
              "properties": {"a": {"type": "integer"}}, "required": ["a"]}  # fmt: skip
    asked = [
        llm,
        llm.bind_tools([add]),
        llm.bind_tools([add], tool_choice="any"),
        llm.bind_tools([add], tool_choice="any", parallel_tool_calls=False),
        llm.bind(response_format={"type": "json_object"}),
        llm.bind(response_format={"type": "json_schema", "json_schema": {"schema": schema}}),
        llm.bind(max_tokens=3),
        llm.bind(stop=["a"]),
        llm.bind(temperature=1.0, seed=1),
        llm.model_copy(update={"max_tokens": 4}),
        llm.model_copy(update={"seed": 4}),
    ]
    for number, each in enumerate(asked, 1):
        each.invoke("Where?")
        assert len(cache._cache) == number
    passes = count_passes(engine)
    called = asked[2].invoke("Where?")
    assert called.tool_calls, "calls come out of the cache, too"
    assert not passes


def test_the_cache_tells_namespaces_apart(engine: TTTEngine) -> None:
    cache = InMemoryCache()
    for options in ({}, {"namespace": "a"}, {"namespace": "b"},
                    {"namespace": "a", "namespace_secret": "s" * 16}):  # fmt: skip
        llm = ChatTTT(engine=engine, max_tokens=4, cache=cache).model_copy(update=options)
        before = len(cache._cache)
        llm.invoke("Where?", documents=OWLS)
        assert len(cache._cache) == before + 1


# Binding


def test_documents_survive_being_bound_last(llm: ChatTTT) -> None:
    bound = llm.bind_tools([add]).bind(documents=OWLS)
    assert bound.invoke("?", max_tokens=90).response_metadata["ttt"]["documents_from"] == "call"


@pytest.mark.parametrize("then", ["bind_tools", "with_structured_output"])
def test_documents_survive_being_bound_first(llm: ChatTTT, then: str) -> None:
    schema = {"title": "T", "description": "d", "type": "object",
              "properties": {"a": {"type": "boolean"}}, "required": ["a"]}  # fmt: skip
    bound: Any = llm.model_copy(update={"max_tokens": 90}).bind(documents=OWLS)
    traces = Traces()
    if then == "bind_tools":
        bound.bind_tools([add]).invoke("?", {"callbacks": [traces]})
    else:
        bound.with_structured_output(schema).invoke("?", {"callbacks": [traces]})
    assert '"documents_from": "' in dumps([run.outputs for run in flatten(traces.runs)])


def flatten(runs: list[Run]) -> list[Run]:
    return [one for run in runs for one in (run, *flatten(run.child_runs))]


def test_documents_survive_configurable_fields(llm: ChatTTT) -> None:
    field: Any = llm.configurable_fields(documents=ConfigurableField(id="documents"))
    plain = [llm.invoke("Where?", documents=each).text for each in (OWLS, FOXES)]
    asked = [
        field.invoke("Where?", config={"configurable": {"documents": each}}).text
        for each in (OWLS, FOXES)
    ]
    assert asked == plain
    assert field.invoke("Where?").text == llm.invoke("Where?").text


def test_objects_are_pickled_without_their_weights(tmp_path: Path) -> None:
    build_model("qwen3", max_position_embeddings=4096).save_pretrained(tmp_path / "one")
    scripted_tokenizer(CHATML_TOOLS).save_pretrained(tmp_path / "one")
    llm = ChatTTT(model=str(tmp_path / "one"), max_tokens=90).with_documents(OWLS)
    text = llm.invoke("Where?").text
    data = pickle.dumps(llm)
    assert len(data) < 20_000
    again = pickle.loads(data)
    assert again.invoke("Where?").text == text
    assert again.document_ids == llm.document_ids
    bound = pickle.loads(pickle.dumps(llm.bind_tools([add], tool_choice="any")))
    assert bound.invoke("Where?").tool_calls
